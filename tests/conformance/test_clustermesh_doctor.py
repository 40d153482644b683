"""`clustermesh doctor`, `inspect` and `disconnect --force` against real API servers without agents.

Facts that come from objects and clocks are read as they are; agents are asked in `tests/lab`.
"""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from certs.profiles import REMOTE_SECRET
from cli import mesh_examine, mesh_faults
from kube import resources
from kube.port import ApiError
from kube.resources import untyped
from tests.conformance.test_clustermesh_commands import (
    CONNECT,
    SYSTEM,
    Pair,
    configure,
    expired,
)
from tests.support import kind_apiserver
from tests.support.kube import fake_api
from tests.support.lab_api import lab_api

MANY = ("a", "b", "c")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("three")
    for name in MANY:
        (directory / name).mkdir()
    with (
        kind_apiserver.cluster(directory / "a") as a,
        kind_apiserver.cluster(directory / "b") as b,
        kind_apiserver.cluster(directory / "c") as c,
    ):
        yield Pair(directory, a=a, b=b, c=c)


@pytest.fixture
def ready(three: Pair) -> Pair:
    """Three installed, enabled clusters that are not connected."""
    for number, name in enumerate(MANY, 1):
        three.good(
            *("install", "--context", name),
            *("--cluster-name", f"cluster-{name}", "--cluster-id", str(number)),
        )
        three.good("clustermesh", "disable", "--context", name)
        three.node(name, f"10.{number}.0.0/24")
        three.good("clustermesh", "enable", "--context", name)
        three.store_runs(name, f"192.0.2.{number}")
    return three


def doctor(clusters: Pair, contexts: str = "a,b", code: int = 0) -> list[dict[str, Any]]:
    """Its findings; the exit status is as expected."""
    done = clusters.isthmus("clustermesh", "doctor", "--contexts", contexts, "-o", "json")
    assert done.returncode == code, done.stdout + done.stderr
    body = json.loads(done.stdout)
    assert body["blocked"] is bool(code)
    found: list[dict[str, Any]] = body["findings"]
    assert all(finding["remedy"] for finding in found)
    return found


def test_nothing_is_found_in_healthy_clusters(ready: Pair) -> None:
    """Before they are connected, and after."""
    assert doctor(ready, "a,b,c") == []
    said = ready.good("clustermesh", "doctor", "--contexts", "a,b")
    assert said == "✅ Nothing was found in cluster-a, cluster-b\n"
    ready.good(*CONNECT)
    assert doctor(ready) == []
    assert doctor(ready, "a") == []


@pytest.mark.parametrize(
    ("data", "check"),
    [
        ({"cluster_name": "cluster-a"}, "cluster-name"),
        ({"cluster_id": "1"}, "cluster-id"),
        ({"cluster_id": "0"}, "cluster-name-id"),
        ({"max_connected_clusters": "511"}, "max-connected-clusters"),
        ({"tunnel_protocol": "geneve"}, "tunnel-protocol"),
        ({"tunnel_port": "4789"}, "tunnel-port"),
        ({"routing_mode": "native"}, "routing-mode"),
        ({"enable_wireguard": "true"}, "encryption"),
    ],
)
def test_settings(ready: Pair, data: dict[str, str], check: str) -> None:
    """Each is found alone, blocks, and gives exit status 1."""
    before = ready.servers["b"].get(f"{SYSTEM}/configmaps/cilium-config").body["data"]
    configure(ready, "b", **data)
    found = doctor(ready, code=1)
    assert [f["check"] for f in found] == [check]
    undo = {key: before.get(key.replace("_", "-")) for key in data}
    configure(ready, "b", **undo)  # type: ignore[arg-type]  # None removes a key
    assert doctor(ready) == []


def test_overlapping_pods(ready: Pair) -> None:
    ready.node("b", "10.1.0.128/25")
    assert [f["check"] for f in doctor(ready, code=1)] == ["pod-cidr"]


def test_a_service_among_the_other_clusters_pods(ready: Pair) -> None:
    """The API server's own Service has 10.96.0.1."""
    ready.node("b", "10.96.0.0/24")
    found = doctor(ready, code=1)
    assert {f["check"] for f in found} == {"service-cidr"}
    assert "Service default/kubernetes has address 10.96.0.1" in found[0]["found"]


def test_nodes_of_one_address(ready: Pair) -> None:
    """Node objects of both clusters carry it."""
    for name in "ab":
        status = {"status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.9"}]}}
        ready.patch(name, "/api/v1/nodes/n1/status", status)
    found = doctor(ready, code=1)
    assert [f["check"] for f in found] == ["node-address"]
    assert "198.51.100.9" in found[0]["found"]


