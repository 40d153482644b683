"""``isthmus encrypt rotate`` with IPsec: the next key into the secret of every cluster. Adapter.

Agents do the rest by themselves: each receives with the new key before it says so, and nobody sends
with it to a node that has not (ADR 0168).
"""

import base64
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import click

from cli import cluster, encrypt_clusters, encrypt_keys, mesh_ask
from cli.encrypt_mesh import SECRET, Member
from encryption.ipsec_keys import only_current
from encryption.migration import Kind
from kube import resources
from kube.port import ApiError, Client

LOOK_S = 1.0


def rotate(
    kubeconfig: str, contexts: tuple[str, ...], namespace: str, wait_duration_s: int
) -> bool:
    """Until all nodes send with the new key, or for so long (0: not at all).

    False, and nothing done: the first cluster does not encrypt by IPsec. Exit 1: not done in time.
    """
    is_ipsec = False

    async def work() -> int:
        nonlocal is_ipsec
        async with AsyncExitStack() as stack:
            apis = await encrypt_clusters.clients(stack, kubeconfig, contexts)
            try:
                is_ipsec = await _is_ipsec(apis[contexts[0]], namespace)
                return await _rotate(apis, namespace, wait_duration_s) if is_ipsec else 0
            except ValueError as error:
                raise click.ClickException(str(error)) from None

    cluster.run(work())
    return is_ipsec


async def _is_ipsec(api: Client, namespace: str) -> bool:
    config = await cluster.read(api, "ConfigMap", encrypt_clusters.CONFIG, namespace) or {}
    name = (data := config.get("data") or {}).get("cluster-name", "")
    return Member("", name, data, {}).stance.sends is Kind.IPSEC


async def _rotate(apis: Mapping[str, Client], namespace: str, wait_duration_s: int) -> int:
    plan = encrypt_keys.plan(await encrypt_clusters.look(apis, namespace), os.urandom)
    await _write(apis, plan.lacking, plan.secret, namespace)
    names = ", ".join(member.name for member in plan.lacking)
    click.echo(f"key {plan.key_id} is in the secret {SECRET} of cluster {names}")
    if not wait_duration_s:
        return 0
    return await _wait(apis, plan, namespace, wait_duration_s)


async def _wait(
    apis: Mapping[str, Client], plan: encrypt_keys.Plan, namespace: str, wait_duration_s: int
) -> int:
    deadline_s, said = time.monotonic() + wait_duration_s, ""
    while True:
        looked_s = time.monotonic()
        members = await encrypt_clusters.look(apis, namespace)
        waits = list(encrypt_keys.unsettled(members, plan.key_id))
        if not waits:
            # An agent that starts later need not take the old key up again.
            await _write(apis, members, only_current(plan.secret), namespace)
            click.echo(f"done: every node sends with key {plan.key_id}")
            return 0
        more = f" (and {len(waits) - 1} more)" if len(waits) > 1 else ""
        if waits[0] + more != said:
            said = waits[0] + more
            click.echo(f"waits: {said}")
        if looked_s > deadline_s:
            click.echo(
                f"not done within {wait_duration_s} s; it goes on by itself: isthmus encrypt status"
            )
            return 1
        await mesh_ask.pause(looked_s, LOOK_S)


async def _write(
    apis: Mapping[str, Client], members: Sequence[Member], text: str, namespace: str
) -> None:
    """Unless somebody else has written a secret since it was read."""
    kind = resources.untyped(resources.SECRETS)
    for member in members:
        body = {
            "metadata": {"resourceVersion": member.secret_version},
            "data": {"keys": base64.b64encode(text.encode()).decode()},
        }
        try:
            await apis[member.context].patch(kind, SECRET, body, namespace)
        except ApiError as error:
            if not error.conflict:
                raise
            raise click.ClickException(
                f"cluster {member.name}: somebody else has changed the secret {SECRET} just now: "
                "look at it, and call this again"
            ) from None
