"""`POST /v1/cni`: one call of the CNI plugin. Adapter.

The answer's body is what the plugin prints: status 200 with the result, else the error object.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from agent import cni_types
from agent.cni_types import CniError, CniRequest
from agent.endpoint_store import Endpoint
from agent.endpoints import Endpoints
from model.address import Address

_decoder = msgspec.json.Decoder(CniRequest)


class Cni:
    """Answers the plugin."""

    def __init__(
        self,
        endpoints: Endpoints,
        routers: tuple[Address, ...],
        ready: Callable[[], str | None],
    ) -> None:
        """``ready`` says why pods cannot be attached yet; ``None``: they can."""
        self._endpoints, self._routers, self._ready = endpoints, routers, ready

    async def handle(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """HTTP status and body."""
        version = "0.3.1"
        try:
            try:
                request = _decoder.decode(data)
            except msgspec.MsgspecError as error:
                raise CniError(
                    cni_types.CODE_DECODE, f"the plugin's request does not decode: {error}"
                ) from error
            version = request.config.cni_version
            if version not in cni_types.SUPPORTED:
                raise CniError(
                    cni_types.CODE_INCOMPATIBLE,
                    f'cniVersion "{version}" is not supported: '
                    f"use one of {', '.join(cni_types.SUPPORTED)}",
                )
            return 200, await self._run(request)
        except CniError as error:
            return 500, error.body(version)

    async def _run(self, request: CniRequest) -> dict[str, Any]:
        waiting = self._ready()
        match request.command:
            case "ADD":
                if waiting is not None:
                    raise CniError(cni_types.CODE_TRY_AGAIN, f"the agent is starting: {waiting}")
                if request.config.prev_result is not None:
                    raise CniError(
                        cni_types.CODE_CONFIG,
                        "the configuration has a plugin before cilium-cni: put it first",
                    )
                return self._result(request, await self._endpoints.add(request))
            case "DEL":
                await self._endpoints.delete(request.container_id, request.ifname)
                return {}
            case "CHECK":
                await self._endpoints.check(request)
                return {}
            case "STATUS":
                if waiting is not None:
                    raise CniError(
                        cni_types.CODE_NOT_AVAILABLE, f"the agent is starting: {waiting}"
                    )
                return {}
            case other:
                raise CniError(
                    cni_types.CODE_ENVIRONMENT, f'CNI_COMMAND "{other}" is not supported'
                )

    def _result(self, request: CniRequest, endpoint: Endpoint) -> dict[str, Any]:
        local = endpoint.local
        # One that was attached before a family was switched on has no address of it.
        versions = {address.version for address in local.addresses}
        return cni_types.result(
            request.config.cni_version,
            (local.interface, local.host_mac),
            (request.ifname, local.mac, request.netns),
            local.addresses,
            tuple(r for r in self._routers if r.version in versions),
        )
