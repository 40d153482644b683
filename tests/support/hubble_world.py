"""Two joined clusters with Hubble on every node and a relay in the first."""

import asyncio
from collections.abc import Callable

from kind import story
from kind.lab.topology import Node
from kind.story import C1, C2
from tests.support import lab as labs
from tests.support.hubble import asking
from tests.support.lab import Json, Lab
from wire.hubble import flow_pb2 as f
from wire.hubble import observer_pb2

RELAY = "hubble-relay.kube-system:80"
TOOLS: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "tools", "namespace": "default"},
    "spec": {"containers": [{"name": "tools", "image": "isthmus", "command": ["sleep", "1d"]}]},
}

CONTEXT = (
    "sourceContext=workload-name|pod-name|reserved-identity;"
    "destinationContext=workload-name|pod-name|reserved-identity;"
    "labelsContext=source_namespace|source_workload|destination_namespace|destination_workload"
)
USUAL = (
    *("dns:query", "drop", "tcp", "flow", "icmp", "port-distribution", "policy"),
    "flows-to-world",
)
SETTINGS = (
    *("--set", "hubble.metrics.enableOpenMetrics=true"),
    *("--set", "hubble.dropEventEmitter.enabled=true"),
    *("--set", "hubble.dropEventEmitter.reasons={policy_denied,policy_deny}"),
    *("--set", "cilium-endpoint-gc-interval=5s"),
    *("--set", "hubble.export.static.enabled=true"),
    *("--set", 'hubble.export.static.allowList={"verdict":["DROPPED"]}'),
)


def metrics(*names: str) -> tuple[str, str]:
    """The setting that has these counted, each by workload and namespace."""
    each = (f"{name}{';' if ':' in name else ':'}{CONTEXT}" for name in names)
    return "--set", f"hubble.metrics.enabled={{{','.join(each)}}}"


# The first cluster counts requests with their answers, the second counts both.
HTTP = {C1: "httpV2:exemplars=true", C2: "http"}


class World:
    """The lab, its meshes' commands, and a client of every node's observer."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.mesh = lab, story.Mesh(lab.name)
        for number, context in ((1, C1), (2, C2)):
            words = ("install", "--context", context, "--cluster-name", context)
            relay = f"hubble.relay.enabled={str(context == C1).lower()}"
            more = ("--set", "hubble.enabled=true", "--set", relay, "--wait")
            counted = metrics(*USUAL, HTTP[context])
            self.mesh.isthmus(*words, "--cluster-id", str(number), *more, *SETTINGS, *counted)
        for tell in (story.clusters, story.joined):
            step = story.Step(0, tell.__name__)
            tell(self.mesh, step)
            assert step.held, step.checks

    def pod(self, context: str, app: str) -> Json:
        found: Json = self.mesh.pods(context, f"name={app}")[0]
        return found

    def node_of(self, pod: Json) -> Node:
        return self.lab.node(pod["spec"]["nodeName"])

    def ask(self, node: Node, **request: object) -> list[f.Flow]:
        """Flows of a node's ring."""

        async def work() -> list[f.Flow]:
            path = node.root / "run/cilium/hubble.sock"
            async with asking(path) as stub, asyncio.timeout(60):
                asked = observer_pb2.GetFlowsRequest(**request)
                return [a.flow async for a in stub.flows(asked) if a.HasField("flow")]

        return asyncio.run(work())

    def seen(self, node: Node, claim: Callable[[f.Flow], bool], since: float) -> list[f.Flow]:
        """Flows of a node after a moment, once there are any."""

        def look() -> list[f.Flow]:
            request = {"number": 1 << 20}
            return [
                flow
                for flow in self.ask(node, **request)
                if flow.time.ToNanoseconds() >= since * 1e9 and claim(flow)
            ]

        found: list[f.Flow] = labs.wait_until("such flows", look)
        return found

    def curl(self, target: str, *, context: str = C1) -> str:
        client = self.pod(context, "x-wing")["metadata"]["name"]
        return self.mesh.inside(context, client, "curl", "-s", "-m", "20", target)

    def told(self, *words: str, server: str = RELAY) -> tuple[int, str]:
        """``isthmus hubble`` in a pod of the first cluster, as a person in the cluster does: its
        exit status, and what it says."""
        if not self.lab.get("pods", "--field-selector=metadata.name=tools")["items"]:
            self.lab.apply(TOOLS)
            self.lab.wait_ready("tools")
        return self.lab.exec(f"{C1}/tools", "isthmus", "hubble", *words, "--server", server)

    def asked(self, *words: str, server: str = RELAY) -> str:
        """What it says when all is well."""
        code, said = self.told(*words, server=server)
        assert code == 0, said
        return said
