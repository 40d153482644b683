"""Health and reflection of gRPC, as every server of Hubble offers them. Adapter.

Health: ``""`` and ``hubble.server.Observer`` (that name, not the service's; clients ask for it).
Reflection shows our services by the .proto files that ``wire.hubble`` was made of.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hubble.rpc import Code, RpcError
from hubble.rpc_server import Call, Handler

HEALTH_NAMES: Final = frozenset(("", "hubble.server.Observer"))
_HEALTH: Final = "grpc.health.v1.Health"
_REFLECTION: Final = (
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
)
_RECHECK_S: Final = 5.0


class Health:
    """Serving or not, as ``is_serving`` says."""

    def __init__(self, is_serving: Callable[[], bool]) -> None:
        self._is_serving = is_serving

    def handlers(self) -> dict[str, Handler]:
        """What it serves, by path."""
        return {f"/{_HEALTH}/Check": self._check, f"/{_HEALTH}/Watch": self._watch}

    def _status(self) -> int:
        states = health_pb2.HealthCheckResponse
        return int(states.SERVING if self._is_serving() else states.NOT_SERVING)

    async def _service(self, call: Call) -> str:
        return str(health_pb2.HealthCheckRequest.FromString(await call.request()).service)

    async def _check(self, call: Call) -> None:
        service = await self._service(call)
        if service not in HEALTH_NAMES:
            raise RpcError(Code.NOT_FOUND, f"unknown service {service!r}")
        await call.send(health_pb2.HealthCheckResponse(status=self._status()).SerializeToString())

    async def _watch(self, call: Call) -> None:
        known = await self._service(call) in HEALTH_NAMES
        told = -1
        while True:
            status = self._status() if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                told = status
                await call.send(health_pb2.HealthCheckResponse(status=status).SerializeToString())
            await asyncio.sleep(_RECHECK_S)


class Reflection:
    """Names services and hands out their descriptions."""

    def __init__(self, services: Iterable[str]) -> None:
        # Who is told of a service asks for its file, and there is none of the newer reflection.
        self._services = sorted({*services, _HEALTH, _REFLECTION[0]})

    def handlers(self) -> dict[str, Handler]:
        """What it serves, by path."""
        return {f"/{name}/ServerReflectionInfo": self._info for name in _REFLECTION}

    async def _info(self, call: Call) -> None:
        while messages := await call.stream.take():
            for message in messages:
                asked = reflection_pb2.ServerReflectionRequest.FromString(message)
                await call.send(self._answer(asked).SerializeToString())

    def _answer(
        self, asked: reflection_pb2.ServerReflectionRequest
    ) -> reflection_pb2.ServerReflectionResponse:
        answer = reflection_pb2.ServerReflectionResponse(
            valid_host=asked.host, original_request=asked
        )
        pool = descriptor_pool.Default()
        try:
            match asked.WhichOneof("message_request"):
                case "list_services":
                    for name in self._services:
                        answer.list_services_response.service.add(name=name)
                case "file_by_filename":
                    _add_files(answer, pool.FindFileByName(asked.file_by_filename))
                case "file_containing_symbol":
                    _add_files(answer, pool.FindFileContainingSymbol(asked.file_containing_symbol))
                case _:
                    answer.error_response.error_code = Code.UNIMPLEMENTED
                    answer.error_response.error_message = "extensions do not exist here"
        except KeyError as error:
            answer.error_response.error_code = Code.NOT_FOUND
            answer.error_response.error_message = str(error)
        return answer


def _add_files(answer: reflection_pb2.ServerReflectionResponse, file: FileDescriptor) -> None:
    """The file and all it imports, each once."""
    seen: dict[str, bytes] = {}

    def add(one: FileDescriptor) -> None:
        if one.name in seen:
            return
        proto = descriptor_pb2.FileDescriptorProto()
        one.CopyToProto(proto)
        seen[one.name] = proto.SerializeToString()
        for dependency in one.dependencies:
            add(dependency)

    add(file)
    answer.file_descriptor_response.file_descriptor_proto.extend(seen.values())
