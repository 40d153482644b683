"""Families about the ways to remote clusters. Reads values; the names are a public interface."""

from dataclasses import replace

from agent.view import View
from mesh.data_path import PathState
from telemetry.metrics import Family, family


def collect(view: View) -> list[Family]:
    here = {
        "source_cluster": str(view.config.cluster_name),
        "source_node_name": str(view.me.node.name),
    }
    prober = view.prober
    paths = {name: prober.paths[name] for name in view.remotes.statuses}
    asked = [probe for path in paths.values() for probe in path.last]
    answered = sum(probe.answered for probe in asked)
    nodes = sum(view.mesh.nodes.count(name) for name in paths)
    counts = {
        "reachable": answered,
        "unreachable": len(asked) - answered,
        "unknown": max(0, nodes - len(asked)),
    }
    return [
        family(
            "cilium_node_health_connectivity_status",
            "gauge",
            "Nodes of remote clusters by what the latest round of probes found; "
            "unknown: not asked in it",
            tuple(({**here, "type": "node", "status": word}, n) for word, n in counts.items()),
        ),
        _placed(
            prober.latency.family(
                "isthmus_remote_cluster_probe_latency_seconds",
                "How long a node of a remote cluster took to answer through the tunnel",
            ),
            here,
        ),
        _placed(
            prober.probes.family(
                "isthmus_remote_cluster_probes_total",
                "Nodes asked through the tunnel, of our own cluster too",
            ),
            here,
        ),
        _placed(
            prober.changes.family(
                "isthmus_remote_cluster_data_path_changes_total",
                "How often the way to a remote cluster became up, down or returning",
            ),
            here,
        ),
        family(
            "isthmus_remote_cluster_data_path_status",
            "gauge",
            "1: packets reach the cluster, 0: they do not; left out while that is not known",
            tuple(
                ({**here, "target_cluster": str(name)}, int(path.state is not PathState.DOWN))
                for name, path in paths.items()
                if path.state is not PathState.UNKNOWN
            ),
        ),
        family(
            "isthmus_remote_cluster_share_ratio",
            "gauge",
            "Part of its usual new connections that a remote cluster gets",
            tuple(
                ({**here, "target_cluster": str(name)}, path.share_pct / 100)
                for name, path in paths.items()
            ),
        ),
    ]


def _placed(found: Family, here: dict[str, str]) -> Family:
    """The same with where it was seen."""
    samples = (replace(one, labels={**here, **one.labels}) for one in found.samples)
    return replace(found, samples=tuple(samples))
