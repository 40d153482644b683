"""Native routing over several clusters: each must know where the others' pods are. Pure."""

from cli.mesh_examined import Examined
from cli.mesh_findings import Finding
from model.address import parse_prefix

KEY = "ipv4-native-routing-cidr"


def uncovered(one: Examined, other: Examined) -> list[Finding]:
    """Pods of ``other`` that ``one`` does not count as reached by routes."""
    text = one.settings.get(KEY, "")
    if one.settings.get("routing-mode") != "native" or not text:
        return []
    try:
        known = parse_prefix(text)
    except ValueError:
        return []  # its agents refuse to start, which is told elsewhere
    out = [p for p in other.facts.pod_cidrs if p.version == 4 and not known.covers(p)]
    if not out:
        return []
    found = f"cluster {one.name}: {KEY} {text} does not hold pods {out[0]} of cluster {other.name}"
    remedy = f"set {KEY} to a prefix that holds the pods of all clusters"
    return [Finding("native-routing-cidr", (one.name, other.name), found, remedy, blocking=False)]
