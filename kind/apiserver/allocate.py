"""Service addresses and node ports: chosen, or checked when the client asks for one. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias

from kind.apiserver import families
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


def allocate(service: Obj, networks: Sequence[Network], taken: Taken, start: int) -> list[Cause]:
    """Fill clusterIP(s) and node ports in place; ``start`` is any number, where to look first.

    ``networks``: one per family of the cluster, its first family first.
    """
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return []
    by_family = {f"IPv{network.version}": network for network in networks}
    causes = families.settle(spec, list(by_family))
    causes = causes or _addresses(
        spec, [by_family[f] for f in spec.get("ipFamilies", ())], taken, start
    )
    return causes or _node_ports(spec, taken, start)


def _addresses(spec: Obj, networks: Sequence[Network], taken: Taken, start: int) -> list[Cause]:
    asked = list(spec.get("clusterIPs") or ())
    if spec.get("clusterIP"):
        asked[:1] = [spec["clusterIP"]]
    if asked[:1] == ["None"]:
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
        return []
    given: list[str] = []
    for place, network in enumerate(networks):
        found, cause = _address(asked[place] if place < len(asked) else "", network, taken, start)
        if cause is not None:
            return [cause]
        given.append(found)
    spec["clusterIP"], spec["clusterIPs"] = given[0], given
    return []


def _address(asked: str, network: Network, taken: Taken, start: int) -> tuple[str, Cause | None]:
    if asked:
        why = _refuse(asked, network, taken)
        text = f"failed to allocate IP {asked}: {why}"
        return asked, wrong("spec.clusterIPs", [asked], text) if why else None
    found = _free(network, taken, start)
    if found is None:
        text = "failed to allocate a serviceIP: range is full"
        return "", wrong("spec.clusterIPs", [], text)
    return found, None


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
