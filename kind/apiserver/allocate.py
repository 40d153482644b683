"""Service addresses and node ports: chosen, or checked when the client asks for one. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias

from kind.apiserver.errors import Cause
from kind.apiserver.objects import Obj, dicts, dig
from kind.apiserver.validate import wrong

Network: TypeAlias = IPv4Network | IPv6Network
NODE_PORTS = range(30000, 32768)
_STATIC_BAND = 32  # the lowest addresses are left to those who ask for one by number


class Taken:
    """Addresses and node ports in use, by the services at hand."""

    def __init__(self, services: Iterable[Obj]) -> None:
        self.addresses: set[str] = set()
        self.ports: set[tuple[int, str]] = set()
        for service in services:
            self.add(service)

    def add(self, service: Obj) -> None:
        self.addresses |= {a for a in dig(service, "spec", "clusterIPs") or [] if a != "None"}
        self.ports |= {
            (p["nodePort"], p.get("protocol", "TCP"))
            for p in dicts(dig(service, "spec", "ports"))
            if p.get("nodePort")
        }


def allocate(service: Obj, network: Network, taken: Taken, start: int) -> list[Cause]:
    """Fill clusterIP(s) and node ports in place; ``start`` is any number, where to look first."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return []
    family = f"IPv{network.version}"
    spec.setdefault("ipFamilies", [family])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    causes = _address(spec, network, taken, start)
    return causes or _node_ports(spec, taken, start)


def _address(spec: Obj, network: Network, taken: Taken, start: int) -> list[Cause]:
    asked = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or []), "")
    if asked == "None":
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
        return []
    if asked:
        why = _refuse(asked, network, taken)
        if why:
            return [wrong("spec.clusterIPs", [asked], f"failed to allocate IP {asked}: {why}")]
    else:
        found = _free(network, taken, start)
        if found is None:
            return [wrong("spec.clusterIPs", [], "failed to allocate a serviceIP: range is full")]
        asked = found
    spec["clusterIP"], spec["clusterIPs"] = asked, [asked]
    return []


def _refuse(asked: str, network: Network, taken: Taken) -> str:
    try:
        address = ip_address(asked)
    except ValueError:
        return "it is no IP address"
    if address not in network:
        return f"the provided IP is not in the valid range. The range of valid IPs is {network}"
    return "provided IP is already allocated" if str(address) in taken.addresses else ""


def _free(network: Network, taken: Taken, start: int) -> str | None:
    usable = network.num_addresses - 2  # neither the network's nor the broadcast address
    low = _STATIC_BAND if usable > 4 * _STATIC_BAND else 1
    span = min(usable - low, 1 << 20)
    for i in range(span):
        candidate = str(network[1 + low + (start + i) % span])
        if candidate not in taken.addresses:
            return candidate
    return None


def _node_ports(spec: Obj, taken: Taken, start: int) -> list[Cause]:
    if spec.get("type") not in ("NodePort", "LoadBalancer"):
        for p in dicts(spec.get("ports")):
            p.pop("nodePort", None)
        return []
    mine: set[tuple[int, str]] = set()
    for i, p in enumerate(dicts(spec.get("ports"))):
        protocol, asked = p.get("protocol", "TCP"), p.get("nodePort")
        at = f"spec.ports[{i}].nodePort"
        if asked and asked not in NODE_PORTS:
            return [
                wrong(
                    at,
                    asked,
                    "provided port is not in the valid range. The range of valid "
                    "ports is 30000-32767",
                )
            ]
        if asked and (asked, protocol) in taken.ports:
            return [wrong(at, asked, "provided port is already allocated")]
        if not asked:
            size = len(NODE_PORTS)
            asked = next(
                (
                    NODE_PORTS[(start + j) % size]
                    for j in range(size)
                    if (NODE_PORTS[(start + j) % size], protocol) not in taken.ports | mine
                ),
                None,
            )
            if asked is None:
                return [wrong(at, 0, "range is full")]
            p["nodePort"] = asked
        mine.add((asked, protocol))
    return []
