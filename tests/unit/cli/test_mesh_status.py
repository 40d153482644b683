"""The report of `clustermesh status`, from what agents answer."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli import mesh_status

REMOTE: dict[str, Any] = {
    "name": "paris",
    "connected": True,
    "ready": True,
    "status": "etcd: 1/1 connected",
    "config": {"required": True, "retrieved": True},
    "synced": {"nodes": True, "endpoints": True, "identities": True, "services": True},
}
ACCESS = {"service_type": "NodePort", "service_ips": ["192.0.2.1"], "service_port": 32379}


def answer(*remotes: dict[str, Any], services: int = 2) -> dict[str, Any]:
    return {"cluster-mesh": {"clusters": list(remotes), "num-global-services": services}}


def changed(**values: Any) -> dict[str, Any]:
    return copy.deepcopy(REMOTE) | values


def report(status: mesh_status.MeshStatus) -> list[str]:
    return mesh_status.lines(status, "NodePort", ["192.0.2.1"], 32379, [])


@pytest.mark.parametrize(
    ("remote", "why"),
    [
        (changed(), ""),
        (
            changed(ready=False, connected=False, status="192.0.2.9:32379 does not answer"),
            "192.0.2.9:32379 does not answer",
        ),
        (changed(ready=False, connected=False, status=""), "unknown status"),
        (
            changed(ready=False, config=None),
            "remote cluster configuration retrieval status unknown",
        ),
        (
            changed(ready=False, config={"required": True, "retrieved": False}, status=""),
            "remote cluster configuration required but not found",
        ),
        (changed(ready=False, synced=None), "synchronization status unknown"),
        (
            changed(ready=False, synced=REMOTE["synced"] | {"nodes": False, "services": False}),
            "synchronization in progress for nodes, services",
        ),
        (changed(ready=False), "not ready"),
    ],
)
def test_why_an_agent_is_not_ready(remote: dict[str, Any], why: str) -> None:
    """The reason comes from the agent's own words, most basic first."""
    assert mesh_status.why_not_ready(remote) == why


def test_all_is_well() -> None:
    """Every agent connected to every expected cluster: ready, and the report says so."""
    status = mesh_status.MeshStatus(expected=("paris",))
    mesh_status.add_agent(status, "cilium-a", answer(changed(), services=2))
    mesh_status.add_agent(status, "cilium-b", answer(changed(), services=4))
    assert status.ready
    text = report(status)
    assert "✅ All 2 nodes are connected to all clusters [min:1 / avg:1.0 / max:1]" in text
    assert "  - paris: 2/2 configured, 2/2 connected" in text
    assert "🔀 Global services: [min:2 / avg:3.0 / max:4]" in text
    assert not [line for line in text if "❌" in line]


def test_one_agent_behind() -> None:
    """An agent that is not in sync, one that knows nothing and one that is silent: not ready."""
    status = mesh_status.MeshStatus(expected=("oslo", "paris"))
    oslo = changed(name="oslo")
    mesh_status.add_agent(status, "cilium-a", answer(oslo, changed()))
    behind = changed(ready=False, synced=REMOTE["synced"] | {"services": False})
    mesh_status.add_agent(status, "cilium-b", answer(oslo, behind))
    mesh_status.add_agent(status, "cilium-c", answer(oslo))
    status.unreachable["cilium-d"] = "does not answer: no route"
    assert not status.ready
    text = report(status)
    assert "⚠️  3/4 nodes are not connected to all clusters [min:0 / avg:1.0 / max:2]" in text
    assert "  - paris: 2/4 configured, 1/4 connected" in text
    assert "❌ 3 Errors:" in text
    assert (
        "  ❌ cilium-b is not connected to cluster paris: "
        "synchronization in progress for services" in text
    )
    assert "  ❌ cilium-c is not connected to cluster paris: unknown status" in text
    assert "  ❌ cilium-d: does not answer: no route" in text


