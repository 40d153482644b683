"""A cluster as the command line reaches it: client, applying objects. Adapter."""

import base64
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from string import Template
from typing import Any

import click
import yaml

from cli import options
from kube import resources
from kube.config import connect
from kube.port import ApiError, Client, PatchKind, Resource

MANIFESTS = Path(__file__).resolve().parent.parent / "deploy" / "manifests"
FIELD_MANAGER = "isthmus"
_KINDS: dict[tuple[str, str], Resource[Any]] = (
    {(r.api_version, r.kind): resources.untyped(r) for r in resources.ALL}
    | {
        ("rbac.authorization.k8s.io/v1", kind): resources.unstructured(
            "rbac.authorization.k8s.io", "v1", plural, kind, False
        )
        for kind, plural in (
            ("ClusterRole", "clusterroles"),
            ("ClusterRoleBinding", "clusterrolebindings"),
        )
    }
    | {
        ("rbac.authorization.k8s.io/v1", kind): resources.unstructured(
            "rbac.authorization.k8s.io", "v1", plural, kind, True
        )
        for kind, plural in (("Role", "roles"), ("RoleBinding", "rolebindings"))
    }
)


def run(work: Coroutine[Any, Any, int | None]) -> None:
    """Run a command's coroutine; its result is the exit status."""
    import asyncio

    code = asyncio.run(_unwrap(work))
    if code:
        raise click.exceptions.Exit(code)


async def _unwrap(work: Coroutine[Any, Any, int | None]) -> int | None:
    try:
        return await work
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


def connected(function: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """For a command: connected to the API server; arguments ``api`` and ``namespace``."""

    async def work(context: str, kubeconfig: str, namespace: str, given: dict[str, Any]) -> Any:
        async with client(kubeconfig, context) as api:
            return await function(api=api, namespace=namespace, **given)

    @wraps(function)
    def wrapped(context: str, kubeconfig: str, namespace: str, **given: Any) -> None:
        run(work(context, kubeconfig, namespace, given))

    return options.command(wrapped)


@asynccontextmanager
async def client(kubeconfig: str, context: str) -> AsyncIterator[Client]:
    """A connection to the API server of a context."""
    async with await connect(kubeconfig, context) as found:
        yield found


def manifest(name: str, **values: object) -> list[dict[str, Any]]:
    """The objects of a file in ``deploy/manifests`` with its ``$placeholders`` filled."""
    text = Template((MANIFESTS / f"{name}.yaml").read_text()).substitute(
        {key: str(value) for key, value in values.items()}
    )
    return [item for item in yaml.safe_load_all(text) if item]


def resource_of(item: Mapping[str, Any]) -> Resource[Any]:
    """The kind of an object of ours."""
    return _KINDS[item["apiVersion"], item["kind"]]


async def apply(api: Client, items: Sequence[Mapping[str, Any]]) -> None:
    """Create objects, or bring them to what is wanted; repeatable."""
    for item in items:
        meta = item["metadata"]
        resource = resource_of(item)
        try:
            await api.patch(
                resource,
                meta["name"],
                item,
                meta.get("namespace", ""),
                kind=PatchKind.APPLY,
                field_manager=FIELD_MANAGER,
            )
        except ApiError as error:
            # A server without server-side apply for this kind still creates and merges.
            if error.status not in (404, 415):
                raise
            try:
                await api.create(resource, item, meta.get("namespace", ""))
            except ApiError as clash:
                if not clash.already_exists:
                    raise
                await api.patch(resource, meta["name"], item, meta.get("namespace", ""))


async def remove(api: Client, items: Sequence[Mapping[str, Any]]) -> None:
    """Delete objects, in reverse order; what is absent is no error."""
    for item in reversed(items):
        meta = item["metadata"]
        await api.delete(resource_of(item), meta["name"], meta.get("namespace", ""))


def secret(
    name: str,
    namespace: str,
    data: Mapping[str, bytes],
    kind: str = "Opaque",
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A Secret object."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "cilium"},
            "annotations": dict(annotations or {}),
        },
        "type": kind,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


async def read(api: Client, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    """A core object (``Secret``, ``ConfigMap``, ``Service``) whole, or ``None``."""
    try:
        found = await api.get(_KINDS["v1", kind], name, namespace)
    except ApiError as error:
        if error.not_found:
            return None
        raise
    return dict(found)


def secret_data(item: Mapping[str, Any] | None) -> dict[str, bytes]:
    """The decoded data of a Secret; empty for none."""
    return {k: base64.b64decode(v) for k, v in ((item or {}).get("data") or {}).items()}