def test_certificates(ready: Pair) -> None:
    """Expired ones block; an authority that the other side lost is found while connected."""
    data = ready.secret("a", REMOTE_SECRET)
    ready.put_secret("a", REMOTE_SECRET, expired(ready))
    found = doctor(ready, code=1)
    assert [f["check"] for f in found] == ["certificate"]
    assert "clustermesh enable" in found[0]["remedy"]
    ready.put_secret("a", REMOTE_SECRET, data)
    ready.good(*CONNECT)
    ready.put_secret("a", REMOTE_SECRET, {"ca.crt": data["ca.crt"]})
    found = doctor(ready, code=1)
    assert [f["check"] for f in found] == ["authority"]
    assert "cluster-a does not trust" in found[0]["found"]
    ready.good(*CONNECT)
    assert doctor(ready) == []


def test_one_way(ready: Pair) -> None:
    """A warning does not change the exit status."""
    ready.good(*CONNECT, "--connection-mode", "unicast")
    assert [f["check"] for f in doctor(ready)] == ["one-way"]


def test_an_api_server_that_does_not_answer(ready: Pair, tmp_path: Path) -> None:
    """It is a finding; the others are looked at all the same."""
    found = doctor(ready, "a,nowhere", code=1)
    assert [f["check"] for f in found] == ["api-server"]
    assert "nowhere" in found[0]["found"]
    said = ready.isthmus("clustermesh", "doctor", "--contexts", "a,nowhere")
    assert said.returncode == 1
    assert said.stdout.splitlines()[0].split() == ["Check", "Result", "Found", "Remedy"]
    assert "❌ 1 fault and 0 warnings in cluster-a" in said.stdout


def test_mesh_of_three(ready: Pair) -> None:
    """One command joins all with all, each trusting both others; it is repeatable."""
    words = ("clustermesh", "connect", "--context", "a", "--destination-context", "b,c")
    said = ready.good(*words, "--connection-mode", "mesh", "--parallel", "2")
    assert said == "✅ Connected clusters cluster-b, cluster-c, and cluster-a!\n"
    for name in MANY:
        others = sorted({f"cluster-{other}" for other in MANY} - {f"cluster-{name}"})
        assert sorted(ready.secret(name, "cilium-clustermesh")) == others
        assert ready.secret(name, REMOTE_SECRET)["ca.crt"].count(b"BEGIN CERTIFICATE") == 3
    before = {name: ready.everything(name) for name in MANY}
    ready.good(*words, "--connection-mode", "mesh")
    after = {name: ready.everything(name) for name in MANY}
    certificates = [k for k in before["a"] if "cert" in k]
    assert [before["a"][k] for k in certificates] == [after["a"][k] for k in certificates]
    assert doctor(ready, "a,b,c") == []
    words = ("clustermesh", "disconnect", "--context", "a", "--destination-context", "b,c")
    ready.good(*words, "--connection-mode", "mesh")
    assert [ready.secret(name, "cilium-clustermesh") for name in MANY] == [{}, {}, {}]


def test_endpoints_of_several_destinations(ready: Pair) -> None:
    """Each is named with its context; a place without one is refused."""
    words = ("clustermesh", "connect", "--context", "a", "--destination-context", "b,c")
    said = ready.refused(*words, "--destination-endpoint", "198.51.100.7:2379")
    assert "write b=198.51.100.7:2379" in said
    said = ready.refused(*words, "--destination-endpoint", "x=198.51.100.7:2379")
    assert "no --destination-context x" in said
    endpoints = ("b=198.51.100.7:2379", "b=198.51.100.8:2379", "c=198.51.100.9:2380")
    ready.good(*words, *(f"--destination-endpoint={e}" for e in endpoints))
    written = ready.secret("a", "cilium-clustermesh")
    assert b'ips: ["198.51.100.7", "198.51.100.8"]' in written["cluster-b"]
    assert b":2380" in written["cluster-c"]


FORCE = ("clustermesh", "disconnect", "--context", "a", "--force")


def test_force_from_a_cluster_that_does_not_answer(ready: Pair, tmp_path: Path) -> None:
    """Its API server is another port where nobody listens; it is named by its own name."""
    ready.good(*CONNECT)
    text = ready.kubeconfig.read_text()
    port = ready.servers["b"].port
    try:
        ready.kubeconfig.write_text(text.replace(f":{port}", f":{kind_apiserver.free_port()}"))
        alive = replace_servers(ready, "b")
        words = ("clustermesh", "disconnect", "--context", "a", "--destination-context", "b")
        assert "add --force" in alive.refused(*words)
        said = alive.refused(*FORCE, "--destination-context", "b", "--yes")
        assert "--destination-cluster (connected: cluster-b)" in said
        assert "confirm with --yes" in alive.refused(*FORCE, "--destination-cluster", "cluster-b")
        said = alive.good(*FORCE, "--destination-cluster", "cluster-b", "--yes")
    finally:
        ready.kubeconfig.write_text(text)
    assert "no agent answers" in said
    assert "✅ Disconnected cluster cluster-a x> cluster-b!" in said
    assert "--destination-cluster cluster-a --force" in said
    assert ready.secret("a", "cilium-clustermesh") == {}
    assert list(ready.secret("b", "cilium-clustermesh")) == ["cluster-a"]
    # What the dead side was told to do, when it is back.
    words = ("clustermesh", "disconnect", "--context", "b", "--force", "--yes")
    ready.good(*words, "--destination-cluster", "cluster-a")
    assert ready.secret("b", "cilium-clustermesh") == {}
    assert doctor(ready) == []