def test_no_agents_is_not_ready() -> None:
    """Where nobody was asked nothing is well."""
    assert not mesh_status.MeshStatus(expected=("paris",)).ready


def test_nothing_connected() -> None:
    """A mesh store without connections is said to be that, and is no failure."""
    status = mesh_status.MeshStatus()
    mesh_status.add_agent(status, "cilium-a", answer())
    assert status.ready
    assert "🔌 No cluster connected" in report(status)


def test_rejected_records_are_shown() -> None:
    """What a peer says wrongly is visible without the agent's log."""
    status = mesh_status.MeshStatus(expected=("paris",))
    text = "cilium/state/nodes/v1/paris/n1: not JSON"
    mesh_status.add_agent(status, "cilium-a", answer(changed(**{"last-rejected": text})))
    assert f"  - paris: 1 record, as: {text}" in report(status)
    assert mesh_status.as_json(status, ACCESS)["violations"] == {
        "paris": [{"kind": "record", "count": 1, "example": text}]
    }


def data_path(state: str, share: int) -> dict[str, Any]:
    return {"data-path": {"state": state, "share-percent": share, "status": "1 of 3 answer"}}


def test_a_cluster_out_of_reach_is_not_well() -> None:
    """Connected, but packets do not get there: who does not reach it, and exit code 1."""
    status = mesh_status.MeshStatus(expected=("paris",))
    mesh_status.add_agent(status, "cilium-a", answer(changed(**data_path("down", 0))))
    mesh_status.add_agent(status, "cilium-b", answer(changed(**data_path("up", 100))))
    assert not status.ready
    text = report(status)
    assert (
        "  - paris: 2/2 configured, 2/2 connected, "
        "data path down on 1/2 nodes: its backends are out" in text
    )
    assert "  ❌ cilium-a does not reach the nodes of cluster paris: 1 of 3 answer" in text
    assert mesh_status.waiting(status, None, True) == "packets to reach all clusters"
    told = mesh_status.as_json(status, ACCESS)["data_path"]["paris"]
    assert told["cilium-b"] == {"state": "up", "share_percent": 100, "status": "1 of 3 answer"}


def test_a_cluster_that_comes_back_is_well() -> None:
    """The least of its parts is shown; what is not known yet is nothing to be said."""
    status = mesh_status.MeshStatus(expected=("paris",))
    for agent, share in (("cilium-a", 25), ("cilium-b", 10)):
        mesh_status.add_agent(status, agent, answer(changed(**data_path("returning", share))))
    mesh_status.add_agent(status, "cilium-c", answer(changed(**data_path("unknown", 100))))
    assert status.ready
    assert (
        "  - paris: 3/3 configured, 3/3 connected, "
        "data path returning on 2/3 nodes: its backends get 10 % of their connections"
    ) in report(status)


def test_json_of_a_good_mesh() -> None:
    """Keys of the well-known tool; zero values are left out."""
    status = mesh_status.MeshStatus(expected=("paris",))
    mesh_status.add_agent(status, "cilium-a", answer(changed()))
    assert mesh_status.as_json(status, ACCESS) == {
        "access_information": ACCESS,
        "connectivity": {
            "connected": {"min": 1, "avg": 1.0, "max": 1},
            "clusters": {"paris": {"configured": 1, "connected": 1}},
            "total": 1,
        },
        "kvstoremesh": {"enabled": False},
    }


def test_json_of_a_bad_mesh() -> None:
    """Errors are there, counts of zero are not."""
    status = mesh_status.MeshStatus(expected=("paris",))
    mesh_status.add_agent(status, "cilium-a", answer())
    connectivity = mesh_status.as_json(status, ACCESS)["connectivity"]
    assert connectivity["not_ready"] == 1
    assert "min" not in connectivity.get("connected", {})
    assert connectivity["errors"] == {
        "cilium": ["cilium-a is not connected to cluster paris: unknown status"]
    }


