"""A node with a real agent process: namespace, kernel objects, REST socket, CNI plugin.

The API server is the fake that passes the conformance suite of the port; it lives in the root
namespace, and a forwarder listens for the agent inside the node's namespace.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from datapath import inspect, namespaces, pins
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore
from model.address import parse_address, parse_prefix
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, Protocol, ServiceName, SharedService
from reconcile.tasks import TaskGroup
from tests.support.etcd import Etcd, plain_etcd, when_up
from tests.support.fake_kube import FakeKube
from tests.support.kube import write_kubeconfig
from tests.support.nodes import Process, netns_path, new_namespace, sh
from wire.etcd import cluster_config_v1, identity_v1, ip_v1, keys, node_v1, service_v1
from wire.k8s.pod import identity_labels

ROOT = Path(__file__).parents[2]
TRAFFIC = Path(__file__).with_name("traffic.py")
PLUGIN = ROOT / "cni" / "build" / "cilium-cni"
NODE_IP = "172.31.9.1"
POD_CIDR = "10.203.1.0/24"
READY_S = 60.0


async def until(
    claim: Callable[[], Any], what: str, timeout_s: float = 40.0, every_s: float = 0.02
) -> Any:
    """Poll a claim about something that tells no changes; its first true value."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = claim()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(every_s)


def put(fake: FakeKube, resource: str, body: dict[str, Any]) -> dict[str, Any]:
    """Create or replace an object of the fake API server, as a controller or a person does."""
    meta = body["metadata"]
    namespace = meta.get("namespace", "")
    key = (resource, namespace, meta["name"])
    known = fake.objects.get(key)
    if known is None:
        return fake._create(resource, namespace, body)
    return fake._replace(key, known, body, "")


def selectable(node: "AgentNode") -> set[str]:
    """Backends that the kernel gives new connections."""
    lines = inspect.services(node.bpf_root / "isthmus")
    return {str(b.address) for line in lines for b in line.backends if b.selectable}


def drop(fake: FakeKube, resource: str, namespace: str, name: str) -> None:
    """Delete an object of the fake API server."""
    key = (resource, namespace, name)
    fake._delete(key, fake.objects[key], {})


class Forwarder:
    """Listens inside a namespace, on loopback if not told otherwise, and connects outside of it."""

    def __init__(self, namespace: str, target_port: int, host: str = "127.0.0.1") -> None:
        self._namespace, self._target, self._host = namespace, target_port, host
        self.port = 0
        self.open = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> "Forwarder":
        def listen() -> socket.socket:
            made = socket.socket()
            made.bind((self._host, 0))
            made.listen(64)
            made.setblocking(False)
            return made

        sock = namespaces.run_inside(netns_path(self._namespace), listen)
        self.port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=sock)
        return self

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        async with TaskGroup() as tasks:
            tasks.create_task(self._pump(reader, far_writer))
            tasks.create_task(self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@dataclass
class TestPod:
    """A pod as the API server and the runtime know it."""

    __test__ = False

    name: str
    namespace: str  # of the network
    container: str
    uid: str
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.result["ips"][0]["address"]).split("/")[0]

    def sh(self, command: str) -> str:
        return sh(f"ip netns exec {self.namespace} {command}")

    def serve(self) -> Process:
        """A TCP server that ends with its `kill`."""
        return traffic(self.namespace, "serve-tcp", self.address, 8080, self.name).ready()


def traffic(namespace: str, *arguments: object, patience_s: float = 6.0) -> Process:
    """Start a traffic program in a namespace; a client waits for ``patience_s``."""
    command = ["ip", "netns", "exec", namespace, sys.executable, str(TRAFFIC)]
    return Process(
        subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TRAFFIC_PATIENCE_S": str(patience_s)},
        )
    )


