"""A pod object read into what the node must do: environment, command, volumes as files. Pure.

The rules are those of the Kubernetes API reference (Pod v1 core): ``$(NAME)`` expansion,
``fieldRef``, ``configMapKeyRef`` and ``secretKeyRef`` with ``optional``, ``items`` of volumes.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SERVICE_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TERMINATION_GRACE_S = 30

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")


class SpecError(ValueError):
    """The pod asks for something that is not there; the text names it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pod may ask about where it runs."""

    node_name: str
    host_ips: Sequence[str]  # one per family
    pod_ips: Sequence[str]  # none: it has no network yet
    api_host: str
    api_port: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Where ConfigMaps and Secrets come from: ``None`` when there is none of that name."""

    config_map: Callable[[str], Json | None]
    secret: Callable[[str], Json | None]


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by its value; unknown names stay as they are, ``$$`` gives ``$``."""

    def value(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return env.get(match.group(2), match.group(0))

    return _REFERENCE.sub(value, text)


def field_value(pod: Json, path: str, facts: Facts) -> str:
    """The value of a ``fieldRef``. Raises SpecError for a field that cannot be asked for."""
    metadata, spec = pod["metadata"], pod["spec"]
    plain = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": facts.host_ips[0],
        "status.hostIPs": ",".join(facts.host_ips),
        "status.podIP": next(iter(facts.pod_ips), ""),
        "status.podIPs": ",".join(facts.pod_ips),
    }
    if path in plain:
        return str(plain[path])
    part, _, key = path.partition("[")
    if part in ("metadata.labels", "metadata.annotations"):
        values: dict[str, str] = metadata.get(part.removeprefix("metadata.")) or {}
        if key:
            return values.get(key.rstrip("]").strip("'\""), "")
        return "".join(f'{name}="{_quoted(values[name])}"\n' for name in sorted(values))
    raise SpecError(f"fieldRef {path!r} is not supported")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def config_map_data(item: Json) -> dict[str, bytes]:
    """The files of a ConfigMap."""
    data = {key: value.encode() for key, value in (item.get("data") or {}).items()}
    binary = item.get("binaryData") or {}
    return data | {key: base64.b64decode(value) for key, value in binary.items()}


def secret_data(item: Json) -> dict[str, bytes]:
    """The files of a Secret."""
    return {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}


def _data(kind: str, name: str, optional: bool, sources: Sources) -> dict[str, bytes] | None:
    if kind == "configmap":
        item = sources.config_map(name)
        data = None if item is None else config_map_data(item)
    else:
        item = sources.secret(name)
        data = None if item is None else secret_data(item)
    if data is None and not optional:
        raise SpecError(f'{kind} "{name}" not found')
    return data


def environment(pod: Json, container: Json, facts: Facts, sources: Sources) -> dict[str, str]:
    """The environment of a container. Raises SpecError when something referred to is missing."""
    env: dict[str, str] = {
        "KUBERNETES_SERVICE_HOST": facts.api_host,
        "KUBERNETES_SERVICE_PORT": str(facts.api_port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(facts.api_port),
        "KUBERNETES_PORT": f"tcp://{facts.api_host}:{facts.api_port}",
    }
    for source in container.get("envFrom") or []:
        for field, kind in (("configMapRef", "configmap"), ("secretRef", "secret")):
            if field in source:
                ref = source[field]
                data = _data(kind, ref["name"], bool(ref.get("optional")), sources) or {}
                prefix = source.get("prefix", "")
                env |= {prefix + key: raw.decode(errors="replace") for key, raw in data.items()}
    for item in container.get("env") or []:
        value = _env_value(item, pod, facts, sources, env)
        if value is not None:
            env[item["name"]] = value
    return env


def _env_value(
    item: Json, pod: Json, facts: Facts, sources: Sources, env: Mapping[str, str]
) -> str | None:
    origin = item.get("valueFrom")
    if not origin:
        return expand(item.get("value") or "", env)
    if "fieldRef" in origin:
        return field_value(pod, origin["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in origin:
        return (
            "0"  # the lab sets no limits; 0 is what the real kubelet says of an unset one's share
        )
    for field, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
        if field in origin:
            ref = origin[field]
            optional = bool(ref.get("optional"))
            data = _data(kind, ref["name"], optional, sources)
            if data is not None and ref["key"] in data:
                return data[ref["key"]].decode(errors="replace")
            if optional:
                return None
            raise SpecError(f'{kind} "{ref["name"]}" has no key "{ref["key"]}"')
    raise SpecError(f"env {item['name']}: valueFrom {sorted(origin)} is not supported")


def argv(
    container: Json, image_command: Sequence[str], image_args: Sequence[str], env: Mapping[str, str]
) -> list[str]:
    """What to execute: ``command`` replaces the image's entry point and with it its arguments."""
    command = [expand(text, env) for text in container.get("command") or []]
    arguments = [expand(text, env) for text in container.get("args") or []]
    if command:
        return command + arguments
    return [*image_command, *(arguments or image_args)]


