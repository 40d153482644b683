"""The UI's backend: HTTP for its front end, gRPC for who speaks ``ui.UI``. Adapter."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, TypeVar

from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from hubble.observer_server import parse_request
from hubble.rpc_server import Call, Handler
from hubble.ui.backend import Backend
from hubble.ui.channels import Channels, ProtocolError, Send
from reconcile.tasks import TaskGroup
from wire.hubble import customprotocol_pb2 as cp
from wire.hubble import status_pb2
from wire.hubble import ui_pb2 as ui

REQUEST_MAX_BYTES: Final = 1 << 20
M = TypeVar("M", bound=Message)
_JSON: Final = "application/json"


class Routes:
    """What the front end asks for by name."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.all = {"control-stream": self._control, "service-map-stream": self._events}

    async def _control(self, content: bytes, send: Send) -> None:
        parse_request(ui.GetControlStreamRequest, content)
        await self._backend.control(lambda answer: send(answer.SerializeToString()))

    async def _events(self, content: bytes, send: Send) -> None:
        asked = parse_request(ui.GetEventsRequest, content)
        await self._backend.events(asked, lambda answer: send(answer.SerializeToString()))


def handlers(backend: Backend) -> dict[str, Handler]:
    """The service ``ui.UI`` of gRPC, by path."""

    async def events(call: Call) -> None:
        asked = parse_request(ui.GetEventsRequest, await call.request())
        await backend.events(asked, lambda answer: call.send(answer.SerializeToString()))

    async def control(call: Call) -> None:
        parse_request(ui.GetControlStreamRequest, await call.request())
        await backend.control(lambda answer: call.send(answer.SerializeToString()))

    async def status(call: Call) -> None:
        parse_request(status_pb2.GetStatusRequest, await call.request())
        await call.send((await backend.status()).SerializeToString())

    return {
        "/ui.UI/GetEvents": events,
        "/ui.UI/GetControlStream": control,
        "/ui.UI/GetStatus": status,
    }


class Web:
    """The application of HTTP."""

    def __init__(self, channels: Channels, front_end: Path | None) -> None:
        """``front_end``: a folder with its files; without there is only the API."""
        self._channels, self._front_end = channels, front_end
        self.app = web.Application(client_max_size=REQUEST_MAX_BYTES)
        self.app.router.add_get("/healthz", self._health)
        self.app.router.add_post("/api/{route}", self._post)
        self.app.router.add_get("/{path:.*}", self._file)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _post(self, request: web.Request) -> web.Response:
        is_json = request.content_type == _JSON
        try:
            answer = await self._channels.answer(_parsed(await request.read(), is_json))
        except ProtocolError as error:
            return web.Response(status=error.status, text=str(error))
        headers = {"X-Content-Type-Options": "nosniff"}
        if is_json:
            text = json_format.MessageToJson(answer, preserving_proto_field_name=True)
            return web.Response(text=text, content_type=_JSON, headers=headers)
        kind = "application/octet-stream"
        return web.Response(body=answer.SerializeToString(), content_type=kind, headers=headers)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """A file of the front end; its pages that are no files are all its first one."""
        if self._front_end is None:
            return web.Response(status=404, text="there is no front end here: see --front-end\n")
        root = self._front_end.resolve()
        path = (root / request.match_info["path"]).resolve()
        if not (path.is_relative_to(root) and path.is_file()):
            path = root / "index.html"
        return web.FileResponse(path)


def _parsed(data: bytes, is_json: bool) -> cp.Message:
    try:
        if is_json:
            return json_format.Parse(data, cp.Message(), ignore_unknown_fields=True)
        return cp.Message.FromString(data)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        raise ProtocolError(400, f"not a message: {error}") from None


@contextlib.asynccontextmanager
async def serving(
    backend: Backend, host: str | None, port: int, front_end: Path | None
) -> AsyncIterator[int]:
    """The backend on HTTP while the context lasts; gives the port."""
    async with TaskGroup() as group:
        channels = Channels(Routes(backend).all, group)
        runner = web.AppRunner(Web(channels, front_end).app, access_log=None)
        await runner.setup()
        sweeping = group.create_task(channels.sweep())
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            yield int(runner.addresses[0][1])
        finally:
            sweeping.cancel()
            channels.close()
            await runner.cleanup()
