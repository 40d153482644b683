"""What of the agent's settings changes how objects are read. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How objects are read.

    ``default_local_cluster``: selectors of peers that name no cluster mean this one
    (``policy-default-local-cluster``). ``upstream_readings``: the literal readings of Cilium that
    let in more than was written (docs/adr/0144). ``invalid_open``: an invalid object closes
    nothing. ``invalid_closes_nodes``: one for nodes closes them. ``audit``: all are in audit.
    ``non_default_deny``: ``enableDefaultDeny`` may be false.
    """

    cluster: str = "default"
    default_local_cluster: bool = False
    upstream_readings: bool = False
    invalid_open: bool = False
    invalid_closes_nodes: bool = False
    audit: bool = False
    non_default_deny: bool = True
    node_selectors: bool = False
    l7_proxy: bool = True
