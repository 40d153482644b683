"""CiliumCIDRGroup: a list of prefixes with a name and labels. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.address import Prefix
from model.labels import Label, Labels
from policy.objects.cidr import prefix
from policy.objects.notes import Finding, Node, Notes

SOURCE = "cidrgroup"
NAME_PREFIX = "io.cilium.policy.cidrgroupname/"


@dataclass(frozen=True, slots=True)
class CidrGroup:
    """``labels`` are those that its prefixes carry. Of a group with errors the rest is kept."""

    name: str
    labels: Labels
    prefixes: tuple[Prefix, ...]
    errors: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    unknown: tuple[Finding, ...] = ()


def read(name: str, labels: Mapping[str, str], spec: object) -> CidrGroup:
    """Never raises: what is wrong is in ``errors``."""
    notes = Notes()
    node = Node(spec, "spec", notes)
    found = node.fields(("externalCIDRs",))
    if not notes.errors and "externalCIDRs" not in found:
        node.error("externalCIDRs is missing; it may be empty")
    items = found["externalCIDRs"].items() if "externalCIDRs" in found else []
    read_ = [prefix(item, bare=True) for item in items]
    own = [Label(NAME_PREFIX + name, "", SOURCE)]
    own += [Label(k, v, SOURCE) for k, v in labels.items() if not k.startswith("io.cilium")]
    return CidrGroup(
        name,
        Labels.of(own),
        tuple(dict.fromkeys(p[0] for p in read_ if p is not None)),
        tuple(notes.errors),
        tuple(notes.warnings),
        tuple(notes.unknown),
    )
