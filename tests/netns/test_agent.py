"""The agent as a process: a real plugin, real devices and maps, an API server over HTTP."""

import json
import signal
from typing import Any

import pytest

from tests.support.agent import (
    NODE_IP,
    AgentNode,
    CniFailure,
    TestPod,
    drop,
    endpoint_slice,
    put,
    service,
    until,
)

pytestmark = pytest.mark.root


async def test_add_makes_a_pod_that_the_node_reaches(node: AgentNode) -> None:
    """ADD gives address, route and identity; the object for others follows; DEL takes all away."""
    node.start()
    await node.ready()
    assert json.loads(node.conflist.read_text())["plugins"][0]["type"] == "cilium-cni"
    pod = await node.add(node.pod("web", {"app": "web", "pod-template-hash": "x"}))

    assert pod.sh("ip -4 -o addr show eth0").split()[3] == f"{pod.address}/32"
    assert node.reaches(pod)
    (endpoint,) = await node.get("endpoint")
    labels = endpoint["status"]["identity"]["labels"]
    assert "k8s:app=web" in labels
    assert not [text for text in labels if "pod-template-hash" in text]
    number = endpoint["status"]["identity"]["id"]
    assert 65536 + 256 <= number < 131072, "an identity is of its cluster's range"
    key = ("ciliumendpoints", "default", "web")
    made = await until(lambda: node.fake.objects.get(key), "its CiliumEndpoint")
    assert made["status"]["identity"]["id"] == number
    assert made["status"]["networking"] == {"addressing": [{"ipv4": pod.address}], "node": NODE_IP}
    assert made["metadata"]["ownerReferences"][0]["uid"] == pod.uid

    assert await node.cni("DEL", pod) == {}
    assert await node.get("endpoint") == []
    await until(lambda: key not in node.fake.objects, "its CiliumEndpoint goes")
    assert "eth0" not in pod.sh("ip -o link")


async def test_every_version_gets_the_result_it_knows(node: AgentNode) -> None:
    """Results before 1.0.0 name the family of each address; later ones must not."""
    node.start()
    await node.ready()
    old = await node.add(node.pod("old"), "0.3.1")
    new = await node.add(node.pod("new"), "1.0.0")
    assert old.result["ips"][0]["version"] == "4"
    assert "version" not in new.result["ips"][0]
    assert [r["cniVersion"] for r in (old.result, new.result)] == ["0.3.1", "1.0.0"]
    with pytest.raises(CniFailure) as refused:
        await node.cni("ADD", node.pod("odd"), "9.9.9")
    assert refused.value.body["code"] == 1


async def test_add_can_be_repeated(node: AgentNode) -> None:
    """The same ADD twice is one endpoint; DEL of nothing is no error; CHECK tells them apart."""
    node.start()
    await node.ready()
    pod = node.pod("web")
    assert await node.cni("DEL", pod) == {}
    with pytest.raises(CniFailure) as missing:
        await node.cni("CHECK", pod)
    assert missing.value.body["code"] == 101
    first = (await node.add(pod)).result
    assert (await node.add(pod)).result == first
    assert len(await node.get("endpoint")) == 1
    assert await node.cni("CHECK", pod) == {}
    assert await node.cni("STATUS", pod) == {}


async def test_restart_loses_nothing(node: AgentNode) -> None:
    """After kill -9 and a new start a pod has the same number, address, identity and devices."""
    node.start()
    await node.ready()
    pod = await node.add(node.pod("web", {"app": "web"}))
    before = await node.get("endpoint")
    identities = {k for k in node.fake.objects if k[0] == "ciliumidentities"}
    node.kill()
    assert node.reaches(pod), "packets need no agent"
    node.start()
    await node.ready()
    assert await node.get("endpoint") == before
    assert {k for k in node.fake.objects if k[0] == "ciliumidentities"} == identities
    assert node.reaches(pod)
    ipam = await node.get("ipam")
    assert ipam["allocations"][pod.address] == "default/web"
    other = await node.add(node.pod("other"))
    assert other.address != pod.address


async def test_deletions_without_agent_wait_for_it(node: AgentNode) -> None:
    """DEL succeeds while no agent runs and is carried out before the next one serves."""
    node.start()
    await node.ready()
    pod = await node.add(node.pod("web"))
    for word in (signal.SIGTERM, signal.SIGKILL):
        node.kill(word)
        assert await node.cni("DEL", pod) == {}
        assert len(list((node.state / "deleteQueue").glob("*.delete"))) == 1
        with pytest.raises(CniFailure) as down:
            await node.cni("CHECK", pod)
        assert down.value.body["code"] == 11
        with pytest.raises(CniFailure) as status:
            await node.cni("STATUS", pod)
        assert status.value.body["code"] == 50
        node.start()
        await node.ready()
        assert await node.get("endpoint") == []
        assert not list((node.state / "deleteQueue").glob("*.delete"))
        pod = await node.add(node.pod("web2" if word is signal.SIGTERM else "web3"))


async def test_the_queue_has_an_end(node: AgentNode) -> None:
    """256 deletions wait; one more is refused with the remedy, and nothing is lost."""
    queue = node.state / "deleteQueue"
    queue.mkdir(parents=True)
    for number in range(256):
        (queue / f"{number:016x}.delete").write_text(json.dumps({"container-id": f"c{number}"}))
    with pytest.raises(CniFailure) as full:
        await node.cni("DEL", node.pod("web"))
    assert "start the agent" in full.value.body["msg"]
    (queue / "0000000000000000.delete").write_text("{not json")
    node.start()
    await node.ready()
    assert not list(queue.glob("*.delete"))


