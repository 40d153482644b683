"""A policy object to its rules, or to the reasons why it has none. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from model.policy_map import Direction
from policy.objects import cilium, network_policy
from policy.objects.cilium import ORIGIN_LABELS, Spec
from policy.objects.notes import Finding, Node, Notes
from policy.objects.selectors import Scope
from policy.objects.settings import Settings
from policy.rules import Origin, PolicyRule

AUDIT_ANNOTATION = "policy.isthmus.io/audit"


class Kind(StrEnum):
    """Kinds of policy objects."""

    NETWORK_POLICY = "NetworkPolicy"
    CILIUM = "CiliumNetworkPolicy"
    CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"


@dataclass(frozen=True, slots=True)
class Source:
    """An object as it was stored. ``spec`` and ``specs`` are plain JSON values."""

    kind: Kind
    namespace: str  # empty for clusterwide ones
    name: str
    spec: object = None
    specs: object = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an object means. With ``errors`` its rules close what it may select, or are none."""

    rules: tuple[PolicyRule, ...]
    errors: tuple[Finding, ...] = ()
    unknown: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    unenforced: tuple[Finding, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether it is enforced as written."""
        return not self.errors


def read(source: Source, settings: Settings) -> Reading:
    """Never raises: an object with an error anywhere is refused as a whole."""
    notes = Notes()
    audit = _audit(source, notes) or settings.audit
    scope = Scope(source.namespace, settings)
    specs = [_spec(source, node, scope) for node in _nodes(source, notes)]
    labels = _labels(source)
    kept = specs if not notes.errors else _closing(specs, settings)
    rules = tuple(
        PolicyRule(
            origin=Origin(source.kind.value, source.namespace, source.name, index),
            subject=spec.subject,
            rules=spec.rules if not notes.errors else (),
            default_deny=spec.default_deny if not notes.errors else frozenset(Direction),
            on_nodes=spec.on_nodes,
            audit=audit,
            closed=bool(notes.errors),
            labels=(*spec.labels, *labels),
            log=spec.log,
        )
        for index, spec in enumerate(kept)
    )
    return Reading(
        rules,
        tuple(notes.errors),
        tuple(notes.unknown),
        tuple(notes.warnings),
        tuple(notes.unenforced),
    )


def _nodes(source: Source, notes: Notes) -> list[Node]:
    nodes = [] if source.spec is None else [Node(source.spec, "spec", notes)]
    if source.specs is not None:
        nodes += Node(source.specs, "specs", notes).items()
        if notes.errors:  # no list: it may have meant anything
            nodes.append(Node({}, "specs", notes))
    if nodes or notes.errors:
        return nodes
    if source.kind is not Kind.NETWORK_POLICY:
        Node(None, "spec and specs", notes).error("missing: there is no rule")
        return []
    empty = Node({}, "spec", notes)
    empty.warn("missing: as with an empty one, nothing reaches any pod of the namespace")
    return [empty]


def _spec(source: Source, node: Node, scope: Scope) -> Spec:
    if source.kind is Kind.NETWORK_POLICY:
        return network_policy.read(node, scope)
    return cilium.read(node, scope)


def _closing(specs: list[Spec], settings: Settings) -> list[Spec]:
    """Nodes stay open: a node that is shut could not even hear of the repair."""
    if settings.invalid_open:
        return []
    return [s for s in specs if not s.on_nodes or settings.invalid_closes_nodes]


def _audit(source: Source, notes: Notes) -> bool:
    text = source.annotations.get(AUDIT_ANNOTATION, "false")
    if text not in ("true", "false"):
        node = Node(text, f"metadata.annotations[{AUDIT_ANNOTATION}]", notes)
        node.warn(f"{text[:80]!r} is read as false: write true or false")
    return text == "true"


def _labels(source: Source) -> tuple[str, ...]:
    pairs = (
        ("derived-from", source.kind.value),
        ("name", source.name),
        ("namespace", source.namespace),
        ("uid", source.uid),
    )
    return tuple(f"{ORIGIN_LABELS}{key}={value}" for key, value in pairs if value)
