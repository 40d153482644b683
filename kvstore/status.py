"""What is known of a remote cluster, for people. Pure."""

from dataclasses import dataclass, field

from kvstore.connection import Action, Happening, State
from kvstore.staleness import KEEP, Age
from model.cluster import ClusterConfig, ClusterName
from wire.etcd.freshness_v1 import Freshness


@dataclass(slots=True)
class RemoteStatus:
    """One of them; times are those of the loop's clock."""

    name: ClusterName
    state: State = State.DISCONNECTED
    event: Happening | None = None  # the latest that the table did not pass over
    event_s: float = 0.0  # when, of the loop's clock
    action: Action = Action.NOTHING  # what followed
    age: Age = field(default_factory=lambda: Age(KEEP, 0.0))
    message: str = "Waiting for initial connection to be established"
    endpoint: str = ""
    etcd_id: int = 0
    config: ClusterConfig | None = None
    synced: set[str] = field(default_factory=set)  # this connection's listings
    counts: dict[str, int] = field(default_factory=dict)
    failures: int = 0  # of a connection that once stood
    last_failure_s: float = 0.0  # of the loop's clock; 0: never
    last_heartbeat_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)  # by type
    last_rejected: str = ""
    examples: dict[str, str] = field(default_factory=dict)  # by type, the latest
    late: int = 0  # changes that wait because this cluster has said too much too fast
    throttled: int = 0  # changes that had to wait
    compares: int = 0  # full compares with the store
    repaired: int = 0  # rows that such a compare found to be wrong or missing
    disorders: int = 0  # watches that told twice, backwards or out of order
    freshness: Freshness | None = None  # what a mirror in between says of its own connection

    @property
    def connected(self) -> bool:
        """The connection stands."""
        return self.state in (State.SILENT, State.CONNECTED, State.CONFIGURED, State.READY)

    @property
    def ready(self) -> bool:
        """Everything required has been read over this connection."""
        return self.state is State.READY