class CniFailure(Exception):
    def __init__(self, code: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.code, self.body = code, body


class AgentNode:
    """One node. ``start`` and ``kill`` as often as a test likes."""

    def __init__(self, directory: Path, namespace: str, fake: FakeKube, kubeconfig: str) -> None:
        self.directory, self.namespace, self.fake = directory, namespace, fake
        self.kubeconfig = kubeconfig
        self.state = directory / "run"
        self.mesh = directory / "clustermesh"
        self.conflist = directory / "net.d" / "05-cilium.conflist"
        self.bpf_root = Path(f"/sys/fs/bpf/{namespace}")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "agent.log"
        self.flags: dict[str, str] = {}
        self.forwarder: Forwarder | None = None

    @property
    def socket(self) -> Path:
        return self.state / "cilium.sock"

    async def cut_off(self) -> None:
        """Take the API server away."""
        assert self.forwarder is not None
        self.forwarder.open = False
        self.forwarder.cut()

    async def reconnect(self) -> None:
        """Give it back, and wait until every watch stands again."""
        assert self.forwarder is not None
        self.forwarder.open = True

        async def claim() -> bool:
            return bool((await self.get("healthz"))["kubernetes"]["state"] == "Ok")

        await until(claim, "the watches stand")

    def _arguments(self) -> dict[str, str]:
        return {
            "cluster-name": "alpha",
            "cluster-id": "1",
            "k8s-kubeconfig-path": self.kubeconfig,
            "k8s-node-name": "n1",
            "state-dir": str(self.state),
            "bpf-root": str(self.bpf_root),
            "clustermesh-config": str(self.mesh),
            "write-cni-conf-when-ready": str(self.conflist),
            "cni-bin-dir": str(self.directory / "bin"),
            "agent-health-port": "0",
            **self.flags,
        }

    def start(self) -> None:
        arguments = [f"--{key}={value}" for key, value in self._arguments().items()]
        command = ["nsenter", f"--net={netns_path(self.namespace)}", sys.executable, "-m", "agent"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=40)
        self.process = None
        return code

    async def ready(self) -> dict[str, Any]:
        async def claim() -> Any:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                status = await self.get("healthz")
            except (aiohttp.ClientError, OSError):
                return None
            return status if status["cilium"]["state"] == "Ok" else None

        try:
            return await until(claim, "the agent is ready", READY_S)  # type: ignore[no-any-return]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-3000:]}") from error

    async def get(self, path: str) -> Any:
        return await self._ask("GET", path)

    async def change(self, path: str) -> Any:
        return await self._ask("PUT", path)

    async def _ask(self, method: str, path: str) -> Any:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://agent/v1/{path}") as response,
        ):
            assert response.status < 500, f"{method} {path}:\n{self.log.read_text()[-5000:]}"
            return await response.json()

    def pod(
        self,
        name: str,
        labels: dict[str, str] | None = None,
        ports: tuple[dict[str, Any], ...] = (),
    ) -> TestPod:
        """The API server's object, and an empty namespace, as a kubelet has before ADD."""
        made = put(
            self.fake,
            "pods",
            {
                "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
                "spec": {
                    "nodeName": "n1",
                    "serviceAccountName": "default",
                    "containers": [{"name": "main", "ports": list(ports)}],
                },
                "status": {},
            },
        )
        container = f"container-{name}-{os.getpid()}-{time.monotonic_ns()}"
        return TestPod(name, new_namespace(name), container, made["metadata"]["uid"])

    def environment(self, command: str, pod: TestPod) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.container,
            "CNI_NETNS": netns_path(pod.namespace),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.directory / "bin"),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name};"
            f"K8S_POD_UID={pod.uid}",
        }

    def config(self, version: str = "1.0.0") -> dict[str, Any]:
        return {
            "cniVersion": version,
            "name": "cilium",
            "type": "cilium-cni",
            "agent-socket": str(self.socket),
            "state-dir": str(self.state),
        }

    async def cni(self, command: str, pod: TestPod, version: str = "1.0.0") -> dict[str, Any]:
        """Execute the plugin as a runtime does."""
        process = await asyncio.create_subprocess_exec(
            PLUGIN,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(command, pod),
        )
        out, err = await process.communicate(json.dumps(self.config(version)).encode())
        body = json.loads(out) if out.strip() else {}
        if process.returncode:
            raise CniFailure(process.returncode, body)
        assert not err
        return body

    def reaches(self, pod: TestPod) -> bool:
        """Whether a TCP connection from the node to a pod is answered by that pod."""
        server = pod.serve()
        try:
            seen = traffic(self.namespace, "tcp", pod.address, 8080).finish()
        finally:
            server.kill()
        return bool(seen["names"] == {pod.name: 1})

    async def add(self, pod: TestPod, version: str = "1.0.0") -> TestPod:
        pod.result = await self.cni("ADD", pod, version)
        return pod


N = TypeVar("N", bound=AgentNode)


@asynccontextmanager
async def agent_node(
    directory: Path,
    address: str = NODE_IP,
    pod_cidr: str = POD_CIDR,
    made_by: type[N] = AgentNode,  # type: ignore[assignment]
) -> AsyncIterator[N]:
    """A node whose agent is not started yet; all is gone afterwards."""
    async with AsyncExitStack() as stack:
        namespace = new_namespace("agent")
        before = set(_test_namespaces())
        stack.callback(_remove_namespaces, before - {namespace})
        sh(
            f"ip netns exec {namespace} bash -ec 'ip link set lo up;"
            f" ip link add under0 type veth peer name wire0;"
            f" ip link set under0 up; ip link set wire0 up;"
            f" ip addr add {address}/24 dev under0'"
        )
        fake = await stack.enter_async_context(FakeKube().serve())
        forwarder = await Forwarder(namespace, int(fake.url.rsplit(":", 1)[1])).start()
        stack.push_async_callback(forwarder.stop)
        user = {"token": "secret-token"}
        server = f"http://127.0.0.1:{forwarder.port}"
        kubeconfig = write_kubeconfig(directory / "kubeconfig", server, user, {})
        node = made_by(directory, namespace, fake, kubeconfig)
        node.forwarder = forwarder
        node.mesh.mkdir()
        node.bpf_root.mkdir()
        stack.callback(_remove_pins, node.bpf_root)
        _first_objects(fake, address, pod_cidr)

        def end() -> None:
            if node.process is not None:
                node.process.kill()
                node.process.wait()

        stack.callback(end)
        yield node


