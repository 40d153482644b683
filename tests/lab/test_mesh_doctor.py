"""`clustermesh doctor`, `inspect` and `disconnect --force` in a lab: real agents, stores, nodes.

One lab for those that leave it as it was, and one to lose a cluster of.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certs.issue import KeyPair, issue
from certs.profiles import CA_SECRET, SERVER_SECRET, mesh_profiles
from kind.lab import host
from tests.lab.test_bad_input import C1, C2, Mesh, workload
from tests.support import lab as labs
from tests.support.lab import Json, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(300),
]
FAR = "far"  # a global service whose backends are all in cluster2
SCALE = ("scale", "-n", "kube-system", "deployment/clustermesh-apiserver")


@contextmanager
def two_clusters(suffix: str) -> Iterator[Mesh]:
    """Two clusters with their stores, not connected, and nothing in the way."""
    made = labs.start(suffix)
    try:
        found = Mesh(made)
        for context in (C1, C2):
            found.good("clustermesh", "enable", "--context", context)
            made.apply(*workload(context), cluster=context)
        deployment, service = workload(C2)
        made.apply(renamed(service), cluster=C1)
        made.apply(renamed(service), renamed(deployment), cluster=C2)
        wait_until("nothing is in the way", lambda: doctor(found)[0] == 0, 90, 1)
        yield found
    finally:
        labs.stop(made)


@pytest.fixture(scope="module")
def shared() -> Iterator[Mesh]:
    with two_clusters("d") as found:
        yield found


@pytest.fixture
def apart(shared: Mesh) -> Mesh:
    """Not connected."""
    words = ("clustermesh", "disconnect", "--context", C1, "--destination-context", C2)
    shared.good(*words)
    return shared


@pytest.fixture
def mesh(shared: Mesh) -> Mesh:
    """Connected."""
    shared.join()
    return shared


def renamed(item: Json) -> Json:
    """The same workload under the other name; its image stays."""
    text = json.dumps(item).replace('"echo"', f'"{FAR}"')
    found: Json = json.loads(text.replace(f'"image": "{FAR}"', '"image": "echo"'))
    return found


def doctor(mesh: Mesh, contexts: str = f"{C1},{C2}") -> tuple[int, list[Json]]:
    """Exit status and findings."""
    done = mesh.isthmus("clustermesh", "doctor", "--contexts", contexts, "-o", "json")
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def nothing_found(mesh: Mesh, contexts: str = f"{C1},{C2}") -> None:
    """Soon: an agent of a busy machine may not answer at once, which is a finding, too."""
    wait_until(f"nothing is found in {contexts}", lambda: doctor(mesh, contexts) == (0, []), 90, 1)


def found_alone(mesh: Mesh, check: str, contexts: str = f"{C1},{C2}") -> tuple[int, Json]:
    """Exit status and the finding of a check, once it is the only one."""

    def look() -> tuple[int, Json] | None:
        code, found = doctor(mesh, contexts)
        return (code, found[0]) if [f["check"] for f in found] == [check] else None

    answer: tuple[int, Json] = wait_until(f"{check} is found and nothing else", look, 90, 1)
    return answer


def checks(mesh: Mesh, contexts: str = f"{C1},{C2}") -> list[str]:
    return [finding["check"] for finding in doctor(mesh, contexts)[1]]


def configure(mesh: Mesh, **data: str | None) -> None:
    body = {"data": {key.replace("_", "-"): value for key, value in data.items()}}
    words = ("patch", "configmap", "-n", "kube-system", "cilium-config", "--type=merge", "-p")
    mesh.lab.kubectl(*words, json.dumps(body), cluster=C2)


def test_nothing_is_found_before_connecting(apart: Mesh) -> None:
    """Every node was asked, tried the other's store, and told its MTU and time."""
    nothing_found(apart)


def test_settings_are_compared(apart: Mesh) -> None:
    configure(apart, enable_wireguard="true", routing_mode="native")
    wanted = {"encryption", "routing-mode"}
    try:
        wait_until("both are found", lambda: set(checks(apart)) == wanted, 90, 1)
        code, _ = doctor(apart)
    finally:
        configure(apart, enable_wireguard=None, routing_mode="tunnel")
    assert code == 1


