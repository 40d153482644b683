"""The Secrets that say which clusters a cluster reads, and where. Adapter.

``cilium-clustermesh`` is what agents are given: the clusters themselves, or with KVStoreMesh their
own store for each; then ``cilium-kvstoremesh`` has where the clusters really are.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from cli import cluster, mesh_facts
from cli.mesh_facts import CLUSTERS_SECRET, IDS_ANNOTATION, KVSTOREMESH_SECRET, ClusterFacts
from kube import resources
from kube.connections import credential_keys, declared_text, keys_of, with_ttl
from kube.port import Client


async def change_over(api: Client, facts: ClusterFacts, kvstoremesh: bool) -> None:
    """Send agents that are connected to the copies in their own store, or back."""
    if not facts.connected:
        return
    if kvstoremesh == facts.kvstoremesh:
        if kvstoremesh:
            await _move(api, facts)
        return
    source = CLUSTERS_SECRET if kvstoremesh else KVSTOREMESH_SECRET
    found = cluster.secret_data(await cluster.read(api, "Secret", source, facts.namespace))
    real = {name: found[name] for name in facts.connected if name in found}
    # Credentials of their own lie beside the configuration that names them.
    files = [key for name in real for key in credential_keys(name).values() if key in found]
    if kvstoremesh:
        await _patch_secret(api, facts, KVSTOREMESH_SECRET, {k: found[k] for k in (*real, *files)})
        here = mesh_facts.local_config(facts)
        copies = {name: with_ttl(here, value) for name, value in real.items()}
        await _patch_secret(api, facts, CLUSTERS_SECRET, {**copies, **dict.fromkeys(files)})
    else:
        await _patch_secret(api, facts, CLUSTERS_SECRET, {k: found[k] for k in (*real, *files)})
        await api.delete(resources.SECRETS, KVSTOREMESH_SECRET, facts.namespace)


async def _move(api: Client, facts: ClusterFacts) -> None:
    """Tell agents where their own store is now."""
    found = cluster.secret_data(await cluster.read(api, "Secret", CLUSTERS_SECRET, facts.namespace))
    here = mesh_facts.local_config(facts)
    copies = {n: with_ttl(here, found[n]) for n in facts.connected if n in found}
    await _patch_secret(api, facts, CLUSTERS_SECRET, copies)


def refuse_declared(own: ClusterFacts, names: Iterable[str]) -> None:
    """Raises ``ClickException`` when one of these connections was made by an object."""
    found = [f"{own.name}: {declared_text(n, own.declared[n])}" for n in names if n in own.declared]
    if found:
        raise click.ClickException("\n       ".join(found))


async def add(api: Client, own: ClusterFacts, other: ClusterFacts, cache_ttl: str = "") -> None:
    """Write how ``own`` reaches the other; without ``cache_ttl`` the one it has stays."""
    existing = await cluster.read(api, "Secret", CLUSTERS_SECRET, own.namespace)
    ids = {**mesh_facts.connections(existing), other.name: other.id}
    before = cluster.secret_data(existing).get(other.name, b"")
    real = with_ttl(mesh_facts.endpoint_config(other), before, cache_ttl)
    none: dict[str, bytes | None] = dict.fromkeys(credential_keys(other.name).values())
    if own.kvstoremesh:
        await _patch_secret(api, own, KVSTOREMESH_SECRET, {**none, other.name: real})
    here = with_ttl(mesh_facts.local_config(own), before, cache_ttl)
    value = here if own.kvstoremesh else real
    await _patch_secret(api, own, CLUSTERS_SECRET, {**none, other.name: value}, ids)


async def drop(api: Client, own: ClusterFacts, name: str) -> None:
    existing = await cluster.read(api, "Secret", CLUSTERS_SECRET, own.namespace)
    if existing is None:
        return
    ids = {k: v for k, v in mesh_facts.connections(existing).items() if k != name}
    gone: dict[str, bytes | None] = dict.fromkeys(keys_of(name))
    await _patch_secret(api, own, CLUSTERS_SECRET, gone, ids)
    if own.kvstoremesh:
        await _patch_secret(api, own, KVSTOREMESH_SECRET, gone)


async def _patch_secret(
    api: Client,
    own: ClusterFacts,
    name: str,
    data: Mapping[str, bytes | None],
    ids: Mapping[str, int] | None = None,
) -> None:
    """Change keys of a Secret, made when absent; ``ids`` are the clusters it then connects."""
    if await cluster.read(api, "Secret", name, own.namespace) is None:
        await cluster.apply(api, [cluster.secret(name, own.namespace, {})])
    patch: dict[str, Any] = {"data": mesh_facts.encode(data)}
    if ids is not None:
        patch["metadata"] = {"annotations": {IDS_ANNOTATION: json.dumps(ids, sort_keys=True)}}
    await api.patch(resources.untyped(resources.SECRETS), name, patch, own.namespace)
