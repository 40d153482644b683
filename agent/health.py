"""The agent's state of health, as `GET /v1/healthz` tells it. Reads values only."""

from datetime import UTC, datetime, timedelta
from typing import Any

from agent import encryption_view, map_pressure, policy_settings, shapes
from agent.routing import is_native
from agent.view import View
from certs.presented import presented
from kvstore.shape import connection
from model.cluster import ClusterName
from wire.etcd import keys

VERSION = "0.1.0"


def _state(state: str, message: str = "") -> dict[str, str]:
    return {"state": state, "msg": message}


def agent_state(view: View) -> dict[str, str]:
    """The agent as a whole: starting, degraded or well."""
    if not view.progress.ready:
        step = view.progress.steps[-1] if view.progress.steps else "starting"
        return _state("Failure", f"starting: {step}")
    bad = [t.status for loop in view.loops for t in loop.tables if not t.status.healthy]
    if bad:
        lines = "; ".join(f"{status.name}: {status.line(view.clock())}" for status in bad)
        return _state("Failure", lines)
    return _state("Ok", f"{VERSION} (v{VERSION})")


def kubernetes(view: View) -> dict[str, Any]:
    """The watches."""
    broken = [i for i in view.kube.all() if not i.status.connected]
    names = sorted(f"{i.resource.api_version}::{i.resource.kind}" for i in view.kube.all())
    if not broken:
        return {**_state("Ok", view.server), "k8s-api-versions": names}
    texts = "; ".join(f"{i.resource.plural}: {i.status.error or 'connecting'}" for i in broken)
    return {**_state("Failure", texts), "k8s-api-versions": names}


def cluster_mesh(view: View) -> dict[str, Any]:
    """Every configured remote cluster, with what of its was taken over."""
    clusters = []
    shown = {n: c.shape() for n, c in presented(view.remotes.configs).items()}
    for name, status in sorted(view.remotes.statuses.items()):
        last = None
        if status.last_failure_s:
            ago = timedelta(seconds=view.clock() - status.last_failure_s)
            last = (datetime.now(UTC) - ago).isoformat()
        violations = view.mesh.violations(name)
        counts, certificate = _counts(view, name), shown.get(name)
        shape = shapes.remote_cluster(status, counts, last, violations, certificate)
        path = {"data-path": view.prober.shape(name)}
        clusters.append(shape | connection(status, view.clock()) | path)
    return {
        "num-global-services": view.mesh.services.count_global(),
        "clusters": clusters,
        "num-rejected": view.mesh.problem_count(),
        "problems": [*view.remotes.problems, *view.mesh.problems()][:20],
    }


def _counts(view: View, name: ClusterName) -> dict[str, int]:
    said = view.remotes.statuses[name].counts
    return {
        keys.NODES: view.mesh.nodes.count(name),
        keys.IP: said.get(keys.IP, 0),
        keys.IDENTITIES: said.get(keys.IDENTITIES, 0),
        keys.SERVICES: view.mesh.services.count_shared(name),
    }


def ipam(view: View) -> dict[str, Any]:
    """Addresses of this node."""
    lines: list[str] = []
    by_family: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    taken: dict[str, str] = {}
    for pool in view.pools.each:
        family = f"ipv{pool.prefix.version}"
        found = {str(address): owner for address, owner in pool}
        by_family[family] = list(found)
        taken |= found
        use = f"{len(pool)}/{pool.capacity} allocated from {pool.prefix}"
        # The comma after IPv4 is part of the text that other tools know, also at the end.
        lines.append(f"IPv4: {use}, " if family == "ipv4" else f"IPv6: {use}")
    return {"status": "".join(lines), **by_family, "allocations": taken}


def problems(view: View) -> list[str]:
    """Objects that cannot be used as they are."""
    bad = [s for texts in view.kube.problems.current.values() for s in texts]
    bad += [s for texts in view.policy_inputs.problems.current.values() for s in texts]
    for informer in view.kube.all():
        bad += [
            f"{informer.resource.kind} {'/'.join(p for p in key if p)} does not decode: {reason}: "
            "correct the object"
            for key, reason in informer.bad.items()
        ]
    return bad


def cni_file(view: View) -> dict[str, str]:
    """The CNI configuration."""
    progress = view.progress
    if progress.cni_error:
        return _state("Failure", progress.cni_error)
    if view.config.write_cni_conf_when_ready is None:
        return _state("Disabled")
    if not progress.cni_file:
        return _state("Warning", "not written yet")
    return _state("Ok", f"successfully wrote CNI configuration file to {progress.cni_file}")


def host_firewall(view: View) -> dict[str, Any]:
    """Whether policies of nodes are enforced, and on which devices."""
    found = policy_settings.host_policy(view.config)
    if found is None:
        return {"mode": "Disabled", "devices": []}
    return {
        "mode": "Enabled",
        "devices": list(view.datapath.underlays),
    }


def status(view: View) -> dict[str, Any]:
    """``StatusResponse``."""
    tables = [table.status for loop in view.loops for table in loop.tables]
    numbers = view.allocator.numbers
    return {
        "cilium": agent_state(view),
        "kubernetes": kubernetes(view),
        "kvstore": _state("Disabled"),
        "cni-file": cni_file(view),
        "container-runtime": _state("Disabled"),
        "datapath-mode": "veth",
        "ipam": ipam(view),
        "cluster": {"self": f"{view.config.cluster_name}/{view.me.node.name}"},
        "cluster-mesh": cluster_mesh(view),
        "controllers": shapes.controllers(tables, view.clock()),
        "identity-range": {"min-identity": numbers.first, "max-identity": numbers.last},
        "routing": {
            "inter-host-routing-mode": "Native" if is_native(view.config) else "Tunnel",
            "intra-host-routing-mode": "BPF",
            "tunnel-protocol": "" if is_native(view.config) else view.config.tunnel_protocol,
        },
        "host-firewall": host_firewall(view),
        "hubble": _state("Disabled"),
        "encryption": encryption_view.shape(view),
        "nodeMonitor": {},
        "rejected": {
            "count": view.kube.problems.total
            + view.policy_inputs.problems.total
            + sum(i.rejected for i in view.kube.all()),
            "problems": problems(view)[:20],
        },
        "messages": [
            *view.datapath.messages,
            *map_pressure.warnings(map_pressure.pressures(view.tables, view.datapath)),
            *(f"endpoint {n}: {error}" for n, error in view.policies.errors.items()),
        ],
    }
