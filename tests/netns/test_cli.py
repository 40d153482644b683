"""The command against a real agent, with real pods and maps behind it."""

import asyncio
import json
import os
import sys

import pytest

from tests.support.agent import (
    NODE_IP,
    AgentNode,
    endpoint_slice,
    put,
    service,
    traffic,
    until,
)
from tests.support.cli import Result

pytestmark = pytest.mark.root


async def isthmus(node: AgentNode, *arguments: object) -> Result:
    """Execute the command as in the agent's container."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main"),
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CILIUM_SOCK": str(node.socket)},
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def test_what_the_agent_and_the_kernel_say(node: AgentNode) -> None:
    """Every list shows the pod and its service, from the agent and from the maps; the maps stay."""
    starting = await isthmus(node, "status", "-o", "json")
    assert (starting.code, starting.out) == (1, "")
    node.start()
    waited = await isthmus(node, "status", "--brief", "--wait", "--wait-duration", "60s")
    assert (waited.code, waited.out) == (0, "OK\n")
    pod = await node.add(node.pod("web", {"app": "web"}))
    put(node.fake, "services", service("web", "10.96.0.77"))
    put(node.fake, "endpointslices", endpoint_slice("web", pod.address))

    async def listed_there() -> bool:
        return pod.address in (await isthmus(node, "service", "list")).out

    await until(listed_there, "the service is listed", 60, 0.2)

    status = await isthmus(node, "status", "-o", "json")
    assert status.code == 0
    assert status.json["cilium"]["state"] == "Ok"
    text = (await isthmus(node, "status", "--verbose")).out
    assert f"{pod.address} (" in text
    assert "remote clusters ready" in text

    (endpoint,) = (await isthmus(node, "endpoint", "list", "-o", "json")).json
    number = endpoint["status"]["identity"]["id"]
    row = (await isthmus(node, "endpoint", "list", "--no-headers")).out.splitlines()[0].split()
    assert (row[0], row[-1]) == (str(endpoint["id"]), "ready")
    assert pod.address in row
    for name in (endpoint["id"], "pod-name:default/web", f"ipv4:{pod.address}"):
        assert (await isthmus(node, "endpoint", "get", name)).json[0]["id"] == endpoint["id"]
    assert (await isthmus(node, "endpoint", "health", endpoint["id"])).code == 0
    missing = await isthmus(node, "endpoint", "get", 64999)
    assert (missing.code, missing.err) == (
        1,
        "Error: GET /v1/endpoint/64999: endpoint 64999 not found\n",
    )
    assert "k8s:app=web" in (await isthmus(node, "identity", "get", number)).out
    assert f"{number} " in (await isthmus(node, "identity", "list", "--endpoints")).out
    assert "k8s:app=web" in (await isthmus(node, "ip", "get", pod.address)).out
    (entry,) = (await isthmus(node, "ip", "get", f"{pod.address}/32", "-o", "json")).json
    assert (entry["cidr"], entry["identity"]) == (f"{pod.address}/32", number)
    assert f"alpha/n1   {NODE_IP}" in (await isthmus(node, "node", "list")).out
    listed = (await isthmus(node, "service", "list")).out
    assert "10.96.0.77:80/TCP" in listed
    assert f"1 => {pod.address}:8080/TCP (active)" in listed

    server = pod.serve()
    traffic(node.namespace, "tcp", pod.address, 8080).finish()
    server.kill()
    pins = ("--pin-dir", node.bpf_root / "isthmus")
    node.kill()  # the kernel is read without an agent
    ipcache = (await isthmus(node, "bpf", "ipcache", "list", "-o", "json", *pins)).json
    assert f"identity={number} " in ipcache[f"{pod.address}/32"][0]
    endpoints = (await isthmus(node, "bpf", "endpoint", "list", *pins)).out
    assert f"id={endpoint['id']} sec_id={number} " in endpoints
    assert "(localhost)" in endpoints
    balancers = (await isthmus(node, "bpf", "lb", "list", *pins)).out
    assert "10.96.0.77:80/TCP (0)" in balancers
    assert f"{pod.address}:8080/TCP" in balancers
    frontends = (await isthmus(node, "bpf", "lb", "list", "--frontends", *pins)).out
    assert "10.96.0.77:80/TCP (0)" in frontends
    assert pod.address not in frontends
    backends = (await isthmus(node, "bpf", "lb", "list", "--backends", "-o", "json", *pins)).json
    assert [f"{pod.address}:8080/TCP (active)"] in backends.values()
    reverse = (await isthmus(node, "bpf", "lb", "list", "--revnat", "-o", "json", *pins)).json
    assert ["10.96.0.77:80"] in reverse.values()
    flows = (await isthmus(node, "bpf", "ct", "list", "-o", "json", *pins)).json
    assert any(
        (f["destination"], f["destination-port"], f["direction"]) == (pod.address, 8080, "IN")
        for f in flows
    ), json.dumps(flows)
    assert (
        f"-> {pod.address}:8080 expires=" in (await isthmus(node, "bpf", "ct", "list", *pins)).out
    )
    counters = (await isthmus(node, "bpf", "metrics", "list", "-o", "json", *pins)).json
    assert sum(c["packets"] for c in counters if c["reason"] == 0) > 0
    assert "Forwarded" in (await isthmus(node, "bpf", "metrics", "list", *pins)).out


async def test_an_agent_that_was_killed(node: AgentNode) -> None:
    """The socket that a killed agent leaves is told in one line, with exit 1; so it is after."""
    node.start()
    await node.ready()
    node.kill()
    gone = await isthmus(node, "status", "-o", "json")
    assert (gone.code, gone.out) == (1, "")
    assert gone.err == (
        f"Error: the agent does not answer at {node.socket}: Connection refused; "
        "look at the log of the node's agent (container cilium-agent)\n"
    )
