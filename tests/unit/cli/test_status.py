"""`isthmus status`: what it prints, what it exits with, how it waits."""

import copy
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli import status_text
from tests.support.cli import agent_socket, isthmus

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PARIS: dict[str, Any] = {
    "name": "paris",
    "connected": True,
    "ready": True,
    "status": "etcd: 1/1 connected, endpoint: https://192.0.2.7:32379, ID: 9f3c",
    "num-nodes": 12,
    "num-endpoints": 240,
    "num-identities": 88,
    "num-shared-services": 9,
    "num-service-exports": 0,
    "num-failures": 1,
    "last-failure": (NOW - timedelta(hours=3, minutes=2, seconds=5)).isoformat(),
    "synced": {"nodes": True, "endpoints": True, "identities": True, "services": True},
    "config": {
        "required": True,
        "retrieved": True,
        "cluster-id": 3,
        "kvstoremesh": False,
        "sync-canaries": True,
        "service-exports-enabled": False,
    },
}
OSLO: dict[str, Any] = {
    "name": "oslo",
    "ready": False,
    "status": "Waiting for initial connection",
    "config": None,
    "num-rejected": 2,
    "last-rejected": "cilium/state/ip/v1/default/10.1.0.9 does not decode",
}
WELL: dict[str, Any] = {
    "cilium": {"state": "Ok", "msg": "0.1.0 (v0.1.0)"},
    "kubernetes": {
        "state": "Ok",
        "msg": "https://192.0.2.2:6443",
        "k8s-api-versions": ["v1::Pod", "cilium.io/v2::CiliumNode"],
    },
    "kvstore": {"state": "Disabled", "msg": ""},
    "cni-file": {"state": "Ok", "msg": "successfully wrote CNI configuration file to /x"},
    "nodeMonitor": {},
    "datapath-mode": "veth",
    "ipam": {
        "status": "IPv4: 2/254 allocated from 10.1.0.0/24, ",
        "allocations": {"10.1.0.1": "router", "10.1.0.9": "default/web"},
    },
    "cluster-mesh": {"num-global-services": 4, "clusters": [PARIS]},
    "controllers": [
        {
            "name": "table-ipcache",
            "status": {"success-count": 3, "failure-count": 0, "message": "ok, 7 rows"},
        }
    ],
    "identity-range": {"min-identity": 65792, "max-identity": 131071},
    "routing": {
        "inter-host-routing-mode": "Tunnel",
        "intra-host-routing-mode": "BPF",
        "tunnel-protocol": "vxlan",
    },
    "hubble": {"state": "Disabled", "msg": ""},
}


def ill(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(WELL), **changes}


def test_the_whole_report() -> None:
    """Labels stand in one column, every part that is reported has its line, well clusters none."""
    assert status_text.text(WELL, status_text.Detail(), NOW).splitlines() == [
        "KVStore:                 Disabled",
        "Kubernetes:              Ok   https://192.0.2.2:6443",
        'Kubernetes APIs:         ["cilium.io/v2::CiliumNode", "v1::Pod"]',
        "CNI Config file:         successfully wrote CNI configuration file to /x",
        "Cilium:                  Ok   0.1.0 (v0.1.0)",
        "NodeMonitor:             Disabled",
        "IPAM:                    IPv4: 2/254 allocated from 10.1.0.0/24,",
        "ClusterMesh:             1/1 remote clusters ready, 4 global-services",
        "Routing:                 Network: Tunnel [vxlan]   Host: BPF",
        "Device Mode:             veth",
        "Controller Status:       1/1 healthy",
        "Global Identity Range:   min 65792, max 131071",
        "Hubble:                  Disabled",
    ]


def test_a_remote_cluster_in_full() -> None:
    """Counts, connection, configuration and synchronisation, each on its own line."""
    assert status_text.remote_cluster(PARIS, NOW) == [
        "   paris: ready, 12 nodes, 240 endpoints, 88 identities, 9 services, "
        "0 MCS-API service exports, 1 reconnections (last: 3h2m5s ago)",
        "   └  etcd: 1/1 connected, endpoint: https://192.0.2.7:32379, ID: 9f3c",
        "   └  remote configuration: expected=true, retrieved=true, cluster-id=3, "
        "kvstoremesh=false, sync-canaries=true, service-exports=disabled",
        "   └  synchronization status: nodes=true, endpoints=true, identities=true, services=true",
    ]