def _first_objects(fake: FakeKube, address: str, pod_cidr: str) -> None:
    put(fake, "namespaces", {"metadata": {"name": "default", "labels": {}}})
    put(
        fake,
        "nodes",
        {
            "metadata": {"name": "n1", "uid": "uid-n1", "labels": {"zone": "a"}},
            "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        },
    )


def _remove_pins(root: Path) -> None:
    for path in root.iterdir():
        pins.remove_tree(path)
    root.rmdir()


def _test_namespaces() -> list[str]:
    mark = f"ist-t-{os.getpid()}-"
    names = [line.split()[0] for line in sh("ip netns list").splitlines() if line]
    return [name for name in names if name.startswith(mark)]


def _remove_namespaces(keep: set[str]) -> None:
    for name in _test_namespaces():
        if name not in keep:
            sh(f"ip netns del {name}")


def service(name: str, address: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """A ClusterIP service with one port."""
    return {
        "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    }


def endpoint_slice(service_name: str, *addresses: str, ready: bool = True) -> dict[str, Any]:
    """The slice of a service."""
    return {
        "metadata": {
            "name": f"{service_name}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [a], "conditions": {"ready": ready}} for a in addresses],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


class RemoteCluster:
    """Another cluster's store: a real etcd, written as its publisher would write it."""

    def __init__(self, node: AgentNode, etcd: Etcd, name: str = "beta", number: int = 2) -> None:
        self.node, self.etcd, self.name, self.number = node, etcd, ClusterName(name), number
        self.cluster_id = ClusterId(number)
        self.store: EtcdStore | None = None
        self._forwarder: Forwarder | None = None

    async def open(self) -> "RemoteCluster":
        self.store = await when_up(StoreConfig((self.etcd.url,)))
        self._forwarder = await Forwarder(self.node.namespace, self.etcd.port).start()
        capabilities = Capabilities(synced_canaries=True)
        config = ClusterConfig(self.cluster_id, capabilities)
        await self.put(keys.cluster_config(self.name), cluster_config_v1.encode(config))
        await self.put(keys.HEARTBEAT, b"2026-01-01T00:00:00Z")
        for resource in keys.REQUIRED:
            await self.put(keys.canary(self.name, resource), b"2026-01-01T00:00:00Z")
        return self

    async def close(self) -> None:
        if self.store:
            await self.store.close()
        if self._forwarder:
            await self._forwarder.stop()

    async def put(self, key: str, value: bytes) -> None:
        assert self.store is not None
        await self.store.put(key, value)

    async def delete(self, key: str) -> None:
        assert self.store is not None
        await self.store.delete(key)

    def connect(self) -> None:
        """The file that a mounted secret has."""
        assert self._forwarder is not None
        text = f"endpoints:\n- http://127.0.0.1:{self._forwarder.port}\n"
        (self.node.mesh / self.name).write_text(text)

    def disconnect(self) -> None:
        (self.node.mesh / self.name).unlink()

    async def add_node(self, name: str, ip: str, *cidrs: str) -> None:
        node = Node(
            cluster=self.name,
            name=NodeName(name),
            cluster_id=self.cluster_id,
            addresses=(NodeAddress(INTERNAL_IP, parse_address(ip)),),
            pod_cidrs=tuple(map(parse_prefix, cidrs)),
        )
        await self.put(keys.node(self.name, name), node_v1.encode(node))

    async def add_pod(self, address: str, node_ip: str, identity: int | None = None) -> None:
        """A pod whose identity the cluster has told; ``identity``: one it has not, yet."""
        number = identity if identity is not None else (self.number << 16) + 300
        if identity is None:
            await self.add_identity(number)
        entry = EndpointAddress(parse_address(node_ip), NumericIdentity(number), pod=address)
        await self.put(keys.ip(parse_address(address)), ip_v1.encode(parse_address(address), entry))

    async def add_identity(self, number: int, **pod_labels: str) -> None:
        labels = identity_labels(pod_labels, "default", {}, "default", self.name)
        await self.put(keys.identity(number), identity_v1.encode(labels))

    async def remove_pod(self, address: str) -> None:
        await self.delete(keys.ip(parse_address(address)))

    async def share(self, name: str, *addresses: str, shared: bool = True) -> None:
        service_name = ServiceName("default", name)
        service_ = SharedService(
            cluster=self.name,
            cluster_id=self.cluster_id,
            name=service_name,
            frontends={parse_address("10.214.0.10"): {"http": L4(80, Protocol.TCP)}},
            backends={parse_address(a): {"http": L4(8080, Protocol.TCP)} for a in addresses},
            shared=shared,
        )
        await self.put(keys.service(self.name, service_name), service_v1.encode(service_))

    async def unshare(self, name: str) -> None:
        await self.delete(keys.service(self.name, ServiceName("default", name)))


@asynccontextmanager
async def remote_cluster(node: AgentNode, **names: Any) -> AsyncIterator[RemoteCluster]:
    """A remote cluster that the node is not connected to yet."""
    with plain_etcd() as etcd:
        cluster = await RemoteCluster(node, etcd, **names).open()
        try:
            yield cluster
        finally:
            await cluster.close()
