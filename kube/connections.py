"""The Secrets that say which clusters a cluster reads, where, and with which certificates. Adapter.

``cilium-clustermesh`` is what agents are given; with KVStoreMesh they are sent to their own store
there, and ``cilium-kvstoremesh`` says where the clusters really are. A connection made by a join
has credentials of its own beside it (``NAME.etcd-client…``); one made by ``connect`` uses the
common ones of the cluster.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kube import resources
from kube.port import ApiError, Client

CLUSTERS_SECRET = "cilium-clustermesh"
KVSTOREMESH_SECRET = "cilium-kvstoremesh"
IDS_ANNOTATION = "isthmus.io/cluster-ids"  # JSON: name -> ID of the connected clusters
DECLARED_ANNOTATION = "isthmus.io/declared-by"  # JSON: name -> ClusterMeshPeer that made it
CACHE_TTL = b"isthmus-cache-ttl:"  # a line of a connection's configuration
DIRECTORY = "/var/lib/cilium/clustermesh"  # where agents and mirrors find the Secret's keys
ATTEMPTS = 5  # when others write the same Secret at the same time


class ClaimedError(ValueError):
    """The connection belongs to somebody else: an object, or whoever gives commands."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One remote cluster, as written for those who read it. The key stays out of ``repr``."""

    name: str
    id: int  # 0: not known
    config: bytes  # how to reach its store
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    own_store: bytes = b""  # with KVStoreMesh: how agents reach their own cluster's store
    cache_ttl: str = ""  # after how long stale data is taken back; empty: as it was
    declared_by: str = ""  # the ClusterMeshPeer; empty: made by a command


def credential_base(name: str) -> str:
    """What the names of a cluster's own credentials begin with."""
    return f"{name}.etcd-client"


def credential_keys(name: str) -> dict[str, str]:
    """The keys of a cluster's own credentials, by what they hold: ca, crt, key."""
    base = credential_base(name)
    return {"ca": f"{base}-ca.crt", "crt": f"{base}.crt", "key": f"{base}.key"}


def keys_of(name: str) -> tuple[str, ...]:
    """Every key of a Secret that may belong to a connection."""
    return (name, *credential_keys(name).values())


def store_config(
    host: str, port: int, addresses: tuple[str, ...], certificate: str, client: bool = True
) -> bytes:
    """The YAML for a store whose certificate carries ``host``; files are ``certificate`` + ends.

    Without addresses the host is looked up; ``client`` says whether we show a certificate.
    """
    base = f"{DIRECTORY}/{certificate}"
    lines = ["endpoints:", f"- https://{host}:{port}", f"trusted-ca-file: {base}-ca.crt"]
    if client:
        lines += [f"key-file: {base}.key", f"cert-file: {base}.crt"]
    if addresses:
        lines += [
            "cilium-host-aliases:",
            f"- hostname: {host}",
            f"  ips: [{', '.join(json.dumps(a) for a in addresses)}]",
        ]
    return ("\n".join(lines) + "\n").encode()


def with_ttl(value: bytes, before: bytes, cache_ttl: str = "") -> bytes:
    """A cluster's key with a time for stale data: the given one, or what its key had before."""
    lines = [line for line in before.splitlines(keepends=True) if line.startswith(CACHE_TTL)]
    if cache_ttl:
        lines = [CACHE_TTL + f" {cache_ttl}\n".encode()]
    return value + b"".join(lines)


@dataclass(frozen=True, slots=True)
class Connected:
    """What ``cilium-clustermesh`` says now."""

    ids: Mapping[str, int]  # of the connected clusters; 0: not recorded
    data: Mapping[str, bytes] = field(repr=False)
    declared: Mapping[str, str] = field(default_factory=dict)  # cluster -> ClusterMeshPeer


def declared_text(name: str, by: str) -> str:
    """Why a command leaves a declared connection alone."""
    return (
        f"cluster {name} is connected by ClusterMeshPeer {by}: "
        f"change or delete that object (`kubectl delete clustermeshpeer {by}`)"
    )


def parse(secret: Mapping[str, Any] | None) -> Connected:
    """A Secret as the server gave it; ``None`` is an empty one."""
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    data = {k: base64.b64decode(v) for k, v in ((secret or {}).get("data") or {}).items()}
    ids = json.loads(annotations.get(IDS_ANNOTATION, "{}"))
    found = {n: int(ids.get(n, 0)) for n, value in sorted(data.items()) if b"endpoints:" in value}
    marks = json.loads(annotations.get(DECLARED_ANNOTATION, "{}"))
    return Connected(found, data, {n: by for n, by in sorted(marks.items()) if n in found})


async def read(api: Client, namespace: str, name: str = CLUSTERS_SECRET) -> Connected:
    """Raises ``OSError``."""
    return parse(await _get(api, name, namespace))