def test_a_remote_cluster_out_of_reach() -> None:
    """It is shown in short too, with what its probes saw."""
    path = {"state": "returning", "share-percent": 25, "status": "2 of 3 asked nodes answer"}
    remote = PARIS | {"data-path": path}
    line = (
        "   └  data path: returning, 2 of 3 asked nodes answer; "
        "its backends get 25 % of their connections"
    )
    assert line in status_text.remote_cluster(remote, NOW)
    status = {"cluster-mesh": {"clusters": [remote]}}
    assert line.strip() in status_text.text(status, status_text.Detail(), NOW)
    path["share-percent"] = 100
    assert "   └  data path: returning, 2 of 3 asked nodes answer" in status_text.remote_cluster(
        remote, NOW
    )


def test_a_remote_cluster_that_never_answered() -> None:
    """What is not known is called unknown or never; rejected records are told with the latest."""
    lines = status_text.remote_cluster(OSLO, NOW)
    assert lines[0].endswith("0 reconnections (last: never)")
    assert lines[0].startswith("   oslo: not-ready, 0 nodes")
    assert lines[2] == "   └  remote configuration: expected=unknown, retrieved=unknown"
    assert lines[3] == f"   └  rejected records: 2, the latest: {OSLO['last-rejected']}"


def test_only_what_is_not_well_is_shown_unless_asked() -> None:
    """Clusters and controllers that are well appear with their options or with --verbose."""
    bad = {
        "name": "table-services",
        "status": {"consecutive-failure-count": 2, "last-failure-msg": "map is full"},
    }
    mesh = {"num-global-services": 0, "clusters": [PARIS, OSLO]}
    status = ill(**{"cluster-mesh": mesh, "controllers": [*WELL["controllers"], bad]})
    short = status_text.text(status, status_text.Detail(), NOW)
    assert "1/2 remote clusters ready" in short
    assert "oslo: not-ready" in short
    assert "paris:" not in short
    assert "1/2 healthy" in short
    assert "map is full" in short
    assert "table-ipcache" not in short
    assert "(router)" not in short
    verbose = status_text.text(status, status_text.Detail(verbose=True), NOW)
    single = status_text.text(status, status_text.Detail(clusters=True), NOW)
    assert "paris: ready" in single
    assert "table-ipcache" not in single
    for text in ("paris: ready", "table-ipcache", "ok, 7 rows", "  10.1.0.9 (default/web)"):
        assert text in verbose


def test_rejected_objects_are_named() -> None:
    """Objects and records that cannot be used are counted and told, as are the datapath's words."""
    status = ill(
        rejected={"count": 1, "problems": ["Service default/web: affinity is no word: use local"]},
        messages=["no tcx"],
    )
    lines = status_text.text(status, status_text.Detail(), NOW).splitlines()
    place = lines.index("Rejected objects:        1")
    assert lines[place + 1] == "   Service default/web: affinity is no word: use local"
    assert lines[-1] == "Datapath:                no tcx"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (WELL, ""),
        (ill(cilium={"state": "Failure", "msg": "starting: maps"}), "error in cilium: starting"),
        (ill(cilium={"state": "Warning", "msg": "slow"}), "error in cilium: slow"),
        (ill(kubernetes={"state": "Failure", "msg": "pods: refused"}), "error in kubernetes: pods"),
        (ill(kvstore={"state": "Failure"}), "error in kvstore: Failure"),
        ({}, "error in cilium: the agent reports no state"),
        ({"cilium": {"state": "Disabled"}}, "error in cilium: the agent reports no state"),
    ],
)
def test_the_first_part_that_is_not_well(status: dict[str, Any], said: str) -> None:
    """One sentence names the part and the reason; none when all parts are well."""
    found = status_text.problem(status)
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h0m0s"), (-5, "0s")]
)
def test_durations(seconds: int, text: str) -> None:
    """Whole seconds without leading zero parts; a clock that went back is no negative time."""
    assert status_text.duration(timedelta(seconds=seconds)) == text