def test_a_way_that_is_shut(apart: Mesh) -> None:
    """One node of cluster1 has no way to the node that runs cluster2's store."""
    place = str(apart.lab.node("cluster2-control-plane").address)
    words = ("ip", "route", "add", "unreachable", f"{place}/32")
    assert apart.lab.exec("cluster1-worker", *words)[0] == 0
    try:
        code, found = found_alone(apart, "reachability")
    finally:
        apart.lab.exec("cluster1-worker", "ip", "route", "del", "unreachable", f"{place}/32")
    assert code == 1
    assert "1 of 2 nodes of cluster cluster1" in found["found"]
    assert f"cluster1-worker: {place}:32379" in found["found"]
    nothing_found(apart)


def restart_agents(mesh: Mesh) -> None:
    """Of cluster2, so that they read their settings."""
    mesh.lab.kubectl("delete", "pod", "-n", "kube-system", "-l", "k8s-app=cilium", cluster=C2)
    words = ("rollout", "status", "-n", "kube-system", "daemonset/cilium", "--timeout=110s")
    mesh.lab.kubectl(*words, cluster=C2)


def test_pods_of_different_mtu(apart: Mesh) -> None:
    """A warning: the mesh works, large packets may not."""
    configure(apart, mtu="1400")
    restart_agents(apart)
    try:
        found = wait_until(
            "the doctor sees it",
            lambda: [f for f in doctor(apart)[1] if f["check"] == "mtu"],
            90,
            1,
        )
    finally:
        configure(apart, mtu=None)
        restart_agents(apart)
    assert "MTU 1500 and 1400" in found[0]["found"]
    assert found[0]["blocking"] is False
    nothing_found(apart)


def remote(mesh: Mesh) -> dict[str, Any]:
    """What cluster1 knows of cluster2."""
    said = mesh.good("clustermesh", "inspect", "--context", C1, "-o", "json")
    found: dict[str, Any] = json.loads(said)["remotes"][0]
    return found


def test_connected(mesh: Mesh) -> None:
    """Nothing is found; `inspect` and `status` tell what there is."""
    nothing_found(mesh)
    nothing_found(mesh, C1)

    def all_read() -> dict[str, Any]:
        told = remote(mesh)
        counts, agents = told["counts"], [a["connected"] for a in told["agents"]]
        assert (counts["services"], counts["nodes"], agents) == (2, 2, [True, True])
        return told

    found = wait_until("all was read", all_read)
    assert found["id"] == {"recorded": 2, "announced": 2}
    assert found["capabilities"]["sync-canaries"] is True
    assert found["counts"]["nodes"] == 2
    assert found["counts"]["identities"] > 0
    assert [a["connected"] for a in found["agents"]] == [True, True]
    assert all(a["age-seconds"] == 0 for a in found["agents"])
    text = mesh.good("clustermesh", "inspect", "--context", C1)
    assert "Agents:         2/2 connected, age of data: " in text
    text = mesh.good("clustermesh", "status", "--context", C1, "--timeout", "60s")
    assert ", age of data: " in text
    assert f"🔏 Certificate in Secret {SERVER_SECRET} is good until 20" in text


def test_a_certificate_that_ends_soon(mesh: Mesh) -> None:
    """Found while it is still good."""
    authority = mesh.secret(C2, CA_SECRET)
    before = mesh.secret(C2, SERVER_SECRET)
    profile = mesh_profiles(C2)[SERVER_SECRET]
    begun = datetime.now(UTC) - timedelta(days=profile.validity_days - 9)
    pair = issue(KeyPair(authority["ca.crt"], authority["ca.key"]), profile, begun)
    mesh.patch_secret(C2, SERVER_SECRET, pair.secret_data(before["ca.crt"]))
    try:
        code, found = found_alone(mesh, "certificate")
    finally:
        mesh.patch_secret(C2, SERVER_SECRET, before)
    assert code == 0
    assert "8 days" in found["found"] or "9 days" in found["found"]


