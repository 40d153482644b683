"""Traffic of every kind that a panel of our dashboards shows, and the pages that tell of it."""

import copy
import threading

from kind.lab.topology import Node
from kind.story import C1, C2
from tests.support.access_log import Proxy, answer, dns_answer, record
from tests.support.hubble_world import World
from tests.support.lab import Json
from tests.support.prometheus import Target

DENY: Json = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "no-probes", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"name": "rebel-base"}},
        "log": {"value": "probes are not answered"},
        "ingress": [{"fromEntities": ["all"]}],
        "ingressDeny": [{"fromEntities": ["all"], "toPorts": [{"ports": [{"port": "81"}]}]}],
    },
}
HOLD: Json = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "no-letters", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"name": "x-wing"}},
        "egress": [{"toEntities": ["all"]}],
        "egressDeny": [{"toEntities": ["all"], "toPorts": [{"ports": [{"port": "25"}]}]}],
    },
}
OPEN: Json = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "one-port", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"name": "rebel-base"}},
        "ingress": [{"ports": [{"port": 80}]}],
    },
}
# What the usual settings of Prometheus make of the labels of our pods.
POD_LABELS = {
    "cilium": (("k8s_app", "cilium"),),
    "operator": (("io_cilium_app", "operator"),),
}


class Talk:
    """Traffic of every kind that a panel shows, until the context ends."""

    def __init__(self, world: World) -> None:
        self._world, self._over = world, threading.Event()
        self._threads = [threading.Thread(target=t) for t in (self._packets, self._requests)]

    def __enter__(self) -> None:
        self._rare()
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _rare(self) -> None:
        """Garbage for the operator; a store that goes away is listed anew when it is back."""
        orphan = {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint"}
        self._world.lab.apply({**orphan, "metadata": {"name": "nobodys", "namespace": "default"}})
        words = ("delete", "pod", "-n", "kube-system", "-l", "k8s-app=clustermesh-apiserver")
        self._world.lab.kubectl(*words, "--wait=false", cluster=C2)

    def _packets(self) -> None:
        """Connections that are answered, refused, denied; pings; the world; changes of policies,
        and of a namespace that nobody reads."""
        world, turn = self._world, 0
        near, far = world.pod(C1, "x-wing"), world.pod(C2, "rebel-base")
        beside = world.pod(C1, "rebel-base")["status"]["podIP"]
        address = far["status"]["podIP"]
        commands = (
            "curl -s -m 2 http://rebel-base/",
            f"curl -s -m 2 http://{address}/",
            f"curl -s -m 1 http://{address}:81/",
            f"curl -s -m 1 http://{address}:9/",
            f"curl -s -m 1 http://{beside}:81/",
            f"curl -s -m 1 http://{beside}:25/",
            f"ping -q -c 1 -W 1 {address}",
            "ping -q -c 1 -W 1 203.0.113.7",
        )
        world.lab.apply(HOLD, cluster=C1)
        while not self._over.is_set():
            turn += 1
            denied, opened = copy.deepcopy(DENY), copy.deepcopy(OPEN)
            port = 1000 + turn
            denied["spec"]["ingressDeny"][0]["toPorts"][0]["ports"].append({"port": str(port)})
            opened["spec"]["ingress"][0]["ports"].append({"port": port})
            world.lab.apply(denied, cluster=C2)
            world.lab.apply(opened, cluster=C1)
            world.lab.kubectl("annotate", "ns", "default", f"turn={turn}", "--overwrite")
            name = near["metadata"]["name"]
            world.mesh.inside(C1, name, "sh", "-c", "; ".join((*commands, "true")))

    def _requests(self) -> None:
        """What proxies of both sides would tell."""
        world, number = self._world, 0
        near, far = world.pod(C1, "x-wing"), world.pod(C2, "rebel-base")
        beside = world.pod(C1, "rebel-base")
        here = near["status"]["podIP"]
        sides = (("Egress", near, far), ("Ingress", far, far), ("Ingress", beside, beside))
        proxies = [
            (point, Proxy(node.root / "run/cilium/envoy/sockets/access_log.sock"), server)
            for point, server, node in (
                (point, server["status"]["podIP"], world.node_of(at)) for point, at, server in sides
            )
        ]
        while not self._over.wait(0.2):
            number += 1
            code = 503 if number % 5 == 0 else 200
            headers = {"X-Request-Id": [str(number)]}
            http = {"Method": "GET", "URL": "http://rebel-base/", "Protocol": "HTTP/1.1"}
            http["Headers"] = headers
            at = {"Timestamp": f"2026-03-01T10:00:00.{number % 10}00000000Z"}
            for point, proxy, there in proxies:
                seen = {"ObservationPoint": point, **at}
                proxy.tell(record(here, there, HTTP=http, **seen))
                seen["Timestamp"] = "2026-03-01T10:00:00.950000000Z"
                proxy.tell(answer(there, here, HTTP={**http, "Code": code}, **seen))
            _, proxy, there = proxies[0]
            question = {"Query": "rebel-base.", "QTypes": [1]}
            udp = {"TransportProtocol": 17}
            proxy.tell(record(here, "10.1.0.53", DNS=question, **udp))
            proxy.tell(record(here, "10.1.0.53", DNS=question, Verdict="Denied", **udp))
            proxy.tell(record(here, "10.1.0.53", DNS={**question, "Query": "silence."}, **udp))
            proxy.tell(dns_answer("rebel-base.", there, asker=here))
            proxy.tell(dns_answer("nowhere.", asker=here, RCode=3))
        for _, proxy, _ in proxies:
            proxy.close()


def pages(world: World) -> list[Target]:
    """Everything that is served in the lab."""
    found = []
    for cluster in world.lab.topology.clusters:
        for node in cluster.nodes:
            ports = {"cilium": 9962, "hubble": 9965}
            if node.is_control_plane:
                ports["clustermesh"] = 9967
            found += [_page(cluster.name, what, node, port) for what, port in ports.items()]
        selected = ("pods", "-n", "kube-system", "-l", "io.cilium/app=operator")
        (pod,) = world.lab.get(*selected, cluster=cluster.name)["items"]
        node = world.lab.node(pod["spec"]["nodeName"])
        found.append(_page(cluster.name, "operator", node, 9963))
    return found


def _page(cluster: str, what: str, node: Node, port: int) -> Target:
    labels = (("cluster", cluster), ("pod", f"{what}-{node.name}"), *POD_LABELS.get(what, ()))
    return Target(f"{node.address}:{port}", labels)