def copied(**changes: object) -> dict[str, object]:
    """One remote cluster as a KVStoreMesh tells of it."""
    return {**changed(), "age-seconds": 12, **changes}


def test_kvstoremesh_is_shown() -> None:
    """Connections of the replicas beside those of the nodes, with the age of the data."""
    status, copies = (mesh_status.MeshStatus(expected=("paris",)) for _ in range(2))
    mesh_status.add_agent(status, "cilium-a", answer(changed()))
    mesh_status.add_kvstoremesh(copies, "store-1", [copied()])
    lines = mesh_status.lines(status, "NodePort", ("192.0.2.1",), 32379, (), copies)
    assert "ℹ️  KVStoreMesh is enabled" in lines
    assert (
        "✅ All 1 KVStoreMesh replicas are connected to all clusters [min:1 / avg:1.0 / max:1]"
        in lines
    )
    assert (
        "  - paris: 1/1 configured, 1/1 connected - KVStoreMesh: 1/1 configured, 1/1 connected, "
        "age of data: 12 s" in lines
    )
    assert mesh_status.as_json(status, ACCESS, copies)["kvstoremesh"] == {
        "enabled": True,
        "status": {
            "connected": {"min": 1, "avg": 1.0, "max": 1},
            "clusters": {"paris": {"configured": 1, "connected": 1}},
            "total": 1,
            "age_seconds": {"paris": 12},
        },
    }


def test_a_copy_that_is_cut_off_is_an_error() -> None:
    """Agents are content with the copy; the replica is not, and says why."""
    status, copies = (mesh_status.MeshStatus(expected=("paris",)) for _ in range(2))
    mesh_status.add_agent(status, "cilium-a", answer(changed()))
    away = copied(ready=False, connected=False, status="connection refused")
    mesh_status.add_kvstoremesh(copies, "store-1", [away])
    lines = mesh_status.lines(status, "NodePort", ("192.0.2.1",), 32379, (), copies)
    assert status.ready
    assert not copies.ready
    assert (
        "⚠️  1/1 KVStoreMesh replicas are not connected to all clusters "
        "[min:0 / avg:0.0 / max:0]" in lines
    )
    assert "  ❌ store-1 is not connected to cluster paris: connection refused" in lines


def test_age_and_revocation_as_agents_tell_them() -> None:
    """The oldest data of all agents counts; KVStoreMesh's own figure has another place."""
    status = mesh_status.MeshStatus(expected=("paris",))
    for pod, age in (("cilium-a", 3), ("cilium-b", 70)):
        data = {"age-seconds": age, "revoked": age > 60}
        mesh_status.add_agent(status, pod, answer(changed(data=data)))
    lines = mesh_status.lines(status, "NodePort", ("192.0.2.1",), 32379, ())
    assert any(
        "paris" in line and ", age of data: 70 s, its backends are taken back" in line
        for line in lines
    )
    body = mesh_status.as_json(status, ACCESS)
    assert body["age_seconds"] == {"paris": 70}
    assert body["revoked"] == ["paris"]


@pytest.mark.parametrize(
    ("days", "words"), [(400, "🔏"), (12, "⚠️"), (-2, "❌ Certificate in Secret s expired on")]
)
def test_line_of_a_certificate(days: int, words: str) -> None:
    """Until when it is good; louder within a month, and when it is over."""
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert mesh_status.expiry_line("s", now + timedelta(days=days), now).startswith(words)


def test_what_is_waited_for() -> None:
    """One line, the same as long as nothing changes."""
    status = mesh_status.MeshStatus(expected=("paris",))
    assert mesh_status.waiting(status, None, False) == (
        "Deployment clustermesh-apiserver to be ready, agents to run"
    )
    mesh_status.add_agent(status, "cilium-a", answer())
    copies = mesh_status.MeshStatus(expected=("paris",))
    assert mesh_status.waiting(status, copies, True) == (
        "clusters to be connected: 1 node is not ready, KVStoreMesh to be connected"
    )
