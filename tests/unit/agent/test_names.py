"""What an agent tells its node's Hubble about rules."""

from typing import Any

from agent.mesh_state import MeshState
from agent.names import Names
from agent.node import Self
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import Node, NodeName
from model.service import Selection
from policy.known import Options
from policy.objects.read import Kind, Source, read
from policy.objects.settings import Settings
from policy.table import PolicyTable
from wire import names as wire


async def rules_told(*sources: Source) -> list[wire.RuleLine]:
    """Those of the first answer to somebody who asks."""
    table = PolicyTable(Options())
    for source in sources:
        table.put_object(source.name, read(source, Settings()).rules)
    address, prefix = parse_address("192.0.2.1"), parse_prefix("10.1.1.0/24")
    node = Node(ClusterName("alpha"), NodeName("me"), ClusterId(1))
    me = Self(node, "uid", address, prefix, address)
    mesh = MeshState(ClusterName("alpha"), NodeName("me"), Selection.RANDOM)
    endpoints: Any = ()
    names = Names(me, mesh, endpoints, table, lambda namespace, pod: None)
    names.ready.set()
    found: list[wire.Line] = []
    stream = names.stream()
    async for chunk in stream:
        found += wire.decode(chunk)
        if any(isinstance(line, wire.Synced) for line in found):
            break
    await stream.aclose()
    return [line for line in found if isinstance(line, wire.RuleLine)]


async def test_labels_of_a_rule_are_told_once() -> None:
    """Its own, and where it comes from; a clusterwide one is in no namespace."""
    spec = {"endpointSelector": {}, "ingress": [{}], "labels": [{"key": "team"}]}
    own = "k8s:io.cilium.k8s.policy"
    for source, place in (
        (Source(Kind.CILIUM, "shop", "p", spec, uid="u"), (f"{own}.namespace=shop",)),
        (Source(Kind.CLUSTERWIDE, "", "p", spec, uid="u"), ()),
    ):
        (line,) = await rules_told(source)
        assert line.labels == (
            "unspec:team",
            f"{own}.derived-from={source.kind.value}",
            f"{own}.name=p",
            *place,
            f"{own}.uid=u",
        )
