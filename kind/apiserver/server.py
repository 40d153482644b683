"""HTTP: who asks, which verb on which resource, and the answer in the client's format. Adapter."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import msgspec
import yaml
from aiohttp import web

from kind.apiserver import apply as ssa
from kind.apiserver import discovery, errors, patch, request, strategic, subresources, tokens
from kind.apiserver.api import Api, timestamp
from kind.apiserver.cache import Item
from kind.apiserver.errors import ApiError
from kind.apiserver.objects import Obj, meta
from kind.apiserver.options import Options
from kind.apiserver.proxy import KubeletProxy
from kind.apiserver.request import Target, View
from kind.apiserver.resources import Resource
from kind.apiserver.streaming import list_objects, renderer, watch_objects
from kind.apiserver.tokens import User
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_BODY_LIMIT_BYTES = 3 * 1024 * 1024  # as etcd and the real server have it
_JSON_PATCH, _MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"
_PATCHES = [_JSON_PATCH, _MERGE_PATCH, _STRATEGIC_PATCH, _APPLY_PATCH]


@dataclass(slots=True)
class Counters:
    """What ``/metrics`` shows."""

    requests: dict[tuple[str, int], int] = field(default_factory=dict)

    def count(self, method: str, code: int) -> None:
        self.requests[method, code] = self.requests.get((method, code), 0) + 1

    def text(self) -> str:
        lines = ["# TYPE apiserver_request_total counter"]
        lines += [
            f'apiserver_request_total{{verb="{m}",code="{c}"}} {n}'
            for (m, c), n in sorted(self.requests.items())
        ]
        return "\n".join(lines) + "\n"


class Server:
    """The request handler of one API server."""

    def __init__(
        self,
        api: Api,
        static_tokens: dict[str, User],
        signing_key: bytes,
        kubelet: ssl.SSLContext,
        writes: TaskGroup,
    ) -> None:
        """``writes`` holds the requests under way that must not be broken off."""
        self._api = api
        self._registry = api.registry
        self._static = static_tokens
        self._key = signing_key
        self._writes = writes
        self._proxy = KubeletProxy(api, self._builtin("", "nodes"), kubelet)
        self.counters = Counters()

    def _builtin(self, group: str, plural: str) -> Resource:
        found = self._registry.find(group, "v1", plural)
        assert found is not None
        return found

    def app(self) -> web.Application:
        """For an ``AppRunner``."""
        app = web.Application(client_max_size=_BODY_LIMIT_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        """A client that leaves ends its reads and streams, but never a write half-way."""
        if http.method in ("GET", "HEAD") or "Upgrade" in http.headers:
            return await self._guarded(http)
        return await asyncio.shield(self._writes.create_task(self._guarded(http)))

    async def _guarded(self, http: web.Request) -> web.StreamResponse:
        try:
            answer = await self._answer(http)
        except ApiError as e:
            answer = _json(e.status(), e.code)
            if e.code == 429 and e.details:
                answer.headers["Retry-After"] = str(e.details.get("retryAfterSeconds", 1))
        except web.HTTPRequestEntityTooLarge:
            limit = f"the body is larger than {_BODY_LIMIT_BYTES} bytes"
            answer = _json(ApiError(413, "RequestEntityTooLarge", limit).status(), 413)
        except (ConnectionResetError, aiohttp.ClientConnectionError):
            answer = _json(errors.bad_request("the client has left").status(), 400)
        except OSError as e:
            log.warning("event=store_unreachable path=%s error=%s", http.path, e)
            answer = _json(errors.unavailable(f"the store cannot be reached: {e}").status(), 503)
        except Exception as e:  # a bug in one request must not end the server for all others
            log.exception("event=request_failed method=%s path=%s", http.method, http.path)
            answer = _json(errors.internal(f"{type(e).__name__}: {e}").status(), 500)
        self.counters.count(http.method, answer.status)
        return answer

    # Who.

    def _token_user(self, token: str) -> User | None:
        found = self._static.get(token)
        if found is None and (user := tokens.verify(self._key, token, int(time.time()))):
            namespace, account = user.name.split(":")[2:]
            item = self._api.cache.get("core/serviceaccounts", f"{namespace}/{account}")
            if item is not None and meta(item.obj).get("uid") == user.uid:
                found = user
        return found

    def _user(self, http: web.Request) -> User:
        """Raises ``ApiError`` 401."""
        header = http.headers.get("Authorization", "")
        kind, _, token = header.partition(" ")
        if kind.lower() == "bearer" and (found := self._token_user(token.strip())):
            return found
        if not header and http.transport is not None:
            peer = http.transport.get_extra_info("peercert")
            if peer:
                parts = [pair for rdn in peer.get("subject", ()) for pair in rdn]
                names = [v for k, v in parts if k == "commonName"]
                groups = tuple(v for k, v in parts if k == "organizationName")
                if names:
                    return User(names[0], groups=(*groups, "system:authenticated"))
        if not header and http.path.rstrip("/") in _OPEN_PATHS:
            return tokens.ANONYMOUS
        raise errors.unauthorized()

    # What.

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        user = self._user(http)
        target = request.parse_path(http.path)
        if target is None:
            return self._not_a_resource(http)
        resource = self._registry.find(target.group, target.version, target.plural)
        if resource is None:
            raise errors.no_such_path()
        if resource.verbs == ("create",):
            return await self._review(http, resource, user)
        if resource.namespaced and target.name and not target.namespace:
            raise errors.bad_request(f"namespace is required for {resource.plural}")
        if target.subresource and target.subresource != "status":
            return await self._subresource(http, resource, target)
        if target.subresource == "status" and not resource.status:
            raise errors.no_such_path()
        return await self._verb(http, resource, target)

    def _not_a_resource(self, http: web.Request) -> web.Response:
        path = http.path.rstrip("/")
        accept = http.headers.get("Accept", "")
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/metrics":
            return web.Response(text=self.counters.text())
        if path == "/version":
            return _json(discovery.VERSION)
        if path in ("/api", "/apis"):
            for version in ("v2", "v2beta1"):
                if f"g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" in accept:
                    found = discovery.aggregated(self._registry, path == "/api", version)
                    media = (
                        f"application/json;g=apidiscovery.k8s.io;v={version};"
                        "as=APIGroupDiscoveryList"
                    )
                    return web.Response(body=_encode(found), headers={"Content-Type": media})
            if path == "/api":
                return _json(discovery.api_versions())
            return _json(discovery.group_list(self._registry))
        if path == "/openapi/v3":
            return _json(discovery.OPENAPI_V3)
        if path == "/openapi/v2":
            if "protobuf" in accept.partition(",")[0]:
                return web.Response(
                    body=discovery.OPENAPI_V2_PROTOBUF,
                    headers={
                        "Content-Type": "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
                    },
                )
            return _json(discovery.OPENAPI_V2)
        parts = path.strip("/").split("/")
        found_list = None
        if parts[0] == "api" and len(parts) == 2:
            found_list = discovery.resource_list(self._registry, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found_list = discovery.group(self._registry, parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found_list = discovery.resource_list(self._registry, parts[1], parts[2])
        elif path == "":
            found_list = {"paths": ["/api", "/apis", "/healthz", "/version"]}
        if found_list is None:
            raise errors.no_such_path()
        return _json(found_list)

    async def _body(self, http: web.Request) -> object:
        return request.decode_body(await http.read(), http.headers.get("Content-Type", ""))

    async def _verb(
        self, http: web.Request, resource: Resource, target: Target
    ) -> web.StreamResponse:
        view = request.parse_accept(http.headers.get("Accept", ""))
        place = (resource, target.namespace, target.name)
        match http.method, bool(target.name):
            case "GET", named:
                if target.watch or request.is_true(http.query, "watch"):
                    return await watch_objects(self._api, http, resource, target, view)
                if not named:
                    data = await list_objects(self._api, resource, target, http.query, view)
                    return _raw(data, view)
                await self._api.cache.wait_for(request.number(http.query, "resourceVersion"))
                return self._show(self._api.read(*place), resource, view, http)
            case "POST", False:
                item = await self._api.create(
                    resource,
                    target.namespace,
                    await self._body(http),
                    request.write_options(http.query),
                )
                return self._show(item, resource, view, http, 201)
            case "PUT", True:
                new = await self._body(http)
                if not isinstance(new, dict):
                    raise errors.bad_request(f"a {resource.kind} is a JSON object")
                item = await self._api.modify(
                    *place,
                    lambda _: patch.deep_copy(new),
                    target.subresource,
                    request.write_options(http.query),
                )
                return self._show(item, resource, view, http)
            case "PATCH", True:
                return await self._patch(http, resource, target, view)
            case "DELETE", named if not target.subresource:
                return await self._delete(http, resource, target, view)
        raise errors.method_not_allowed()

    def _show(
        self, item: Item, resource: Resource, view: View, http: web.Request, code: int = 200
    ) -> web.Response:
        render = renderer(resource, view, http.query)
        return _raw(item.raw if render is None else _encode(render(item)), view, code)

    async def _patch(
        self, http: web.Request, resource: Resource, target: Target, view: View
    ) -> web.Response:
        media = http.headers.get("Content-Type", "").partition(";")[0].strip()
        if media not in _PATCHES or (media == _STRATEGIC_PATCH and resource.custom):
            allowed = [p for p in _PATCHES if p != _STRATEGIC_PATCH or not resource.custom]
            raise errors.unsupported_media(media, allowed)
        body = await self._body(http)
        options = request.write_options(http.query)
        if media == _APPLY_PATCH:
            return await self._apply(http, resource, target, view, body, options)
        place = (resource, target.namespace, target.name)
        change = _changer(media, body)
        item = await self._api.modify(*place, change, target.subresource, options)
        return self._show(item, resource, view, http)

    async def _apply(
        self,
        http: web.Request,
        resource: Resource,
        target: Target,
        view: View,
        body: object,
        options: Options,
    ) -> web.Response:
        if not isinstance(body, dict):
            raise errors.bad_request("an apply patch is an object")
        manager = http.query.get("fieldManager", "")
        force = request.is_true(http.query, "force")
        now = timestamp(datetime.now(UTC))
        made = False

        def change(current: Obj) -> Obj:
            return ssa.apply(
                current,
                patch.deep_copy(body),
                manager,
                force,
                now,
                resource.schema if resource.custom else None,
            )

        def missing() -> Obj:
            nonlocal made
            made = True
            empty: Obj = {"metadata": {"name": target.name}}
            return change(empty)

        item = await self._api.modify(
            resource,
            target.namespace,
            target.name,
            change,
            target.subresource,
            options,
            None if target.subresource else missing,
        )
        return self._show(item, resource, view, http, 201 if made else 200)

    async def _delete(
        self, http: web.Request, resource: Resource, target: Target, view: View
    ) -> web.Response:
        body = await self._body(http) if http.can_read_body else {}
        options = request.delete_options(http.query, body if isinstance(body, dict) else {})
        if target.name:
            item, gone = await self._api.delete(resource, target.namespace, target.name, options)
            if not gone:
                return self._show(item, resource, view, http)
            details: Obj = {
                "name": target.name,
                "kind": resource.plural,
                "uid": meta(item.obj)["uid"],
            }
            if resource.group:
                details["group"] = resource.group
            return _json(errors.success(details))
        chosen = request.selection(resource, target, http.query)
        items = []
        for key, _ in list(self._api.cache.select(resource.table, chosen)):
            namespace, _, name = key.rpartition("/")
            try:
                items.append((await self._api.delete(resource, namespace, name, options))[0])
            except ApiError as e:
                if e.code != 404:
                    raise
        listed = {
            "kind": resource.list_kind,
            "apiVersion": resource.group_version,
            "metadata": {"resourceVersion": str(self._api.cache.revision)},
            "items": [msgspec.Raw(i.raw) for i in items],
        }
        return _json(listed)

    async def _review(self, http: web.Request, resource: Resource, user: User) -> web.Response:
        if http.method != "POST":
            raise errors.method_not_allowed()
        body = await self._body(http)
        asked = None
        if resource.plural == "tokenreviews" and isinstance(body, dict):
            asked = self._token_user(str((body.get("spec") or {}).get("token") or ""))
        return _json(subresources.answer_question(resource, body, user, asked), 201)

    async def _subresource(
        self, http: web.Request, resource: Resource, target: Target
    ) -> web.StreamResponse:
        place = (resource, target.namespace, target.name)
        api, method, sub = self._api, http.method, target.subresource
        options = request.write_options(http.query)
        if sub == "scale" and resource.scale:
            return await self._scale(http, resource, target, options)
        if sub not in resource.extra_subresources:
            raise errors.no_such_path()
        if sub in ("log", "exec", "attach", "portforward") and method in ("GET", "POST"):
            pod = api.read(*place).obj
            if sub == "log":
                return await self._proxy.logs(pod, http)
            if http.headers.get("Upgrade", "").lower() != "websocket":
                raise errors.bad_request(
                    f"{sub} needs a WebSocket (v5.channel.k8s.io): use kubectl 1.31 or newer, or "
                    "`isthmus lab exec`"
                )
            return await self._proxy.upgrade(pod, sub, http)
        if sub == "finalize" and method == "PUT":
            item = await subresources.finalize(
                api, resource, target.name, await self._body(http), options
            )
            return _raw(item.raw, View())
        if method != "POST":
            raise errors.method_not_allowed()
        body = await self._body(http)
        if sub == "token":
            return _json(
                await subresources.request_token(*_first(api, place), body, self._key), 201
            )
        if sub == "binding":
            await subresources.bind(*_first(api, place), body)
        elif sub == "eviction":
            await subresources.evict(
                *_first(api, place), body, request.delete_options(http.query, {})
            )
        else:
            raise errors.no_such_path()
        return _json(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "code": 201,
            },
            201,
        )

    async def _scale(
        self, http: web.Request, resource: Resource, target: Target, options: Options
    ) -> web.Response:
        place = (resource, target.namespace, target.name)
        if http.method == "GET":
            return _json(subresources.to_scale(resource, self._api.read(*place).obj))
        body = await self._body(http)
        media = http.headers.get("Content-Type", "").partition(";")[0].strip()

        def change(obj: Obj) -> Obj:
            scale = body
            if http.method == "PATCH":
                before = subresources.to_scale(resource, obj)
                scale = _changer(media, body)(before)
            if not isinstance(scale, dict):
                raise errors.bad_request("the body must be a Scale")
            return subresources.from_scale(resource, obj, scale)

        if http.method not in ("PUT", "PATCH"):
            raise errors.method_not_allowed()
        item = await self._api.modify(*place, change, "", options)
        return _json(subresources.to_scale(resource, item.obj))


def _first(api: Api, place: tuple[Resource, str, str]) -> tuple[Api, Resource, str, str]:
    return (api, *place)


def _changer(media: str, body: object) -> Callable[[Obj], Obj]:
    def change(current: Obj) -> Obj:
        match media:
            case "application/json-patch+json":
                out = patch.json_patch(current, body)
            case "application/merge-patch+json":
                out = patch.merge_patch(current, body)
            case _:
                if not isinstance(body, dict):
                    raise errors.bad_request("a strategic merge patch is an object")
                out = strategic.strategic_merge(current, body)
        if not isinstance(out, dict):
            raise errors.bad_request("the patch does not leave an object")
        return out

    return change


def _json(obj: object, code: int = 200) -> web.Response:
    return web.Response(body=_encode(obj), status=code, headers={"Content-Type": request.JSON})


def _raw(data: bytes, view: View, code: int = 200) -> web.Response:
    if view.media == request.YAML:
        text = yaml.safe_dump(msgspec.json.decode(data), sort_keys=False)
        return web.Response(body=text.encode(), status=code, headers={"Content-Type": request.YAML})
    return web.Response(body=data, status=code, headers={"Content-Type": request.JSON})
