"""What the CNI plugin sends and gets. Pure. CNI specification 0.3.1 to 1.0.0."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from model.address import Address
from model.kernel_numbers import ENDPOINT_PREFIX

SUPPORTED = ("0.3.0", "0.3.1", "0.4.0", "1.0.0")

CODE_INCOMPATIBLE = 1
CODE_ENVIRONMENT = 4
CODE_DECODE = 6
CODE_CONFIG = 7
CODE_TRY_AGAIN = 11
CODE_NOT_AVAILABLE = 50
CODE_UNHEALTHY = 101
CODE_FAILED = 999


class CniError(Exception):
    """Answered as the specification's error object."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.details = code, details

    def body(self, version: str) -> dict[str, Any]:
        """The object the plugin prints."""
        body: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": str(self)}
        if self.details:
            body["details"] = self.details
        return body


class NetConf(msgspec.Struct, frozen=True, rename={"cni_version": "cniVersion"}):
    """The plugin's part of the network configuration, as far as we read it."""

    cni_version: str = "0.3.1"
    name: str = ""
    prev_result: msgspec.Raw | None = msgspec.field(name="prevResult", default=None)


class CniRequest(msgspec.Struct, frozen=True):
    """One call of the plugin."""

    command: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: str = ""
    config: NetConf = NetConf()

    def arguments(self) -> dict[str, str]:
        """``CNI_ARGS``: ``K8S_POD_NAME=x;K8S_POD_NAMESPACE=y``."""
        pairs = (part.partition("=") for part in self.args.split(";") if part)
        return {key: value for key, _, value in pairs}


@dataclass(frozen=True, slots=True)
class PodName:
    """Which pod an attachment is for; all empty when the runtime does not say."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


def pod_of(request: CniRequest) -> PodName:
    """The pod a request is about."""
    arguments = request.arguments()
    return PodName(
        arguments.get("K8S_POD_NAMESPACE", ""),
        arguments.get("K8S_POD_NAME", ""),
        arguments.get("K8S_POD_UID", ""),
    )


def host_interface(container_id: str, container_interface: str) -> str:
    """Name of the host end: the same for every attempt at one attachment."""
    digest = sha256(f"{container_id}:{container_interface}".encode()).hexdigest()
    return ENDPOINT_PREFIX + digest[:12]


def result(
    version: str,
    host: tuple[str, bytes],
    container: tuple[str, bytes, str],
    addresses: tuple[Address, ...],
    routers: tuple[Address, ...],
) -> dict[str, Any]:
    """The answer to ADD. ``host``: name, MAC; ``container``: name, MAC, namespace path.

    ``routers``: one per family that the pod has an address of.
    """
    gateways = {router.version: router for router in routers}
    ips = []
    for address in addresses:
        ip: dict[str, Any] = {
            "interface": 1,
            "address": f"{address}/{address.max_prefixlen}",
            "gateway": str(gateways[address.version]),
        }
        if version != "1.0.0":
            ip["version"] = str(address.version)
        ips.append(ip)
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": host[0], "mac": host[1].hex(":")},
            {"name": container[0], "mac": container[1].hex(":"), "sandbox": container[2]},
        ],
        "ips": ips,
        "routes": [
            route
            for router in routers
            for route in (
                {"dst": f"{router}/{router.max_prefixlen}"},
                {"dst": "0.0.0.0/0" if router.version == 4 else "::/0", "gw": str(router)},
            )
        ],
        "dns": {},
    }