def replace_servers(clusters: Pair, gone: str) -> Pair:
    """The same without the one that is not asked whether it changed."""
    alive = object.__new__(Pair)
    alive.servers = {k: v for k, v in clusters.servers.items() if k != gone}
    alive.kubeconfig = clusters.kubeconfig
    return alive


def test_force_when_the_other_side_answers(ready: Pair) -> None:
    """Only this cluster is changed, and that is said."""
    ready.good(*CONNECT)
    said = ready.good(*FORCE, "--destination-context", "b", "--yes")
    assert "Cluster cluster-b answers and was not changed" in said
    assert list(ready.secret("b", "cilium-clustermesh")) == ["cluster-a"]
    assert "cluster-a is connected to no cluster cluster-b" in ready.refused(
        *FORCE, "--destination-context", "b", "--yes"
    )


def test_inspect(ready: Pair) -> None:
    """Store, certificates and the entry of each connected cluster."""
    assert "No cluster connected" in ready.good("clustermesh", "inspect", "--context", "a")
    ready.good(*CONNECT)
    body = json.loads(ready.good("clustermesh", "inspect", "--context", "a", "-o", "json"))
    assert body["cluster"]["name"] == "cluster-a"
    assert body["cluster"]["store"]["endpoints"] == ["192.0.2.1:32379"]
    subjects = {row["secret"]: row["subject"] for row in body["certificates"]}
    assert subjects["cilium-ca"] == "Cilium CA"
    assert {row["state"] for row in body["certificates"]} == {"good"}
    (remote,) = body["remotes"]
    assert remote["entry"]["endpoints"] == ["https://cluster-b.mesh.cilium.io:32379"]
    assert remote["entry"]["reached-at"] == ["192.0.2.2:32379"]
    assert remote["id"] == {"recorded": 2, "announced": 0}
    said = ready.good("clustermesh", "inspect", "--context", "a", "cluster-b")
    assert "https://cluster-b.mesh.cilium.io:32379 at 192.0.2.2:32379" in said
    assert "(connected: cluster-b)" in ready.refused(
        "clustermesh", "inspect", "--context", "a", "oslo"
    )
    secrets = json.dumps(body) + said
    assert "PRIVATE KEY" not in secrets
    assert "BEGIN CERTIFICATE" not in secrets


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("clustermesh", "vm", "status"), "machines outside of clusters"),
        (("clustermesh", "inspect-policy-default-local-cluster"), "clustermesh inspect"),
        (("clustermesh", "status", "--as", "x"), "--as is not supported"),
        (("clustermesh", "enable", "--enable-external-workloads"), "not supported"),
        ((*FORCE, "--destination-context", "b", "--connection-mode", "mesh"), "leave"),
    ],
)
def test_what_is_not_there_says_what_to_use(three: Pair, words: tuple[str, ...], told: str) -> None:
    """Exit status 2, as every mistake of use."""
    done = three.isthmus(*words)
    assert done.returncode == 2
    assert told in done.stderr


def test_words_of_scripts_are_taken(ready: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Helm release has no meaning here; the namespace may come from the environment."""
    ready.good("clustermesh", "inspect", "--context", "a", "--helm-release-name", "cilium")
    monkeypatch.setenv("CILIUM_NAMESPACE", "elsewhere")
    said = ready.refused("clustermesh", "inspect", "--context", "a")
    assert "elsewhere/cilium-config" in said


async def test_clocks_of_api_servers(tmp_path: Path) -> None:
    """One answers with an hour more; the real one of this machine is right."""
    async with AsyncExitStack() as stack:
        sides = []
        for name, server in (("real", lab_api), ("early", fake_api)):
            (tmp_path / name).mkdir()
            api = await stack.enter_async_context(server(tmp_path / name))
            if api.fake is not None:
                api.fake.ahead_s = 3600.0
            client = await stack.enter_async_context(await api.direct())
            with suppress(ApiError):  # the real one has it
                space = {"metadata": {"name": "kube-system"}}
                await client.create(untyped(resources.NAMESPACES), space)
            data = {"cluster-name": name, "cluster-id": "7"}
            config = {"metadata": {"name": "cilium-config"}, "data": data}
            await client.create(untyped(resources.CONFIG_MAPS), config, "kube-system")
            sides.append(await mesh_examine.examine(client, name, "kube-system"))
    real, early = sides
    assert real.skew_s is not None
    assert early.skew_s is not None
    assert abs(real.skew_s) < 60
    assert abs(early.skew_s - 3600) < 60
    found = [f for f in mesh_faults.faults(sides, datetime.now(UTC)) if f.check == "clock"]
    assert [f.blocking for f in found] == [True]
    assert "the API server of cluster real is" in found[0].found
