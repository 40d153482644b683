"""Two joined clusters of both families whose nodes encrypt, strictly, with Hubble beside: what an
IPv6 packet meets, under a sniffer.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from kind.story import C1, C2
from tests.support import lab as labs
from tests.support import metrics_page
from tests.support.cilium_dashboards import DUAL
from tests.support.lab import Json, Lab
from tests.support.sniffer import CANARY, sniffing

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(600),
]

PODS = ["10.1.0.0/16", "10.2.0.0/16", "fd00:10:1::/48", "fd00:10:2::/48"]
NODES = ["172.20.0.0/16", "fd00:172:20::/64"]
OVER = "/tmp/over"  # in `client`, when nobody has to speak any more
OUTSIDE = "fd00:172:20::1"  # the underlay's own address: of no cluster
TO_OVERLAY = 4  # where a packet goes into the tunnel
STRANGER = "fd00:10:2:77::1"  # among the other cluster's pods, and nobody's
PATIENCE_S = 20  # with what is answered: a busy machine stands still for seconds
REFUSED_S = 2  # and with what is not
SETTINGS = (
    "ipv6.enabled=true",
    "hubble.enabled=true",
    "hubble.metrics.enabled={tcp,icmp}",
    "enable-wireguard=true",
    "encryption.strictMode.enabled=true",
    "encryption.strictMode.cidr=10.1.0.0/16,10.2.0.0/16,fd00:10:1::/48,fd00:10:2::/48",
)
LISTEN = (
    "import http.server as h, socket;"
    "h.HTTPServer.address_family = socket.AF_INET6;"
    f"h.HTTPServer(({OUTSIDE!r}, 8080), h.SimpleHTTPRequestHandler).serve_forever()"
)


def pod(name: str, node: str, image: str, app: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": image}]},
    }


WEB: Json = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "annotations": {"service.cilium.io/global": "true"}},
    "spec": {
        "selector": {"app": "web"},
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    },
}


class World:
    """Both clusters: pods `client` and `near` on one node of each, `far` on the other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        for cluster in (C1, C2):
            worker, other = f"{cluster}-worker", f"{cluster}-control-plane"
            pods = [pod("near", worker, "echo", "web"), pod("far", other, "echo", "web")]
            lab.apply(*pods, pod("client", worker, "netshoot", "client"), WEB, cluster=cluster)
            self.isthmus("clustermesh", "enable", "--context", cluster)
        words = ("clustermesh", "connect", "--context", C1, "--destination-context", C2)
        assert "Connected cluster" in self.isthmus(*words)
        for cluster in (C1, C2):
            lab.wait_ready("near", "far", "client", cluster=cluster)
            self.isthmus("clustermesh", "status", "--context", cluster, "--wait")
        labs.wait_until("every node has three peers", lambda: self._peers() == [3] * 4)

    def isthmus(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "cli.main", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.lab.env, timeout=240, check=False
        )
        assert done.returncode == code, f"isthmus {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def _peers(self) -> list[int]:
        words = ("encrypt", "status", "--context", C1, "--also", C2, "-o", "json")
        nodes = json.loads(self.isthmus(*words))["nodes"]
        return [n["wireguard"]["interfaces"][0]["peer-count"] for n in nodes.values()]

    def addresses(self, name: str, cluster: str = C1) -> tuple[str, str]:
        """Of a pod: IPv4, IPv6."""
        status = self.lab.get("pod", name, cluster=cluster)["status"]
        four, six = (ip["ip"] for ip in status["podIPs"])
        return four, six

    def run(self, *command: str, cluster: str = C1) -> subprocess.CompletedProcess[str]:
        """In `client`."""
        words = ["kubectl", "--context", cluster, "exec", "client", "--", *command]
        return subprocess.run(
            words, env=self.lab.env, capture_output=True, text=True, timeout=180, check=False
        )

    def ask(
        self, host: str, *options: str, cluster: str = C1, patience_s: float = PATIENCE_S
    ) -> Json | None:
        """What the pod behind a name or an address answers; None: nothing within its time."""
        limit = ("-m", str(patience_s))
        canary = f"X-Canary: {CANARY.decode()}"
        done = self.run(
            "curl", "-s", *limit, "-H", "Expect:", "-H", canary, *options, host, cluster=cluster
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def ping(self, address: str, patience_s: float = PATIENCE_S) -> bool:
        return self.run("ping", "-c", "1", "-W", str(patience_s), address).returncode == 0

    def inside(self, *words: str) -> str:
        """A command of the worker of cluster1."""
        code, said = self.lab.exec(f"{C1}-worker", "isthmus", *words)
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = labs.start("d6", *(f"--set={text}" for text in SETTINGS))
    try:
        yield World(made)
    finally:
        labs.stop(made)


def test_pods_reach_pods_and_nothing_shows(world: World) -> None:
    """Same node, other node, other cluster, by both families, large and small; all encrypted."""
    mine = world.addresses("client")
    with sniffing(world.lab.topology.underlay_netns, PODS, nodes=NODES) as seen:
        for name, cluster in (("near", C1), ("far", C1), ("near", C2), ("far", C2)):
            for version, address in enumerate(world.addresses(name, cluster)):
                host = f"http://[{address}]:8080/" if version else f"http://{address}:8080/"
                for options in ((), ("--data-binary", "@/bin/bash")):
                    answer = world.ask(host, *options)
                    assert answer is not None, (name, cluster, address, options)
                    assert answer["client"].rpartition(":")[0] == mine[version]
                    assert answer["pod"] == name
                assert world.ping(address), address
    seen.assert_clean()
    for said in world.lab.get("node", f"{C1}-worker")["status"]["addresses"]:
        assert said["type"] == "Hostname" or world.ping(said["address"]), said


def test_flows_say_whether_they_are_encrypted(world: World) -> None:
    """To other nodes they are, by both families; on one node there is nothing to encrypt."""
    near, far = world.addresses("near"), world.addresses("far", C2)
    for address in (*near, *far):
        host = f"[{address}]" if ":" in address else address
        assert world.ask(f"http://{host}:8080/") is not None
        assert world.ping(address)

    def flows(*words: str) -> list[Json]:
        command = ("hubble", "observe", "--last", "2000", "--type", "trace", "-o", "json", *words)
        found: list[Json] = [
            json.loads(line)["flow"] for line in world.inside(*command).split("\n") if line
        ]
        return found

    def sent_to(address: str) -> list[Json]:
        found = flows("--to-ip", address)
        return [f for f in found if f["event_type"]["sub_type"] == TO_OVERLAY]

    for address in far:
        sent = labs.wait_until(f"flows to {address}", lambda a=address: sent_to(a))
        assert all(flow["IP"].get("encrypted") for flow in sent), address
        encrypted = flows("--to-ip", address, "--encrypted")
        assert {flow["uuid"] for flow in sent} <= {flow["uuid"] for flow in encrypted}
    for address in near:
        words = ("--to-ip", address, "--unencrypted")
        labs.wait_until(f"flows to {address}", lambda w=words: flows(*w))
        assert flows("--to-ip", address, "--encrypted") == [], address


def test_hubble_counts_both_families(world: World) -> None:
    """What Cilium's dashboards read of IPv6."""
    page = f"{world.lab.node(f'{C1}-worker').address}:9965/metrics"

    def missing() -> list[object]:
        world.ask(f"http://[{world.addresses('near')[1]}]:8080/")
        world.ping(world.addresses("far", C2)[1])
        code, text = world.lab.exec(f"{C1}-worker", "curl", "-s", f"http://{page}")
        assert code == 0, text
        found = metrics_page.parse(text)
        return [
            fact for fact in DUAL if fact[0] not in found or not found[fact[0]].total(**fact[1])
        ]

    labs.wait_until("all are counted", lambda: not missing(), 90, 0.5)


def test_objects_and_tables_have_both(world: World) -> None:
    """What clusters tell of nodes and pods, and what the CLI shows of the kernel."""
    four, six = world.addresses("far", C2)
    (one,) = world.lab.get("cep", "far", cluster=C2)["status"]["networking"]["addressing"]
    assert one == {"ipv4": four, "ipv6": six}
    node = world.lab.get("node", f"{C2}-worker", cluster=C2)
    assert [":" in cidr for cidr in node["spec"]["podCIDRs"]] == [False, True]
    known = {row["cidr"]: row for row in json.loads(world.inside("ip", "list", "-o", "json"))}
    assert known[f"{six}/128"]["identity"] == known[f"{four}/32"]["identity"]
    assert known[f"{six}/128"]["hostIP"] == known[f"{four}/32"]["hostIP"], "by the IPv4 underlay"
    assert f"{six}/128" in world.inside("bpf", "ipcache", "list")
    vip = world.lab.get("service", "web")["spec"]["clusterIPs"][1]
    assert f"[{vip}]:80/TCP (1)" in world.inside("bpf", "lb", "list")
    assert world.addresses("near")[1] in world.inside("bpf", "endpoint", "list")
    peers = world.isthmus("encrypt", "status", "--context", C1, "-o", "json")
    for cidr in node["spec"]["podCIDRs"]:
        assert cidr in peers, "what its WireGuard peer may send"
    assert "IPv6: " in world.inside("status")
    assert "fd00:10:2:2::/64" in world.inside("node", "list")


def test_global_service_of_both_families(world: World) -> None:
    """Names have AAAA; each family's frontend leads to its own backends of both clusters."""
    vips = world.lab.get("service", "web")["spec"]["clusterIPs"]
    named = world.run("getent", "ahosts", "web.default.svc.cluster.local").stdout
    assert all(vip in named for vip in vips), named
    servers: dict[int, set[str]] = {4: set(), 6: set()}
    everyone: dict[int, set[str]] = {4: set(), 6: set()}
    for cluster in (C1, C2):
        for name in ("near", "far"):
            for version, address in zip((4, 6), world.addresses(name, cluster), strict=True):
                everyone[version].add(address)

    def all_met() -> bool:
        for version, found in servers.items():
            answer = world.ask("http://web/", f"-{version}")
            if answer is not None:
                found.add(answer["server"].rpartition(":")[0])
        return servers == everyone

    labs.wait_until("every backend of both families has answered", all_met, 120)
    slices = world.lab.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    kinds = {s["addressType"] for s in slices}
    assert kinds == {"IPv4", "IPv6"}


def _v6_policy(name: str, *prefixes: str) -> Json:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "client"}},
            "egress": [
                {
                    "toCIDR": list(prefixes),
                    "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}],
                },
                {
                    "toEndpoints": [{"matchLabels": {"app": "web"}}],
                    "icmps": [{"fields": [{"family": "IPv6", "type": "EchoRequest"}]}],
                },
            ],
        },
    }