def volume_files(
    volume: Json, pod: Json, facts: Facts, sources: Sources, token: str
) -> dict[str, bytes] | None:
    """The files of a volume that is made of API objects; ``None`` for other kinds of volume.

    ``token`` is the pod's service account token. Raises SpecError when something is missing.
    """
    if "configMap" in volume:
        ref = volume["configMap"]
        return _selected(ref, _data("configmap", ref["name"], _optional(ref), sources))
    if "secret" in volume:
        ref = volume["secret"]
        return _selected(ref, _data("secret", ref["secretName"], _optional(ref), sources))
    if "downwardAPI" in volume:
        return _downward(volume["downwardAPI"], pod, facts)
    if "projected" not in volume:
        return None
    files: dict[str, bytes] = {}
    for source in volume["projected"].get("sources") or []:
        if "serviceAccountToken" in source:
            files[source["serviceAccountToken"]["path"]] = token.encode()
        if "configMap" in source:
            ref = source["configMap"]
            data = _data("configmap", ref["name"], _optional(ref), sources)
            files |= _selected(ref, data)
        if "secret" in source:
            ref = source["secret"]
            files |= _selected(ref, _data("secret", ref["name"], _optional(ref), sources))
        if "downwardAPI" in source:
            files |= _downward(source["downwardAPI"], pod, facts)
    return files


def _optional(ref: Json) -> bool:
    return bool(ref.get("optional"))


def _downward(ref: Json, pod: Json, facts: Facts) -> dict[str, bytes]:
    return {
        item["path"]: field_value(pod, item["fieldRef"]["fieldPath"], facts).encode()
        for item in ref.get("items") or []
        if "fieldRef" in item
    }


def _selected(ref: Json, data: dict[str, bytes] | None) -> dict[str, bytes]:
    if data is None:
        return {}
    items = ref.get("items")
    if not items:
        return data
    missing = [item["key"] for item in items if item["key"] not in data]
    if missing and not _optional(ref):
        name = ref.get("name") or ref.get("secretName")
        raise SpecError(f'"{name}" has no key {", ".join(missing)}')
    return {item["path"]: data[item["key"]] for item in items if item["key"] in data}


def with_service_account(pod: Json) -> Json:
    """The pod with the volume that admission adds on a full API server, when it is not there."""
    spec = pod["spec"]
    if spec.get("automountServiceAccountToken") is False:
        return pod
    name = "kube-api-access"
    if any(volume["name"].startswith(name) for volume in spec.get("volumes") or []):
        return pod
    volume = {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt"}},
                {
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "namespace",
                                "fieldRef": {"fieldPath": "metadata.namespace"},
                            }
                        ]
                    }
                },
            ]
        },
    }
    mount = {"name": name, "mountPath": SERVICE_ACCOUNT_PATH, "readOnly": True}

    def mounted(container: Json) -> Json:
        mounts = container.get("volumeMounts") or []
        if any(item["mountPath"] == SERVICE_ACCOUNT_PATH for item in mounts):
            return container
        return container | {"volumeMounts": [*mounts, mount]}

    changed = spec | {"volumes": [*(spec.get("volumes") or []), volume]}
    for field in ("containers", "initContainers"):
        if spec.get(field):
            changed[field] = [mounted(container) for container in spec[field]]
    return pod | {"spec": changed}


def referenced(pod: Json) -> set[tuple[str, str]]:
    """The (kind, name) of every ConfigMap and Secret that the pod's volumes show."""
    found: set[tuple[str, str]] = set()
    for volume in pod["spec"].get("volumes") or []:
        sources = (volume.get("projected") or {}).get("sources") or []
        for source in [volume, *sources]:
            if "configMap" in source:
                found.add(("configmap", source["configMap"]["name"]))
            if "secret" in source:
                ref = source["secret"]
                found.add(("secret", ref.get("secretName") or ref["name"]))
    return found


def resolv_conf(pod: Json, dns_address: str, domain: str) -> str:
    """The content of /etc/resolv.conf, from ``dnsPolicy`` and ``dnsConfig``."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        namespace = pod["metadata"]["namespace"]
        servers = [dns_address]
        searches = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
        options = ["ndots:5"]
    extra = spec.get("dnsConfig") or {}
    servers += extra.get("nameservers") or []
    searches += extra.get("searches") or []
    for item in extra.get("options") or []:
        options.append(item["name"] + (f":{item['value']}" if item.get("value") else ""))
    lines = [f"nameserver {server}" for server in servers]
    if searches:
        lines.append("search " + " ".join(searches))
    if options:
        lines.append("options " + " ".join(options))
    return "".join(line + "\n" for line in lines)


def hosts_file(pod: Json, hostname: str, pod_ips: Sequence[str]) -> str:
    """The content of /etc/hosts, with the pod's ``hostAliases``."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{ip}\t{hostname}" for ip in pod_ips]
    lines += [
        "\t".join([alias["ip"], *(alias.get("hostnames") or [])])
        for alias in pod["spec"].get("hostAliases") or []
    ]
    return "".join(line + "\n" for line in lines)


def hostname(pod: Json, node_name: str) -> str:
    """The host name a pod sees."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return node_name
    return str(spec.get("hostname") or pod["metadata"]["name"])[:63]
