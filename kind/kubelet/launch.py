"""From a container of a pod to what the runtime is told to start. Adapter: makes directories."""

import os
import sys
from pathlib import Path
from typing import Any

from kind.images import table
from kind.kubelet import podspec, volumes
from kind.kubelet.config import Config
from kind.kubelet.podspec import Facts, Sources, SpecError
from kind.kubelet.sandbox import Sandbox
from kind.runtime import namespaces
from kind.runtime.namespaces import Bind
from kind.runtime.records import CONTAINER, ENVIRONMENT, Launch

Json = dict[str, Any]

CHECKOUT = str(Path(__file__).resolve().parents[2])
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Our own programs are found first: the environment of the interpreter that runs the lab.
SEARCH_PATH = f"{os.path.dirname(sys.executable)}:{SYSTEM_PATH}"


class UnknownImage(SpecError):
    """The lab has nothing to run for the image."""


def pod_directory(config: Config, uid: str) -> Path:
    """Where a pod's files are."""
    return config.pods / uid


def volume_directory(config: Config, uid: str, name: str) -> Path:
    """Where a volume of a pod is."""
    return pod_directory(config, uid) / "volumes" / name


def container_id(uid: str, name: str, attempt: int) -> str:
    """The runtime's id for a run of a container."""
    return f"{uid}.{name}.{attempt}"


def log_directory(config: Config, pod: Json) -> Path:
    """Where the output of a pod's containers is."""
    metadata = pod["metadata"]
    return config.logs / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"


def log_path(config: Config, pod: Json, container: str, attempt: int) -> Path:
    """The output of one run of a container."""
    return log_directory(config, pod) / container / f"{attempt}.log"


def facts_of(config: Config, pod: Json, sandbox: Sandbox | None) -> Facts:
    """What the pod may ask. An ordinary pod reaches the API through its service's address."""
    host = config.api_service_address
    port = 443
    if pod["spec"].get("hostNetwork"):
        # Our own agent is such a pod: it must reach the API before there are any services.
        host, port = config.api_url.removeprefix("https://").split(":")[0], 6443
    return Facts(
        node_name=config.node,
        host_ips=config.node_ips,
        pod_ips=sandbox.pod_ips if sandbox else [],
        api_host=host,
        api_port=port,
    )


def write_volumes(
    config: Config, pod: Json, facts: Facts, sources: Sources, token: str, version: int
) -> None:
    """Make a pod's volumes, and bring those made of API objects up to date."""
    uid = pod["metadata"]["uid"]
    for volume in pod["spec"].get("volumes") or []:
        directory = volume_directory(config, uid, volume["name"])
        files = podspec.volume_files(volume, pod, facts, sources, token)
        if files is not None:
            volumes.write_files(directory, files, version)
        elif "emptyDir" in volume:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o777)
        elif "hostPath" not in volume:
            kinds = sorted(set(volume) - {"name"})
            raise SpecError(f"volume {volume['name']}: the lab has no volumes of kind {kinds}")


def _binds(config: Config, pod: Json, container: Json) -> list[Bind]:
    known = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    uid = pod["metadata"]["uid"]
    result = []
    for mount in container.get("volumeMounts") or []:
        volume = known.get(mount["name"])
        if volume is None:
            raise SpecError(f"container {container['name']} mounts no volume {mount['name']!r}")
        if "hostPath" in volume:
            source = volumes.host_path(config.root, volume)
        else:
            source = str(volume_directory(config, uid, mount["name"]))
        if mount.get("subPath"):
            source = namespaces.resolve_in(source, mount["subPath"])
            if not os.path.exists(source):
                os.makedirs(source)
        propagated = mount.get("mountPropagation") in ("HostToContainer", "Bidirectional")
        result.append(
            Bind(
                source=source,
                target=mount["mountPath"].rstrip("/") or "/",
                read_only=bool(mount.get("readOnly")),
                propagation="slave" if propagated else "",
            )
        )
    return result


def container_launch(
    config: Config, pod: Json, container: Json, attempt: int, sandbox: Sandbox, sources: Sources
) -> Launch:
    """What to start for a run of a container. Raises SpecError."""
    uid, name = pod["metadata"]["uid"], container["name"]
    facts = facts_of(config, pod, sandbox)
    image = container.get("image", "")
    entry = table.entry_point(image, bool(container.get("command")), sys.executable, CHECKOUT)
    if entry is None:
        raise UnknownImage(table.unknown_message(image))
    hostname = podspec.hostname(pod, config.node)
    env = ENVIRONMENT | {"PATH": SEARCH_PATH, "HOSTNAME": hostname}
    env |= podspec.environment(pod, container, facts, sources)
    argv = podspec.argv(container, *entry, env)
    if not argv:
        raise UnknownImage(table.unknown_message(image))
    return Launch(
        id=container_id(uid, name, attempt),
        argv=argv,
        env=env,
        cgroup=f"{config.cgroup}/{uid}/{name}.{attempt}",
        log=str(log_path(config, pod, name, attempt)),
        view=CONTAINER,
        netns=sandbox.netns,
        cwd=container.get("workingDir") or "/",
        hostname=hostname,
        binds=_binds(config, pod, container),
        files={
            "/etc/hosts": podspec.hosts_file(pod, hostname, sandbox.pod_ips),
            "/etc/resolv.conf": podspec.resolv_conf(pod, config.dns_address, config.cluster_domain),
            "/etc/hostname": hostname + "\n",
        },
    )


def exec_launch(
    config: Config, pod: Json, container: Json, attempt: int, argv: list[str], env: dict[str, str]
) -> Launch:
    """A further command in a running container."""
    uid, name = pod["metadata"]["uid"], container["name"]
    return Launch(
        id=f"exec-{uid}",
        argv=argv,
        env=env,
        cgroup=f"{config.cgroup}/{uid}/{name}.{attempt}",
        log="",
        cwd=container.get("workingDir") or "/",
    )