def test_policy_of_prefixes_and_icmp(world: World, request: pytest.FixtureRequest) -> None:
    """A prefix of IPv6 and ICMPv6 types are enforced, explained, and told by Hubble."""
    underlay, worker = world.lab.topology.underlay_netns, world.lab.node(f"{C1}-worker")
    pods6 = ip_network(str(worker.pod_cidrs[1]))
    way = ["ip", "-n", underlay, "-6", "route", "replace", str(pods6), "via", str(worker.address6)]
    subprocess.run(way, check=True)
    server = subprocess.Popen(
        ["ip", "netns", "exec", underlay, sys.executable, "-c", LISTEN],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    request.addfinalizer(server.wait)
    request.addfinalizer(server.kill)
    outside = ("curl", "-s", "-m", str(PATIENCE_S), "-o", "/dev/null", f"http://[{OUTSIDE}]:8080/")
    labs.wait_until("the world answers", lambda: world.run(*outside).returncode == 0)
    near4, near6 = world.addresses("near")
    far6 = world.addresses("far", C2)[1]
    assert world.ping(near4)

    policy = _v6_policy("v6", f"{OUTSIDE}/128")
    peers = {
        text for c in json.loads(_whatif(world, policy)) for p in c["peers"] for text in p["labels"]
    }
    assert f"cidr:{OUTSIDE.replace(':', '-')}/128" in peers, "at some ports it would forbid it"
    world.lab.apply(policy)
    request.addfinalizer(lambda: world.lab.kubectl("delete", "cnp", "v6", "--ignore-not-found"))
    labs.wait_until("IPv4 is forbidden", lambda: not world.ping(near4, REFUSED_S))
    assert world.run(*outside).returncode == 0
    assert world.ping(near6)
    assert world.ping(far6)
    port = f"http://[{far6}]:8080/"
    assert world.ask(port, patience_s=REFUSED_S) is None, "no rule allows this port"
    assert not world.ping(OUTSIDE, REFUSED_S), "no rule allows it to the world"

    ends = ("policy", "explain", "--context", C1, "--from", "default/client", "--to")
    assert "ALLOWED" in world.isthmus(*ends, OUTSIDE, "--port", "8080")
    told = world.isthmus(*ends, OUTSIDE, "--port", "128", "--protocol", "icmpv6", code=1)
    assert "DENIED" in told
    assert f"cidr:{OUTSIDE.replace(':', '-')}/128" in told
    flows = _dropped(world, OUTSIDE)
    assert "POLICY_DENIED" in flows or "Policy denied" in flows, flows

    def told_allowed() -> bool:
        words = ("hubble", "observe", "--ipv6", "--verdict", "FORWARDED", "--last", "500")
        allowed = world.inside(*words)
        assert "ICMPv6" in allowed
        assert "(world)" in allowed or OUTSIDE in allowed, allowed
        return True

    labs.wait_until("what was allowed is told", told_allowed)


def _dropped(world: World, address: str) -> str:
    """Flows of IPv6 that were dropped, once one of them names an address."""
    words = ("hubble", "observe", "--ipv6", "--verdict", "DROPPED", "--last", "200")
    found: str = labs.wait_until(
        f"a drop of {address}", lambda: address in (said := world.inside(*words)) and said
    )
    return found


def _whatif(world: World, policy: Json) -> str:
    words = [sys.executable, "-m", "cli.main", "policy", "whatif", "--context", C1]
    done = subprocess.run(
        [*words, "-f", "-", "-o", "json"],
        input=json.dumps(policy),
        capture_output=True,
        text=True,
        env=world.lab.env,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_strict_mode_of_ipv6(world: World) -> None:
    """An address among the other cluster's pods that nobody has told: dropped, never in clear."""
    before = _unencrypted(world)
    with sniffing(world.lab.topology.underlay_netns, PODS, nodes=NODES) as seen:
        assert not world.ping(STRANGER, REFUSED_S)
        assert world.ask(f"http://[{STRANGER}]:8080/", patience_s=REFUSED_S) is None
        assert world.ping(world.addresses("far", C2)[1])
    seen.assert_clean()
    assert _unencrypted(world) > before
    _dropped(world, STRANGER)


def test_no_moment_of_a_pod_is_in_clear_text(world: World) -> None:
    """By both families: what a pod says as soon as it runs, what is said to one as soon as it has
    addresses, and what is still said to them when it is no more.
    """
    shouts = " ".join(f"{_shout(a)} &" for a in world.addresses("far", C2))
    early = pod("early", f"{C1}-worker", "netshoot", "early")
    early["spec"]["containers"][0]["command"] = ["sh", "-c", f"{shouts} wait; sleep 1000"]
    brief = pod("brief", f"{C2}-worker", "echo", "brief")
    for body in (early, brief):
        body["spec"]["terminationGracePeriodSeconds"] = 0

    def begun() -> bool:
        status = world.lab.get("pod", "brief", cluster=C2)["status"]
        return len(status.get("podIPs", ())) == 2

    with sniffing(world.lab.topology.underlay_netns, PODS, nodes=NODES) as seen:
        world.lab.apply(brief, cluster=C2)
        world.lab.apply(early)
        labs.wait_until("it has both addresses", begun)
        words = ["kubectl", "--context", C1, "exec", "client", "--"]
        speaking = [
            subprocess.Popen([*words, "sh", "-c", _shout_on(address)], env=world.lab.env)
            for address in world.addresses("brief", C2)
        ]
        world.lab.wait_ready("brief", cluster=C2)
        labs.wait_until(
            "it is reached by IPv6", lambda: world.ping(world.addresses("brief", C2)[1], REFUSED_S)
        )
        world.lab.kubectl("delete", "pod", "brief", "--wait=true", cluster=C2)
        assert all(process.poll() is None for process in speaking), "they spoke to its end"
        time.sleep(5)  # and speak on, to one that is no more
        assert world.run("touch", OVER).returncode == 0
        for process in speaking:
            process.wait(timeout=180)
        world.lab.kubectl("delete", "pod", "early", "--wait=true")
    assert seen.wireguard > 500


def _shout(address: str) -> str:
    """A hundred packets a second for fifteen seconds, whether or not anybody answers."""
    return f"ping -q -i 0.01 -c 1500 -w 15 {address} >/dev/null || true"


def _shout_on(address: str) -> str:
    """As many, until it is over."""
    return f"until [ -e {OVER} ]; do ping -q -i 0.01 -w 1 {address} >/dev/null; done"


def _unencrypted(world: World) -> int:
    """Packets dropped on the worker of cluster1 because they would have left in clear."""
    rows = json.loads(world.inside("bpf", "metrics", "list", "-o", "json"))
    return sum(r["packets"] for r in rows if "unencrypted" in str(r).lower())


def test_the_doctor_finds_nothing(world: World) -> None:
    """Of two clusters of both families; the agents lost no packet for want of knowing IPv6."""
    words = ("clustermesh", "doctor", "--contexts", f"{C1},{C2}")
    # An agent of a busy machine may not answer at once, which is a finding, too.
    labs.wait_until("nothing is found", lambda: world.isthmus(*words))
    for node in world.lab.topology.nodes:
        code, said = world.lab.exec(node.name, "isthmus", "bpf", "metrics", "list")
        assert code == 0
        for reason in ("Unknown sender", "Unsupported L3", "Invalid source"):
            assert reason not in said, (node.name, said)