async def credentials(api: Client, namespace: str) -> dict[str, dict[str, bytes]]:
    """The clusters with certificates of their own: ca and crt (PEM). Raises ``OSError``."""
    held = {}
    for secret in (CLUSTERS_SECRET, KVSTOREMESH_SECRET):
        found = await read(api, namespace, secret)
        for name in found.ids:
            keys = credential_keys(name)
            if keys["key"] in found.data:
                held[name] = {part: found.data.get(keys[part], b"") for part in ("ca", "crt")}
    return held


async def put(api: Client, namespace: str, connection: Connection) -> bool:
    """Write a connection, over one of the same name. True when something changed.

    Raises ``ClaimedError`` when the present one is somebody else's.
    """
    keys = credential_keys(connection.name)
    present = await read(api, namespace)
    _check_claim(present, connection)
    # What an object leaves out it has taken back; a command that leaves it out asks for no change.
    before = b"" if connection.declared_by else present.data.get(connection.name, b"")
    real: dict[str, bytes | None] = {key: None for key in keys.values()}
    real |= {keys[part]: value for part, value in connection.credentials.items()}
    real[connection.name] = with_ttl(connection.config, before, connection.cache_ttl)
    if not connection.own_store:
        return await _change(api, namespace, CLUSTERS_SECRET, real, connection)
    changed = await _change(api, namespace, KVSTOREMESH_SECRET, real, None)
    here: dict[str, bytes | None] = dict.fromkeys(keys.values())
    here[connection.name] = with_ttl(connection.own_store, before, connection.cache_ttl)
    return await _change(api, namespace, CLUSTERS_SECRET, here, connection) or changed


async def drop(api: Client, namespace: str, name: str) -> None:
    """Remove a declared connection; one made by a command is left alone."""
    if name not in (await read(api, namespace)).declared:
        return
    gone: dict[str, bytes | None] = dict.fromkeys(keys_of(name))
    if await _get(api, KVSTOREMESH_SECRET, namespace) is not None:
        await _change(api, namespace, KVSTOREMESH_SECRET, gone, None)
    await _change(api, namespace, CLUSTERS_SECRET, gone, None, name)


def _check_claim(present: Connected, wanted: Connection) -> None:
    by = present.declared.get(wanted.name, "")
    if wanted.name not in present.ids or bool(by) == bool(wanted.declared_by):
        return
    raise ClaimedError(
        declared_text(wanted.name, by)
        if by
        else f"cluster {wanted.name} was connected by a command: disconnect it first"
    )


async def _change(
    api: Client,
    namespace: str,
    secret: str,
    data: Mapping[str, bytes | None],
    connection: Connection | None,
    forget: str = "",
) -> bool:
    """One write of one Secret, guarded by its version; repeated when somebody was faster."""
    for attempt in range(ATTEMPTS):
        found = await _get(api, secret, namespace)
        if connection is not None:
            _check_claim(parse(found), connection)
        wanted = _after(found, secret, namespace, data, connection, forget)
        if wanted is None:
            return False
        try:
            if found is None:
                await api.create(resources.untyped(resources.SECRETS), wanted, namespace)
            else:
                await api.update(resources.untyped(resources.SECRETS), wanted, namespace=namespace)
        except ApiError as error:
            if error.status != 409 or attempt == ATTEMPTS - 1:
                raise
            continue
        return True
    raise AssertionError("the last attempt returns or raises")


def _after(
    found: dict[str, Any] | None,
    name: str,
    namespace: str,
    data: Mapping[str, bytes | None],
    connection: Connection | None,
    forget: str,
) -> dict[str, Any] | None:
    """The Secret as it should be; ``None`` when it is so already."""
    before = found or {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "cilium"},
        },
        "type": "Opaque",
    }
    meta = dict(before["metadata"])
    annotations = dict(meta.get("annotations") or {})
    content = dict(before.get("data") or {})
    for key, value in data.items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = base64.b64encode(value).decode()
    ids = json.loads(annotations.get(IDS_ANNOTATION, "{}"))
    marks = json.loads(annotations.get(DECLARED_ANNOTATION, "{}"))
    if connection is not None:
        ids[connection.name] = connection.id
        if connection.declared_by:
            marks[connection.name] = connection.declared_by
    ids.pop(forget, None)
    marks.pop(forget, None)
    for key, value, wanted in (
        (IDS_ANNOTATION, ids, connection is not None or forget),
        (DECLARED_ANNOTATION, marks, marks or forget),
    ):
        if wanted:
            annotations[key] = json.dumps(value, sort_keys=True)
    unchanged = content == (before.get("data") or {})
    if found and unchanged and annotations == (before["metadata"].get("annotations") or {}):
        return None
    return {**before, "metadata": {**meta, "annotations": annotations}, "data": content}


async def _get(api: Client, name: str, namespace: str) -> dict[str, Any] | None:
    try:
        return await api.get(resources.untyped(resources.SECRETS), name, namespace)
    except ApiError as error:
        if error.not_found:
            return None
        raise
