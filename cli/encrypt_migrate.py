"""``isthmus encrypt migrate``: the whole mesh from one kind of encryption to another. Adapter.

Everything is read from the clusters each time, so a call that was killed is gone on with by the
next. ``encryption.migration`` decides; a step is a change of ``cilium-config``, which agents follow
by themselves.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import click

from cli import cluster, encrypt_clusters, encrypt_mesh, mesh_ask, options
from cli.encrypt_clusters import CONFIG
from cli.encrypt_mesh import KEEPER, Member, Route
from encryption import migration
from encryption.migration import Kind, Move, Stance, Wait
from kube import resources
from kube.port import ApiError, Client, PatchKind

AGENTS, CONTAINER = "cilium", "cilium-agent"
LOOK_S = 1.0
HOLD_S = 2.0  # so long must a step be proven: what is on its way arrives meanwhile


@click.command()
@options.command
@click.option("--to", type=click.Choice([k.value for k in Kind]), help="The kind to end with.")
@click.option("--also", "contexts", multiple=True, metavar="CONTEXT", help="A further cluster.")
@click.option("--abort", is_flag=True, help="Go back to the kind from which it began.")
@click.option("--wait-duration", default=300, show_default=True, help="Seconds for each step.")
def migrate(
    context: str,
    kubeconfig: str,
    namespace: str,
    to: str | None,
    contexts: tuple[str, ...],
    abort: bool,
    wait_duration: int,
) -> None:
    """Encrypt by another kind, in the whole mesh, while it is used.

    Every cluster of the mesh must be named. First all nodes accept the new kind too, then all send
    with it, then the old one goes; each step begins when agents have proven that it can. Call it
    again to go on with one that was interrupted.
    """
    target = Kind(to) if to else None

    async def work() -> int:
        async with AsyncExitStack() as stack:
            apis = await encrypt_clusters.clients(stack, kubeconfig, (context, *contexts))
            return await _Migration(apis, namespace, wait_duration).run(target, abort)

    cluster.run(work())


class _Migration:
    """One call."""

    def __init__(self, apis: Mapping[str, Client], namespace: str, wait_duration_s: float) -> None:
        self._apis = apis
        self._namespace, self._wait_duration_s = namespace, wait_duration_s
        self._said = ""

    async def run(self, to: Kind | None, abort: bool) -> int:
        members = await encrypt_clusters.look(self._apis, self._namespace)
        try:
            route = encrypt_mesh.route(members, to, abort)
            if not any(member.route for member in members):
                self._refuse(members, route.goal)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        for member in members:
            if member.route != route:
                await self._annotate(member, route.text())
        word = "back" if route.aborting else f"from {route.origin.value}"
        click.echo(f"encryption: {word} to {route.goal.value}")
        return await self._steps(route)

    def _refuse(self, members: Sequence[Member], target: Kind) -> None:
        """Nothing is begun that a person must see to first. Raises ``ValueError``."""
        found = [*encrypt_mesh.away(members), *encrypt_mesh.obstacles(members, target)]
        decided = self._decide(members, target)
        found += decided.reasons if isinstance(decided, Wait) and not found else ()
        if found:
            raise ValueError(encrypt_mesh.refusal(found))

    async def _steps(self, route: Route) -> int:
        target = route.goal
        deadline_s = time.monotonic() + self._wait_duration_s
        held: tuple[Move, float] | None = None
        while True:
            looked_s = time.monotonic()
            members = await encrypt_clusters.look(self._apis, self._namespace)
            if any(member.route != route for member in members):
                raise click.ClickException("another call has changed where this one goes: it ends")
            decided = self._decide(members, target)
            if isinstance(decided, Wait):
                held = None
                if not decided.reasons:
                    break
                self._say(f"waits: {decided.reasons[0]}", len(decided.reasons) - 1)
            elif await self._keep(members, decided.to):
                held = None
            elif held is None or held[0] != decided:
                held = decided, time.monotonic()
            elif time.monotonic() - held[1] >= HOLD_S:
                await self._move(members, decided)
                held, deadline_s = None, time.monotonic() + self._wait_duration_s
            if time.monotonic() > deadline_s:
                click.echo(
                    f"not done within {self._wait_duration_s:g} s: call it again to go on, or with "
                    "--abort to go back; the mesh works as it is"
                )
                return 1
            await mesh_ask.pause(looked_s, LOOK_S)
        for member in members:
            await self._annotate(member, None)
        click.echo(f"done: every node sends {target.value}, and accepts nothing else")
        return 0

    def _say(self, text: str, more: int = 0) -> None:
        text += f" (and {more} more)" if more else ""
        if text != self._said:
            click.echo(text)
            self._said = text

    @staticmethod
    def _decide(members: Sequence[Member], target: Kind) -> Move | Wait:
        stances = {member.name: member.stance for member in members}
        nodes = [f"{member.name}/{node}" for member in members for node in member.nodes]
        return migration.decide(target, stances, nodes, encrypt_mesh.reports(members))

    async def _move(self, members: Sequence[Member], step: Move) -> None:
        for member in members:
            if member.name in step.clusters:
                await self._patch(member, {"data": encrypt_mesh.settings(step.to)})
        self._say(f"cluster {', '.join(step.clusters)}: {step.to}")

    async def _keep(self, members: Sequence[Member], step: Stance) -> bool:
        """Pods of agents get the container of userspace WireGuard; whether that is under way."""
        lacking = list(encrypt_mesh.unkept(members, step))
        for member in lacking:
            api = self._apis[member.context]
            kind = resources.untyped(resources.DAEMON_SETS)
            found = await api.get(kind, AGENTS, self._namespace)
            containers = found["spec"]["template"]["spec"]["containers"]
            if any(c["name"] == KEEPER for c in containers):
                self._say(f"waits: pods of agents of cluster {member.name} are replaced")
                continue
            image = next(c["image"] for c in containers if c["name"] == CONTAINER)
            (wanted,) = cluster.manifest("agent", namespace=self._namespace, image=image)
            pod = wanted["spec"]["template"]["spec"]
            pod = {
                "containers": [c for c in pod["containers"] if c["name"] == KEEPER],
                "volumes": [v for v in pod["volumes"] if v["name"] == "wireguard-run"],
            }
            body = {"spec": {"template": {"spec": pod}}}
            await api.patch(kind, AGENTS, body, self._namespace, kind=PatchKind.STRATEGIC)
            self._say(f"cluster {member.name}: pods of agents get the container {KEEPER}")
        return bool(lacking)

    async def _annotate(self, member: Member, text: str | None) -> None:
        await self._patch(member, {"metadata": {"annotations": {encrypt_mesh.ANNOTATION: text}}})

    async def _patch(self, member: Member, body: dict[str, Any]) -> None:
        """Unless somebody else has written meanwhile: then the next look decides anew."""
        metadata = body.get("metadata", {}) | {"resourceVersion": member.resource_version}
        kind = resources.untyped(resources.CONFIG_MAPS)
        try:
            written = await self._apis[member.context].patch(
                kind, CONFIG, body | {"metadata": metadata}, self._namespace
            )
        except ApiError as error:
            if not error.conflict:
                raise
        else:
            member.resource_version = written["metadata"]["resourceVersion"]
