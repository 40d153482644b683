"""The REST API on the unix socket, the health port, and the metrics port. Adapter.

Errors have a JSON string as their body, as clients of this API expect.
"""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from agent import (
    announced_view,
    encryption_view,
    health,
    metrics,
    migration_view,
    own_metrics,
    policy_shapes,
    shapes,
)
from agent.cni import Cni
from agent.cni_types import CniError
from agent.endpoint_store import Endpoint
from agent.policy_api import PolicyApi
from agent.view import View
from model.address import host_prefix, parse_address, parse_prefix
from model.endpoint import EndpointId
from model.identity import NumericIdentity
from telemetry.metrics import render
from wire import deadline, names

_BODY_LIMIT = 1 << 20  # a network configuration has some hundred bytes


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


class Api:
    """Handlers; each reads the agent's values at the moment of the request."""

    def __init__(self, view: View, cni: Cni) -> None:
        self._view, self._cni = view, cni
        self._policy = PolicyApi(view)

    def application(self) -> web.Application:
        """All paths below `/v1`."""
        app = web.Application(client_max_size=_BODY_LIMIT, middlewares=[own_metrics.timed])
        get = app.router.add_get
        get("/v1/healthz", self.healthz)
        get("/v1/config", self.config)
        get("/v1/endpoint", self.endpoints)
        get("/v1/endpoint/{id}", self.endpoint)
        get("/v1/endpoint/{id}/healthz", self.endpoint_health)
        get("/v1/identity", self.identities)
        get("/v1/identity/endpoints", self.identity_endpoints)
        get("/v1/identity/{id}", self.identity)
        get("/v1/ip", self.ips)
        get("/v1/service", self.services)
        get("/v1/service/{id}", self.service)
        self._policy.add_to(app)
        get("/v1/cluster/nodes", self.nodes)
        get("/v1/ipam", self.ipam)
        get(names.PATH, self.names)
        get("/v1/encryption", self.encryption)
        app.router.add_put("/v1/encryption/{action}", self.change_encryption)
        app.router.add_delete("/v1/endpoint", self.delete_endpoint)
        app.router.add_post("/v1/cni", self.cni)
        return app

    async def healthz(self, request: web.Request) -> web.Response:
        """``StatusResponse``."""
        return _json(health.status(self._view))

    async def encryption(self, request: web.Request) -> web.Response:
        """``EncryptionStatus``, with the devices as they are now; as they were, when one goes."""
        view, unread = self._view, []
        if view.encryption.rotation is not None:
            try:
                await view.encryption.rotation.refresh()
            except OSError as error:
                unread = [f"the devices could not be read, this is of earlier: {error}"]
        migration = migration_view.shape(view.encryption, view.mesh, view.me)
        announced = announced_view.shape(view.mesh, view.me)
        found = encryption_view.shape(view)
        found["problems"] += unread
        return _json(found | announced | {"migration": migration})

    async def change_encryption(self, request: web.Request) -> web.Response:
        """Begin a rotation of keys, or abort it."""
        try:
            late = deadline.is_past(request.headers.get(deadline.HEADER), time.time())
        except ValueError as error:
            return _json(str(error), 400)
        if late:
            return _json("nobody waits for this any more: nothing was done", 408)
        rotation, action = self._view.encryption.rotation, request.match_info["action"]
        if rotation is None:
            return _json(
                "no WireGuard here: keys of IPsec are in the secret cilium-ipsec-keys, into which "
                "`isthmus encrypt rotate --context CONTEXT --also …` writes the next; to go back, "
                "write the old one last again",
                409,
            )
        actions = {"rotate": rotation.begin, "abort": rotation.abort}
        if action not in actions:
            return _json(f"{action} is none of {', '.join(actions)}", 404)
        try:
            number = await actions[action]()
        except ValueError as error:
            return _json(str(error), 409)
        except OSError as error:
            return _json(str(error), 500)
        return _json({"number": number})

    async def config(self, request: web.Request) -> web.Response:
        """``DaemonConfiguration``."""
        view = self._view
        immutable = {
            "cluster-name": view.config.cluster_name,
            "cluster-id": str(view.config.cluster_id),
            "max-connected-clusters": str(view.config.max_connected_clusters),
            "routing-mode": view.config.routing_mode,
            "tunnel-protocol": view.config.tunnel_protocol,
            "bpf-lb-algorithm": view.config.bpf_lb_algorithm.name.lower(),
        }
        status = {
            "immutable": immutable,
            "addressing": {
                f"ipv{router.version}": {
                    "enabled": True,
                    "ip": str(router),
                    "alloc-range": str(pool.prefix),
                }
                for router, pool in zip(view.me.routers, view.pools.each, strict=True)
            },
            "deviceMTU": view.datapath.device_mtu,
            "routeMTU": view.datapath.route_mtu,
            "datapathMode": "veth",
            "ipam-mode": view.config.ipam,
            "k8s-endpoint": view.server,
        }
        spec = policy_shapes.options(view.policies.table.options)
        return _json({"spec": spec, "status": status})

    async def endpoints(self, request: web.Request) -> web.Response:
        """All endpoints of this node."""
        found = sorted(self._view.endpoints, key=lambda e: e.id)
        return _json([self._shape(e) for e in found])

    def _shape(self, value: Endpoint) -> dict[str, Any]:
        return shapes.endpoint(
            value,
            self._view.me.routers,
            self._policy.realized(value.id, value.identity.id),
            self._policy.health(value.id),
        )

    def _endpoint(self, request: web.Request) -> dict[str, Any] | None:
        """By number, or by one of the prefixed names."""
        kind, _, name = request.match_info["id"].rpartition(":")
        if "cni-attachment-id" in request.match_info["id"]:
            kind, _, name = request.match_info["id"].partition(":")
        for value in self._view.endpoints:
            names = {
                "": str(value.id),
                "cilium-local": str(value.id),
                "container-id": value.container_id,
                "cni-attachment-id": f"{value.container_id}:{value.container_interface}",
                "pod-name": f"{value.namespace}/{value.pod}",
                "cep-name": f"{value.namespace}/{value.pod}",
                "ipv4": str(value.address),
            }
            if names.get(kind) == name:
                return self._shape(value)
        return None

    async def endpoint(self, request: web.Request) -> web.Response:
        """One endpoint."""
        found = self._endpoint(request)
        if found is None:
            return _json(f"endpoint {request.match_info['id']} not found", 404)
        return _json(found)

    async def endpoint_health(self, request: web.Request) -> web.Response:
        """``EndpointHealth``: whether its rows are in the kernel."""
        found = self._endpoint(request)
        if found is None:
            return _json(f"endpoint {request.match_info['id']} not found", 404)
        error = self._view.tables.endpoints.error(EndpointId(found["id"]))
        word, policy = "Failure" if error else "OK", self._policy.health(EndpointId(found["id"]))
        overall = "Failure" if "Failure" in (word, policy) else "OK"
        return _json({"bpf": word, "policy": policy, "overallHealth": overall, "connected": True})

    async def delete_endpoint(self, request: web.Request) -> web.Response:
        """All endpoints of a container."""
        try:
            body = msgspec.json.decode(await request.read())
            container = str(body["container-id"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            return _json('the body must be {"container-id": …}', 400)
        found = [e for e in self._view.endpoints if e.container_id == container]
        try:
            for value in found:
                await self._view.endpoints.delete(*value.attachment)
        except CniError as error:
            return _json(str(error), 500)
        return _json({}) if found else _json(f"container {container} not found", 404)

    async def identities(self, request: web.Request) -> web.Response:
        """All identities, the reserved ones too."""
        reserved = [shapes.identity(NumericIdentity(n), None) for n in range(1, 11)]
        known = sorted(self._view.mesh.identities.items())
        return _json(reserved + [shapes.identity(number, labels) for number, labels in known])

    async def identity(self, request: web.Request) -> web.Response:
        """One identity."""
        text = request.match_info["id"]
        if not text.isascii() or not text.isdigit():
            return _json(f'identity "{text}" is no number', 400)
        number = NumericIdentity(int(text))
        labels = self._view.mesh.identities.get(number)
        shape = shapes.identity(number, labels)
        if labels is None and not shape["labels"]:
            return _json(f"identity {number} not found", 404)
        return _json(shape)

    async def identity_endpoints(self, request: web.Request) -> web.Response:
        """Identities in use on this node."""
        uses: dict[NumericIdentity, int] = {}
        for value in self._view.endpoints:
            uses[value.identity.id] = uses.get(value.identity.id, 0) + 1
        return _json(
            [
                {
                    "identity": shapes.identity(n, self._view.mesh.identities.get(n)),
                    "refCount": count,
                }
                for n, count in sorted(uses.items())
            ]
        )

    async def ips(self, request: web.Request) -> web.Response:
        """The ipcache, or what of it lies in ``cidr``."""
        wanted = request.query.get("cidr")
        ipcache = self._view.mesh.ipcache
        if wanted is None:
            return _json(
                [shapes.ip(prefix, said) for prefix, said in sorted_rows(ipcache.winners())]
            )
        try:
            inside = parse_prefix(wanted) if "/" in wanted else host_prefix(parse_address(wanted))
        except ValueError as error:
            return _json(f"cidr is not valid: {error}", 400)
        rows = [
            shapes.ip(prefix, said)
            for prefix, said in sorted_rows(ipcache.winners())
            if prefix.version == inside.version and prefix.overlaps(inside)
        ]
        return _json(rows) if rows else _json(f"no entry for {wanted}", 404)

    def _services(self) -> list[dict[str, Any]]:
        rows = sorted(
            self._view.mesh.services.items(),
            key=lambda r: (r[0].address.version, int(r[0].address), r[0].port, r[0].protocol),
        )
        return [shapes.service(number, row) for number, (_, row) in enumerate(rows, 1)]

    async def services(self, request: web.Request) -> web.Response:
        """All frontends."""
        return _json(self._services())

    async def service(self, request: web.Request) -> web.Response:
        """One frontend by its place in the list."""
        text = request.match_info["id"]
        found = [s for s in self._services() if str(s["spec"]["id"]) == text]
        return _json(found[0]) if found else _json(f"service {text} not found", 404)

    async def nodes(self, request: web.Request) -> web.Response:
        """``ClusterNodeStatus``: all nodes; we keep no state per client."""
        own = self._view.config.cluster_name
        me = f"{own}/{self._view.me.node.name}"
        shaped = []
        for value in sorted(
            self._view.mesh.nodes, key=lambda n: (n.cluster != own, n.cluster, n.name)
        ):
            source = "custom-resource" if value.cluster == own else "clustermesh"
            if f"{value.cluster}/{value.name}" == me:
                source = "local"
            shaped.append(shapes.node(value, source))
        return _json({"self": me, "client-id": 0, "nodes-added": shaped, "nodes-removed": []})

    async def ipam(self, request: web.Request) -> web.Response:
        """Addresses of this node."""
        return _json(health.ipam(self._view))

    async def names(self, request: web.Request) -> web.StreamResponse:
        """Lines of JSON, without end."""
        response = web.StreamResponse(headers={"Content-Type": "application/jsonlines"})
        await response.prepare(request)
        lines = self._view.names.stream()
        async with contextlib.aclosing(lines):
            with contextlib.suppress(ConnectionError):  # the reader is gone
                async for chunk in lines:
                    await response.write(chunk)
        return response

    async def cni(self, request: web.Request) -> web.Response:
        """One call of the CNI plugin."""
        status, body = await self._cni.handle(await request.read())
        return _json(body, status)


def sorted_rows(rows: Any) -> Any:
    """Prefixes in order, IPv4 first."""
    return sorted(rows, key=lambda r: (r[0].version, int(r[0].network_address), r[0].prefixlen))


def unix_socket(path: Path) -> socket.socket:
    """A listening socket at a path. It is made aside and renamed: the path always answers.

    A socket that a killed agent left behind is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".next")
    aside.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind(str(aside))
    os.chmod(aside, 0o660)
    made.listen(128)
    os.replace(aside, path)
    return made


def health_application(view: View) -> web.Application:
    """`/healthz` for the kubelet's probes: 200 once pods can be attached, and while they can."""

    async def healthz(request: web.Request) -> web.Response:
        state = health.agent_state(view)
        # A row that fails must not make the kubelet restart us: that repairs nothing.
        return _json(state, 200 if view.progress.ready else 503)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    return app


def metrics_application(view: View) -> web.Application:
    """`/metrics`."""

    own_metrics.listen(view)

    async def serve(request: web.Request) -> web.Response:
        packets = await view.datapath.metrics()
        text = render(metrics.collect(view, packets))
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.router.add_get("/metrics", serve)
    return app
