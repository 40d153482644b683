"""Policies into the kernel: the rows of this node's endpoints, and the identities they are about.

What the API server and the mesh say is put into ``policy.table``; a round of the table of this
node's kernel begins by computing. The order in which things become visible to the programs is what
keeps every moment safe (docs/adr/0149): rows about an identity are written before any address has
it, and go only after no address has it any more. Adapter: keeps a small file of numbers.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path

import msgspec

from agent.api_server import ApiServer, also_api_server
from agent.cidr_rules import CidrRules
from agent.endpoint_store import Endpoint, write_atomically
from agent.known import UNKNOWN, KnownIdentities
from agent.mesh_state import MeshState
from agent.node_identities import SOURCE_NODE, NodeIdentities, with_node_labels
from agent.policy_inputs import Port
from agent.staged_rules import StagedRules
from mesh.ipcache import Claimant, IpClaim
from model.address import MAPPED_BITS, Prefix, parse_prefix
from model.endpoint import EndpointId
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import IpcacheEntry, Source
from model.labels import SOURCE_K8S, SOURCE_RESERVED, Label, Labels
from model.policy_map import PolicyEntry, PolicyKey
from policy.known import Mode, Subject
from policy.selectors import cidr_labels
from policy.table import PolicyTable
from policy.wanted import FIRST, LAST, PrefixNumbers

log = logging.getLogger("isthmus.agent.policy")

Rows = dict[PolicyKey, PolicyEntry]

# How long rows stay after the last word about their identity: until no address has it any more.
# Each table is compared as a whole every two minutes; a prefix's address goes in the same round.
IDENTITY_REST_S = 300.0
PREFIX_REST_S = 5.0
NODE_ENDPOINT = EndpointId(0)  # the node itself
_CLAIMANT = Claimant(Source.GENERATED, origin="policy")


def reserved_labels() -> dict[int, Labels]:
    """What the reserved numbers stand for."""
    found = {
        int(identity): Labels.of([Label(identity.name.lower().replace("_", "-"), "", "reserved")])
        for identity in ReservedIdentity
        if identity is not ReservedIdentity.UNKNOWN
    }
    names = ("kube-apiserver", "remote-node")
    found[ReservedIdentity.KUBE_APISERVER] = Labels.of(Label(n, "", SOURCE_RESERVED) for n in names)
    return found


@dataclass(frozen=True, slots=True)
class OwnNode:
    """This node as policies see it. ``judged``: policies of nodes are enforced."""

    labels: dict[str, str] = field(default_factory=dict)
    judged: bool = False
    families: frozenset[int] = frozenset({4})  # of its addresses


class Policies:
    """The desired table of policy rows: ``get`` and ``items`` are the kernel's by endpoint."""

    def __init__(
        self,
        table: PolicyTable,
        mesh: MeshState,
        known: KnownIdentities,
        endpoints: Callable[[], Iterable[Endpoint]],
        ports: Callable[[str, str], tuple[Port, ...]],
        api_server: ApiServer,
        numbers_file: Path,
        clock: Callable[[], float],
        node: OwnNode = OwnNode(),
        nodes: NodeIdentities | None = None,
    ) -> None:
        """``ports`` gives the named ports of a pod of this node; ``nodes``: other nodes have
        identities by their labels."""
        self.table, self.known = table, known
        self._mesh, self._endpoints, self._ports = mesh, endpoints, ports
        self._file, self._clock = numbers_file, clock
        self.api_server = api_server
        api_server.on_change = lambda: self.touch()
        self._numbers = PrefixNumbers(_read_numbers(numbers_file))
        self.rules = StagedRules(table)
        self.cidr_rules = CidrRules(table, self._numbers.all())
        self._own: dict[int, dict[EndpointId, Labels]] = {}  # identities of this node's endpoints
        self._reserved = reserved_labels()
        self._node, self._nodes = node, nodes
        self._started = False
        self._new: set[int] = set()  # have labels, and no rows yet
        self._computed: set[int] = set()  # have rows, and these are not in the kernel yet
        self._prefixes: dict[Prefix, int] = {}  # that rules name now
        self._fresh: dict[Prefix, int] = {}  # of these, those that are not in the ipcache yet
        self._leaving: list[tuple[float, int]] = []  # a heap: when, and which number
        self._left: dict[int, float] = {}
        self.revision = 1  # of the policies as told
        self._computed_revision = 0
        self.realized_revision = 0  # of those in the kernel
        self._changed_s: float | None = None  # when the first change that is not written was told
        self.on_written: Callable[[float], None] = lambda took_s: None  # since that change
        self._moved_s: float | None = None  # the same of the first change of an identity,
        self._following_s: float | None = None  # and of the first that is computed
        self.on_followed: Callable[[float], None] = lambda took_s: None  # since that change
        self._told: dict[EndpointId, str] = {}
        self.errors: dict[EndpointId, str] = {}  # why an endpoint is closed
        self._in_kernel: frozenset[int] = frozenset()  # identities of a former life's addresses
        self._displaced: dict[int, int] = {}
        self.touch: Callable[[], None] = lambda: None
        self.soon: Callable[[], None] = lambda: None  # somebody waits for what was touched
        self.before_round: Callable[[], None] = lambda: None
        self.handed_on: Callable[[], None] = lambda: None  # the table has other rules
        mesh.identities.on_change = self.identity_changed

    @property
    def enforced(self) -> bool:
        """Whether the programs ask."""
        return self.table.options.mode is not Mode.NEVER

    def get(self, number: EndpointId, /) -> Rows | None:
        """The rows of an endpoint."""
        return self.table.rows(str(number)) if number in self._shown() else None

    def items(self) -> Iterator[tuple[EndpointId, Rows]]:
        """The rows of all endpoints."""
        for number in self._shown():
            yield number, self.table.rows(str(number))

    def _shown(self) -> dict[EndpointId, str]:
        return self._told if self.enforced else {}

    def kernel_has(self, rows: Iterable[IpcacheEntry]) -> None:
        """Addresses that a former life wrote have these identities."""
        self._in_kernel = frozenset(int(row.identity) for row in rows) - {UNKNOWN}

    def start(self) -> bool:
        """Every input has spoken: from here on rows are computed.

        True: labels of an identity that addresses in the kernel have are lost. They must be
        nobody's before rows are written: what denies him would go with his labels.
        """
        self._started, self.rules.holds = True, self.enforced
        labels: dict[int, Labels] = dict(self._mesh.identities.items())
        labels |= {n: next(iter(found.values())) for n, found in self._own.items()}
        labels |= self._reserved
        self.table.put_identities(labels)
        self._new |= set(labels)
        self._put_node()
        for endpoint in self._endpoints():
            self._put_endpoint(endpoint)
        self.touch()
        known = self._in_kernel & labels.keys()
        lost = {n for n in self._in_kernel - known if not FIRST <= n <= LAST}
        if lost and self.enforced:
            log.warning("event=labels-lost identities=%d", len(lost))
            self.known.add(set(known))
            return True
        return False

    def placed(self, missing: Mapping[Prefix, IpcacheEntry]) -> None:
        """Rows of the ipcache that find no room, as they should be: their addresses count as those
        of the next prefix around, or of the world."""
        found: dict[int, int] = {}
        for prefix, row in missing.items():
            other = self._around(prefix, missing)
            if other != UNKNOWN:
                found[int(row.identity)] = other
        if found != self._displaced:
            self._displaced = found
            self.table.put_displaced(found)
            self.touch()

    def _around(self, prefix: Prefix, missing: Mapping[Prefix, IpcacheEntry]) -> int:
        widest = MAPPED_BITS if prefix.version == 4 else 0
        for length in range(prefix.length - 1, widest - 1, -1):
            free = 128 - length
            around = Prefix((prefix.bits >> free << free).to_bytes(16) + bytes((length,)))
            row = self._mesh.ipcache.get(around)
            if row is not None and around not in missing:
                return int(row.identity)
        return int(ReservedIdentity.WORLD)

    def objects_changed(self, *, soon: bool = False) -> None:
        """Something that rules say or name may differ. ``soon``: a rule itself."""
        self.revision += 1
        if self._changed_s is None:
            self._changed_s = self._clock()
        self.touch()
        if soon:
            self.soon()

    def endpoint_changed(self, old: Endpoint | None, new: Endpoint | None) -> None:
        """An endpoint of this node has come, gone, or has other labels."""
        if old is not None:
            users = self._own.get(old.identity.id, {})
            users.pop(old.id, None)
            if not users:
                self._own.pop(old.identity.id, None)
        if new is not None:
            self._own.setdefault(new.identity.id, {})[new.id] = new.identity.labels
            self.identity_changed(new.identity.id)
            if self._started:
                self._put_endpoint(new)
        elif old is not None:
            self.table.drop_endpoint(str(old.id))
            self._told.pop(old.id, None)
            self.errors.pop(old.id, None)
        if old is not None and (new is None or new.identity.id != old.identity.id):
            self.identity_changed(old.identity.id)
        self.touch()

    def ports_changed(self, namespace: str, pod: str) -> None:
        """The named ports of a pod of this node may differ."""
        for endpoint in self._endpoints():
            if self._started and (endpoint.namespace, endpoint.pod) == (namespace, pod):
                self._put_endpoint(endpoint)
                self.touch()

    def node_labelled(self, labels: dict[str, str]) -> None:
        """This node has these labels now."""
        if labels != self._node.labels:
            self._node = replace(self._node, labels=labels)
            if self._started:
                self._put_node()
                self.touch()

    def _put_node(self) -> None:
        host = int(ReservedIdentity.HOST)
        labels = reserved_labels()[host]
        if self.api_server.here:
            labels = also_api_server(labels)
        self._reserved[host] = labels
        if self._nodes is not None:
            self._reserved[host] = with_node_labels(labels, self._node.labels, SOURCE_NODE)
        self.table.put_identity(host, self._reserved[host])
        if self._node.judged:
            subject = with_node_labels(labels, self._node.labels, SOURCE_K8S)
            self.table.put_endpoint(str(NODE_ENDPOINT), Subject(subject, (), True))

    def node_subject(self) -> Subject | None:
        """What decides the policy of the node itself; ``None``: it has none."""
        return self.table.subject(str(NODE_ENDPOINT))

    def _put_endpoint(self, endpoint: Endpoint) -> None:
        ports = self._ports(endpoint.namespace, endpoint.pod)
        self.table.put_endpoint(str(endpoint.id), Subject(endpoint.identity.labels, ports))

    def identity_changed(self, number: NumericIdentity) -> None:
        """What a number stands for may differ."""
        if not self._started:
            return
        if self._moved_s is None:
            self._moved_s = self._clock()
        labels = self._labels(number)
        if labels is not None:
            self._left.pop(number, None)
            self.table.put_identity(number, labels)
            self._new.add(number)
        else:
            self.known.discard(number)
            self._new.discard(number)
            self._leave(number, IDENTITY_REST_S)
        self.touch()

    def _labels(self, number: int) -> Labels | None:
        found = self._reserved.get(number) or self._mesh.identities.get(NumericIdentity(number))
        own = self._own.get(number)
        return found or (next(iter(own.values())) if own else None)

    def _leave(self, number: int, rest_s: float) -> None:
        due_s = self._clock() + rest_s
        self._left[number] = due_s
        heappush(self._leaving, (due_s, number))

    def prefixes_changed(
        self, changed: Collection[Prefix], wide: Collection[Prefix]
    ) -> list[Prefix]:
        """The ipcache's rows of prefixes, some of them ``wide``, may differ: those of our own that
        depend on them."""
        self.api_server.prefixes_changed(changed)
        if not wide:
            return []
        return [p for p in self._prefixes if any(around.covers(p) for around in wide)]

    def refresh(self) -> set[EndpointId]:
        """Compute; the endpoints whose rows may differ."""
        if not self._started:
            return set()
        self._forget()
        self.before_round()
        moved = self.api_server.judge()
        if moved:
            self._put_node()
        if self._nodes is not None:
            if moved:
                self._nodes.api_server_moved()
            self._nodes.save()
        if self.rules.hand_on(self._is_awaited):
            self.handed_on()
        self._number_prefixes(moved)
        new, self._new = self._new, set()
        self._computed |= new
        if not self.rules.waiting:
            self._computed_revision = self.revision
        if self._following_s is None:
            self._following_s = self._moved_s
        self._moved_s = None
        changes = self.table.compute()
        changed = {EndpointId(int(name)) for name in changes}
        for number in changed:
            error = changes[str(number)].error
            if error and error != self.errors.get(number):
                log.error('event=policy-closed endpoint=%d "%s"', number, error)
            self.errors.pop(number, None)
            self._told[number] = error
            if error:
                self.errors[number] = error
        return changed

    def _forget(self) -> None:
        now = self._clock()
        while self._leaving and self._leaving[0][0] <= now:
            due_s, number = heappop(self._leaving)
            if self._left.get(number) == due_s:
                del self._left[number]
                self.known.discard(number)
                self.table.drop_identity(number)

    def rests_until_s(self) -> float:
        """When the next identity is to be forgotten."""
        return self._leaving[0][0] if self._leaving else math.inf

    def _prefix_labels(self, prefix: Prefix) -> Labels:
        labels = cidr_labels(prefix)
        return also_api_server(labels) if prefix in self.api_server.outside else labels

    def _is_awaited(self, prefix: Prefix) -> bool:
        """Whether addresses are not known by it yet, and will be."""
        there = prefix in self._prefixes and prefix not in self._fresh
        return prefix.version in self._node.families and not there

    def _number_prefixes(self, moved: bool) -> None:
        # What no packet of this node can have is in no map of its kernel.
        named = self.table.prefixes() | self.rules.prefixes() | self.api_server.outside
        wanted = {prefix for prefix in named if prefix.version in self._node.families}
        for prefix, number in self._prefixes.items() if moved else ():
            self.table.put_identity(number, self._prefix_labels(prefix))
        self.cidr_rules.keep(wanted)
        if wanted == self._prefixes.keys():
            return
        self._numbers.want(wanted)
        before, self._prefixes = self._prefixes, self._numbers.all()
        try:
            file = {str(prefix): number for prefix, number in self._prefixes.items()}
            write_atomically(self._file, msgspec.json.encode(file))
        except OSError as error:
            log.error('event=file-not-written path=%s error="%s"', self._file, error)
        for prefix in self._prefixes.keys() - before.keys():
            number = self._fresh[prefix] = self._prefixes[prefix]
            for one in self.cidr_rules.numbers(number):
                self._left.pop(one, None)
            self.table.put_identity(number, self._prefix_labels(prefix))
            self._new.add(number)
            self.cidr_rules.named(prefix, number)
        for prefix in before.keys() - self._prefixes.keys():
            self._fresh.pop(prefix, None)
            self._mesh.ipcache.drop(prefix, _CLAIMANT)
            for number in self.cidr_rules.numbers(before[prefix]):
                self._leave(number, PREFIX_REST_S)

    def written(self) -> None:
        """The rows are in the kernel: addresses may have the identities they are about."""
        self.realized_revision = self._computed_revision
        if self._changed_s is not None and self.realized_revision == self.revision:
            self.on_written(self._clock() - self._changed_s)
            self._changed_s = None
        if self._following_s is not None:
            self.on_followed(self._clock() - self._following_s)
            self._following_s = None
        if not (self._started and self.enforced):
            return
        computed, self._computed = self._computed, set()
        fresh, self._fresh = self._fresh, {}
        self.known.add(computed)
        self.cidr_rules.written(fresh)
        for prefix, number in fresh.items():
            row = IpcacheEntry(NumericIdentity(number))
            self._mesh.ipcache.put(prefix, _CLAIMANT, IpClaim(row))
        if self.rules.waiting:
            self.touch()


def _read_numbers(path: Path) -> dict[Prefix, int]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        return {parse_prefix(text): number for text, number in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning('event=file-ignored path=%s error="%s"', path, error)
        return {}
