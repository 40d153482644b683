"""A pod's network namespace and its connection through the CNI plugin. Adapter.

The plugins are executed as a container runtime does it (CNI specification 1.0, section 3): in the
node's network namespace and root file system, configuration on standard input, parameters in the
environment.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kind.kubelet.config import Config
from kind.runtime import namespaces
from kind.runtime.client import Client, RuntimeGone, capture, ensure
from kind.runtime.records import NODE, Launch

Json = dict[str, Any]

CONFIG_DIRECTORY = "/etc/cni/net.d"
PLUGIN_DIRECTORY = "/opt/cni/bin"
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


class SandboxError(OSError):
    """The pod's network could not be made; the text says which plugin said what."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's network; on disk, so that the next kubelet finds it."""

    netns: str  # path; the node's for a hostNetwork pod
    pod_ip: str  # empty: ADD was begun and did not end well
    host_network: bool
    container_id: str
    networks: list[Json]  # the configuration that ADD was made with, for DEL
    pod_ips: list[str] = field(default_factory=list)  # all of them, ``pod_ip`` first


def save(path: Path, sandbox: Sandbox) -> None:
    """Write a sandbox in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(sandbox)))
    os.replace(temporary, path)


def load(path: Path) -> Sandbox | None:
    """Read a sandbox; ``None`` when there is none."""
    try:
        return Sandbox(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def exists(sandbox: Sandbox) -> bool:
    """True while its network namespace is there."""
    return os.path.exists(sandbox.netns)


def network_configuration(node_root: str) -> Json | None:
    """The node's CNI configuration, the first by name; ``None`` while there is none."""
    directory = namespaces.resolve_in(node_root, CONFIG_DIRECTORY)
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return None
    for name in names:
        if not name.endswith((".conf", ".conflist", ".json")):
            continue
        try:
            raw: Json = json.loads(Path(directory, name).read_text())
        except (ValueError, OSError):
            continue  # half written; the next look sees it whole
        if "plugins" in raw:
            return raw
        if "type" in raw:
            return {
                "name": raw.get("name", ""),
                "cniVersion": raw.get("cniVersion"),
                "plugins": [raw],
            }
    return None


def make_netns(path: str) -> None:
    """Make a network namespace with a name and its loopback up; an existing one is kept."""
    if os.path.ismount(path):  # a plain file is what a crash left of one
        return

    def body() -> None:
        # A thread of its own: the new namespace is this thread's and ends with it, the name stays.
        namespaces.unshare(namespaces.CLONE_NEWNET)
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = struct.pack("16sh22x", b"lo", IFF_UP)
            fcntl.ioctl(sock, SIOCSIFFLAGS, request)
        Path(path).touch()
        try:
            namespaces.mount(own, path, flags=namespaces.MS_BIND)
        except OSError:
            Path(path).unlink(missing_ok=True)
            raise

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(body).result()


def remove_netns(path: str) -> None:
    """Remove a named network namespace; none is no error."""
    with contextlib.suppress(OSError):
        namespaces.unmount(path)
    Path(path).unlink(missing_ok=True)


class Network:
    """ADD and DEL for the pods of one node."""

    def __init__(self, config: Config, runtime: Client) -> None:
        self._config = config
        self._runtime = runtime

    def plan(self, pod: Json, container_id: str) -> Sandbox:
        """What ADD will work on, to be saved before it. Raises SandboxError: no configuration."""
        uid = pod["metadata"]["uid"].replace("-", "")
        netns = f"/run/netns/{self._config.pod_netns_prefix}{uid}"
        configuration = network_configuration(self._config.root)
        if configuration is None:
            raise SandboxError(
                f"network is not ready: no CNI configuration in {CONFIG_DIRECTORY} of the node"
            )
        return Sandbox(netns, "", False, container_id, _chain(configuration))

    async def add(self, pod: Json, planned: Sandbox) -> Sandbox:
        """Give a pod its network. Raises SandboxError; call ``delete`` before the next try."""
        await asyncio.to_thread(make_netns, planned.netns)
        result: Json = {}
        for network in planned.networks:
            request = network | ({"prevResult": result} if result else {})
            result = await self._plugin("ADD", request, planned.netns, planned.container_id, pod)
        addresses = [ip["address"].split("/")[0] for ip in result.get("ips") or ()]
        if not addresses:
            raise SandboxError("the CNI plugins gave the pod no address")
        return replace(planned, pod_ip=addresses[0], pod_ips=addresses)

    async def delete(self, pod: Json, sandbox: Sandbox) -> None:
        """Take a pod's network away. Raises SandboxError; repeat until it does not."""
        if sandbox.host_network:
            return
        for network in reversed(sandbox.networks):
            await self._plugin("DEL", network, sandbox.netns, sandbox.container_id, pod)
        await asyncio.to_thread(remove_netns, sandbox.netns)

    async def _plugin(
        self, command: str, network: Json, netns: str, container_id: str, pod: Json
    ) -> Json:
        metadata = pod["metadata"]
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata["namespace"],
            "K8S_POD_NAME": metadata["name"],
            "K8S_POD_INFRA_CONTAINER_ID": container_id,
            "K8S_POD_UID": metadata["uid"],
        }
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in arguments.items()),
            "CNI_PATH": PLUGIN_DIRECTORY,
        }
        launch = Launch(
            id=f"cni-{container_id}",
            argv=[f"{PLUGIN_DIRECTORY}/{network['type']}"],
            env=env,
            cgroup=f"{self._config.cgroup}/cni",
            log="",
            view=NODE,
            netns=self._config.netns,
        )
        request = json.dumps(network).encode()
        try:
            code, output = await asyncio.to_thread(capture, self._runtime, launch, "", request)
        except RuntimeGone:
            await asyncio.to_thread(ensure, str(self._config.directory))
            raise
        if code == 0:
            return _decoded(output) if output.strip() else {}
        error = _decoded(output)
        text = ": ".join(str(error[key]) for key in ("msg", "details") if error.get(key))
        shown = text or output.decode(errors="replace").strip()[-500:]
        raise SandboxError(f"CNI plugin {network['type']} {command} failed ({code}): {shown}")


def _decoded(output: bytes) -> Json:
    # A plugin may have written warnings to standard error before its result.
    start = output.find(b"{")
    try:
        result = json.loads(output[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}


def _chain(configuration: Json) -> list[Json]:
    common = {"name": configuration.get("name", ""), "cniVersion": configuration.get("cniVersion")}
    return [plugin | common for plugin in configuration["plugins"]]