async def test_kill_in_the_middle_of_add_leaves_nothing(node: AgentNode) -> None:
    """Whatever an agent had done when it died, ADD again works and DEL leaves no device."""
    node.start()
    await node.ready()
    pods = [node.pod(f"p{number}") for number in range(6)]
    for number, pod in enumerate(pods):
        process = await _begin_add(node, pod)
        # Each round dies a little later, so that different steps are cut.
        await until(lambda: True, "moment", every_s=0.001)
        if number:
            await _wait_for_some(node, pod, number)
        node.kill()
        await process.wait()
        node.start()
        await node.ready()
        assert (await node.add(pod)).address
        assert node.reaches(pod)
    assert len(await node.get("endpoint")) == len(pods)
    for pod in pods:
        await node.cni("DEL", pod)
    assert await node.get("endpoint") == []
    links = _links(node)
    assert not [name for name in links if name.startswith("lxc")], links
    assert not [d for d in (node.state / "state").iterdir() if d.name.isdigit()]
    assert (await node.get("ipam"))["status"].startswith("IPv4: 1/254")


def _links(node: AgentNode) -> list[str]:
    from tests.support.nodes import sh

    rows = json.loads(sh(f"ip netns exec {node.namespace} ip -j link"))
    return [row["ifname"] for row in rows]


async def _begin_add(node: AgentNode, pod: Any) -> Any:
    import asyncio

    from tests.support.agent import PLUGIN

    process = await asyncio.create_subprocess_exec(
        PLUGIN,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env=node.environment("ADD", pod),
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(node.config()).encode())
    process.stdin.close()
    return process


async def _wait_for_some(node: AgentNode, pod: Any, number: int) -> None:
    """A step of ADD that can be seen from outside: the device, then the file."""
    if number % 2:
        await until(lambda: "eth0" in pod.sh("ip -o link"), "the device", every_s=0.001)
    else:
        count = number
        await until(
            lambda: len([d for d in (node.state / "state").iterdir() if d.name.isdigit()]) > count,
            "the file",
            every_s=0.001,
        )


async def test_a_failed_add_takes_nothing(node: AgentNode) -> None:
    """No namespace, or no API server for a new identity: one sentence that names the pod, and the
    address, the device and the file are given back."""
    node.start()
    await node.ready()
    pod = node.pod("web", {"app": "web"})
    with pytest.raises(CniFailure) as wrong:
        await node.cni("ADD", TestPod("web", "ist-t-nowhere", pod.container, pod.uid))
    assert "default/web" in wrong.value.body["msg"]
    assert "ist-t-nowhere" in wrong.value.body["msg"]
    pod = node.pod("db", {"app": "db"})
    await node.cut_off()
    with pytest.raises(CniFailure) as cut:
        await node.add(pod)
    assert "default/db" in cut.value.body["msg"]
    assert "cannot" in cut.value.body["msg"]
    assert (await node.get("ipam"))["status"].startswith("IPv4: 1/254")
    assert not [name for name in _links(node) if name.startswith("lxc")]
    assert not [d for d in (node.state / "state").iterdir() if d.name.isdigit()]
    await node.reconnect()
    assert node.reaches(await node.add(pod))


async def test_labels_decide_the_identity(node: AgentNode) -> None:
    """A changed label gives another identity; the old labels give the old one again."""
    node.start()
    await node.ready()
    await node.add(node.pod("web", {"app": "web"}))
    first = (await node.get("endpoint"))[0]["status"]["identity"]["id"]
    pod = node.fake.objects["pods", "default", "web"]

    def relabel(labels: dict[str, str]) -> None:
        put(node.fake, "pods", {**pod, "metadata": {**pod["metadata"], "labels": labels}})

    async def identity_is_not(number: int) -> Any:
        found = (await node.get("endpoint"))[0]["status"]["identity"]["id"]
        return found if found != number else None

    relabel({"app": "db"})
    second = await until(lambda: identity_is_not(first), "another identity")
    key = ("ciliumendpoints", "default", "web")
    await until(
        lambda: node.fake.objects[key]["status"]["identity"]["id"] == second, "the object follows"
    )
    relabel({"app": "web"})
    assert await until(lambda: identity_is_not(second), "the first identity") == first
    assert len([k for k in node.fake.objects if k[0] == "ciliumidentities"]) == 2


async def test_services_come_and_go(node: AgentNode) -> None:
    """A service is in the table with its ready backends; a bad one is shown and harms no other."""
    node.start()
    await node.ready()
    put(node.fake, "services", service("web", "10.204.0.10"))
    put(node.fake, "endpointslices", endpoint_slice("web", "10.203.1.77"))
    put(
        node.fake,
        "services",
        service("odd", "10.204.0.11", {"service.cilium.io/global": "perhaps"}),
    )

    async def backends() -> Any:
        rows = await node.get("service")
        found = {r["spec"]["flags"]["name"]: r["spec"]["backend-addresses"] for r in rows}
        return found if found.get("web") and "odd" in found else None

    found = await until(backends, "the service")
    assert [b["ip"] for b in found["web"]] == ["10.203.1.77"]
    status = await node.get("healthz")
    assert status["cilium"]["state"] == "Ok"
    assert status["rejected"]["count"] == 1
    assert "Service default/odd" in status["rejected"]["problems"][0]
    drop(node.fake, "services", "default", "web")

    async def gone() -> bool:
        rows = await node.get("service")
        return all(r["spec"]["flags"]["name"] != "web" for r in rows)

    await until(gone, "the service goes")


async def test_what_cannot_be_done_is_said(node: AgentNode) -> None:
    """A wrong setting ends the agent with one sentence that names the key."""
    node.flags = {"cluster-id": "300"}
    node.start()
    assert node.process is not None
    assert node.process.wait(timeout=60) == 1
    assert "cluster-id" in node.log.read_text()
    assert "Traceback" not in node.log.read_text()
