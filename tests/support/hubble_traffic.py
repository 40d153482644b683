"""Traffic of every kind that a panel of our dashboards shows, and the pages that tell of it."""

import copy
import threading

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
        """Connections that are answered, refused, denied; pings; the world; a policy's changes."""
        world, turn = self._world, 0
        near, far = world.pod(C1, "x-wing"), world.pod(C2, "rebel-base")
        address = far["status"]["podIP"]
        commands = (
            "curl -s -m 2 http://rebel-base/",
            f"curl -s -m 2 http://{address}/",
            f"curl -s -m 1 http://{address}:81/",
            f"curl -s -m 1 http://{address}:9/",
            f"ping -q -c 1 -W 1 {address}",
            "ping -q -c 1 -W 1 203.0.113.7",
        )
        while not self._over.is_set():
            turn += 1
            policy = copy.deepcopy(DENY)
            policy["spec"]["ingressDeny"][0]["toPorts"][0]["ports"].append(
                {"port": str(1000 + turn)}
            )
            world.lab.apply(policy, cluster=C2)
            name = near["metadata"]["name"]
            world.mesh.inside(C1, name, "sh", "-c", "; ".join((*commands, "true")))

    def _requests(self) -> None:
        """What proxies of both sides would tell."""
        world, number = self._world, 0
        near, far = world.pod(C1, "x-wing"), world.pod(C2, "rebel-base")
        here, there = near["status"]["podIP"], far["status"]["podIP"]
        sides = (("Egress", world.node_of(near)), ("Ingress", world.node_of(far)))
        proxies = [
            (point, Proxy(node.root / "run/cilium/envoy/sockets/access_log.sock"))
            for point, node in sides
        ]
        while not self._over.wait(0.2):
            number += 1
            code = 503 if number % 5 == 0 else 200
            headers = {"X-Request-Id": [str(number)]}
            http = {"Method": "GET", "URL": "http://rebel-base/", "Protocol": "HTTP/1.1"}
            http["Headers"] = headers
            at = {"Timestamp": f"2026-03-01T10:00:00.{number % 10}00000000Z"}
            for point, proxy in proxies:
                seen = {"ObservationPoint": point, **at}
                proxy.tell(record(here, there, HTTP=http, **seen))
                seen["Timestamp"] = "2026-03-01T10:00:00.950000000Z"
                proxy.tell(answer(there, here, HTTP={**http, "Code": code}, **seen))
            _, proxy = proxies[0]
            question = {"Query": "rebel-base.", "QTypes": [1]}
            udp = {"TransportProtocol": 17}
            proxy.tell(record(here, "10.1.0.53", DNS=question, **udp))
            proxy.tell(record(here, "10.1.0.53", DNS=question, Verdict="Denied", **udp))
            proxy.tell(dns_answer("rebel-base.", there, asker=here))
            proxy.tell(dns_answer("nowhere.", asker=here, RCode=3))
        for _, proxy in proxies:
            proxy.close()


def pages(world: World) -> list[Target]:
    """Everything that is served in the lab."""
    found = []
    for cluster in world.lab.topology.clusters:
        for node in cluster.nodes:
            ports = {"cilium": 9962, "hubble": 9965}
            if node.is_control_plane:
                ports |= {"operator": 9963, "clustermesh": 9967}
            for what, port in ports.items():
                labels = (("cluster", cluster.name), ("pod", f"{what}-{node.name}"))
                found.append(Target(f"{node.address}:{port}", labels))
    return found