def test_json_is_the_agents_answer_untouched(tmp_path: Path) -> None:
    """`-o json` prints the bytes as they came, with exit 0 or 1 by the agent's state."""
    with agent_socket(tmp_path / "s") as agent:
        odd = b'{ "cilium" : {"state":"Ok"},\n"unknown-part":[1.50, "\xc3\xbc"]}'
        agent.say("healthz", (200, odd))
        good = isthmus("status", "-o", "json", "--host", agent.path)
        assert (good.code, good.out) == (0, odd.decode() + "\n")
        bad = b'{"cilium":{"state":"Failure","msg":"starting"}}'
        agent.say("healthz", (200, bad))
        failed = isthmus("status", "-o", "json", "--host", agent.path)
        assert (failed.code, failed.out) == (1, bad.decode() + "\n")


def test_exit_status_follows_the_state(tmp_path: Path) -> None:
    """Text and --brief leave with 1 when the agent is ill; the API server counts by default."""
    with agent_socket(tmp_path / "s", {"healthz": WELL}) as agent:
        assert isthmus("status", "-H", agent.path).code == 0
        brief = isthmus("status", "--brief", "-H", agent.path)
        assert (brief.code, brief.out) == (0, "OK\n")
        away = ill(kubernetes={"state": "Failure", "msg": "pods: refused"})
        agent.say("healthz", (200, json.dumps(away).encode()))
        brief = isthmus("status", "--brief", "-H", agent.path)
        assert (brief.code, brief.out) == (1, "error in kubernetes: pods: refused\n")
        free = isthmus("status", "--brief", "--no-require-k8s-connectivity", "-H", agent.path)
        assert (free.code, free.out) == (0, "OK\n")


def test_wait_ends_when_the_agent_is_well(tmp_path: Path) -> None:
    """--wait goes on through an absent socket and an ill agent, and prints only the last answer."""
    path = tmp_path / "s"
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(isthmus("status", "--brief", "--wait", "-H", path))
    )
    with agent_socket(tmp_path / "other", {"healthz": WELL}) as agent:
        starting = json.dumps(ill(cilium={"state": "Failure", "msg": "starting"})).encode()
        agent.say("healthz", (200, starting), (200, starting), (200, json.dumps(WELL).encode()))
        waiting.start()
        agent.path.rename(path)
        waiting.join(timeout=60)
        assert [r.out for r in found] == ["OK\n"]
        assert found[0].code == 0
        assert len(agent.asked) == 3


def test_wait_ends_at_its_time(tmp_path: Path) -> None:
    """An agent that stays ill is printed as it is, with exit 1; one that is absent is an error."""
    sick = ill(cilium={"state": "Failure", "msg": "starting"})
    with agent_socket(tmp_path / "s", {"healthz": sick}) as agent:
        result = isthmus("status", "--wait", "--wait-duration", "3s", "-H", agent.path)
        assert result.code == 1
        assert "Cilium:                  Failure   starting" in result.out
        assert len(agent.asked) >= 2
    absent = isthmus("status", "--wait", "--wait-duration", "300ms", "-H", tmp_path / "s")
    assert absent.code == 1
    assert "does not answer" in absent.err


def test_a_bad_duration_is_refused(tmp_path: Path) -> None:
    """The text and the remedy are named."""
    result = isthmus("status", "--timeout", "5 apples", "-H", tmp_path / "s")
    assert result.code == 1
    assert 'duration "5 apples" is not valid: write it like 30s' in result.err


def test_a_copy_tells_its_age_and_that_it_is_cut_off() -> None:
    """Through KVStoreMesh a cluster looks connected: what the copy says of itself is shown."""
    said = {"last-heard": "2026-01-01T00:00:00Z", "connected": False, "error": "refused"}
    lines = status_text.remote_cluster(PARIS | {"copy": said}, NOW)
    assert any("last heard of the cluster: " in line and "ago" in line for line in lines)
    assert lines[-1] == "   └  the copy is cut off: refused"
    lines = status_text.remote_cluster(PARIS | {"copy": said | {"connected": True}}, NOW)
    assert not any("cut off" in line for line in lines)
