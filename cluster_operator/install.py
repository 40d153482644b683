"""Registers the resource definitions and waits until they are served. Adapter."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from cluster_operator.crds import definitions, version_of
from cluster_operator.multicluster_crds import SHARED_ANNOTATION
from kube.port import ApiError, Client
from kube.resources import CRDS, untyped
from wire.k8s.meta import labels_of

log = logging.getLogger("operator.crds")

POLL_S = 0.1


async def install_all(
    client: Client, timeout_s: float, bodies: Sequence[dict[str, Any]] | None = None
) -> None:
    """Create what is missing, replace what is older, leave what is newer or not ours to change.

    Raises ``TimeoutError`` naming the definitions that the server does not serve.
    """
    waiting = []
    for body in definitions() if bodies is None else bodies:
        await install(client, body)
        waiting.append(body["metadata"]["name"])
    try:
        async with asyncio.timeout(timeout_s):
            while waiting:
                waiting = [name for name in waiting if not await _established(client, name)]
                if waiting:
                    # The server tells it in status only; there is nothing else to wait on.
                    await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise TimeoutError(
            f"resource definitions not served after {timeout_s:.0f} s: {', '.join(waiting)}: "
            "look at their conditions with `kubectl describe crd`"
        ) from error


async def install(client: Client, body: dict[str, Any]) -> None:
    """Bring one definition up to our version."""
    name = body["metadata"]["name"]
    try:
        current = await client.get(CRDS, name)
    except ApiError as error:
        if not error.not_found:
            raise
        await client.create(untyped(CRDS), body)
        log.info("event=created definition=%s", name)
        return
    if SHARED_ANNOTATION in body["metadata"].get("annotations", {}) and not version_of(
        labels_of(current.metadata)
    ):
        return  # somebody else's: of a kind that does not belong to us alone
    if version_of(labels_of(current.metadata)) >= version_of(body["metadata"]["labels"]):
        return
    change = {"metadata": {"labels": body["metadata"]["labels"]}, "spec": body["spec"]}
    await client.patch(untyped(CRDS), name, change)
    log.info("event=updated definition=%s", name)


async def _established(client: Client, name: str) -> bool:
    return (await client.get(CRDS, name)).established