def troubleshoot(mesh: Mesh) -> tuple[int, str]:
    """In the container of an agent of cluster1, where its files are."""
    pods = mesh.lab.get("pods", "-n", "kube-system", "-l", "k8s-app=cilium")["items"]
    words = ("isthmus", "troubleshoot", "clustermesh")
    where = ("--cluster", C1, "-n", "kube-system", "-c", "cilium-agent")
    return mesh.lab.exec(pods[0]["metadata"]["name"], *words, options=where)


def test_a_store_that_went_away(mesh: Mesh) -> None:
    """Agents of cluster1 lost it; cluster2 itself has none to name."""
    mesh.lab.kubectl(*SCALE, "--replicas=0", cluster=C2)
    both = "2 of 2 agents are not connected to cluster cluster2"

    def noticed() -> tuple[int, Json] | None:  # one of them may be first
        code, every = doctor(mesh, C1)
        return next(((code, f) for f in every if both in f["found"]), None)

    code, found = wait_until("both agents notice", noticed, 90, 1)
    assert (code, found["check"]) == (1, "connection")
    assert "does the mesh store of cluster2 run" in found["remedy"]
    assert "mesh-store" in checks(mesh)
    code, text = troubleshoot(mesh)
    assert code == 1
    assert "does not answer" in text
    mesh.lab.kubectl(*SCALE, "--replicas=1", cluster=C2)
    nothing_found(mesh)
    code, text = troubleshoot(mesh)
    assert code == 0, text
    assert "ok (" in text


FORCE = ("clustermesh", "disconnect", "--context", C1, "--force")


def addresses(mesh: Mesh) -> list[str]:
    """Rows of cluster2 in the kernel of a node of cluster1."""
    code, text = mesh.lab.exec("cluster1-worker", "isthmus", "bpf", "ipcache", "list", "-o", "json")
    assert code == 0, text
    return [row for row in json.loads(text) if row.startswith("10.2.")]


def backends(mesh: Mesh, name: str) -> set[str]:
    """Clusters of the backends that an agent of cluster1 has for a service."""
    code, text = mesh.lab.exec("cluster1-worker", "isthmus", "service", "list", "-o", "json")
    assert code == 0, text
    return {
        b.get("cluster", C1)  # our own carry none
        for service in json.loads(text)
        if service["spec"]["flags"]["name"] == name
        for b in service["spec"]["backend-addresses"]
    }


@pytest.fixture
def doomed() -> Iterator[Mesh]:
    with two_clusters("x") as found:
        found.join()
        yield found


def test_leaving_a_dead_cluster(doomed: Mesh) -> None:
    """Every process of cluster2 is killed: the data stays until somebody says that it is gone."""
    mesh = doomed
    wait_until("backends of both", lambda: backends(mesh, "echo") == {C1, C2})
    wait_until("backends of the other", lambda: backends(mesh, FAR) == {C2})
    for node in mesh.lab.topology.nodes:
        if node.name.startswith(C2):
            (host.cgroup_of(mesh.lab.name) / node.name / "cgroup.kill").write_text("1")
    wait_until("agents notice", lambda: "connection" in checks(mesh, C1), 120, 1)
    assert addresses(mesh)
    assert backends(mesh, FAR) == {C2}

    words = ("clustermesh", "disconnect", "--context", C1, "--destination-context", C2)
    refused = mesh.isthmus(*words)
    assert refused.returncode == 1
    assert "add --force" in refused.stderr
    asked = mesh.isthmus(*FORCE, "--destination-context", C2)
    assert asked.returncode == 1
    assert "confirm with --yes" in asked.stderr
    assert backends(mesh, FAR) == {C2}

    said = mesh.good(*FORCE, "--destination-context", C2, "--yes")
    assert "Cluster cluster1 will forget cluster cluster2" in said
    assert "2 nodes, " in said
    assert f"1 local service loses its last backends: default/{FAR}" in said
    assert "1 local service loses some backends" in said
    assert f"--context {C2} --destination-cluster {C1} --force" in said
    wait_until("the agents forgot it", lambda: not addresses(mesh) and not backends(mesh, FAR))
    wait_until("only ours are left", lambda: backends(mesh, "echo") == {C1})
    nothing_found(mesh, C1)
    assert "🔌 No cluster connected" in mesh.good("clustermesh", "status", "--context", C1)
