"""What the cluster's names mean: Services and EndpointSlices → DNS records. Pure.

The schema is that of "Kubernetes DNS-Based Service Discovery" 1.1.0: A/AAAA of services and of the
ready endpoints of headless ones, SRV of named ports, PTR of addresses. A name that does not exist
is told apart from a name without records of the asked type, because resolvers go on with the next
search domain only for the former.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

Json = dict[str, Any]
Address = IPv4Address | IPv6Address

SERVICE_LABEL = "kubernetes.io/service-name"


class Srv(NamedTuple):
    """A port of a service, or of one endpoint of a headless one."""

    priority: int
    weight: int
    port: int
    target: str  # full name, with the final dot


@dataclass(slots=True)
class Records:
    """All records of one name."""

    addresses: set[Address] = field(default_factory=set)
    services: set[Srv] = field(default_factory=set)
    alias: str = ""  # ExternalName: where the name really is
    pointers: set[str] = field(default_factory=set)


class Zone(Mapping[str, Records]):
    """All names of a cluster, in lower case and with the final dot."""

    def __init__(self, domain: str, *others: str) -> None:
        """``others``: domains of which we are the authority as well."""
        self.domain = domain.rstrip(".") + "."
        self._domains = (self.domain, *(other.rstrip(".") + "." for other in others))
        self._names: dict[str, Records] = {}

    def __getitem__(self, name: str) -> Records:
        return self._names[name]

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> Records:
        """The records of a name, new ones when it is new; its parents exist from then on."""
        parent = name.partition(".")[2]
        while parent and parent not in self._names:
            self._names[parent] = Records()
            parent = parent.partition(".")[2]
        return self._names.setdefault(name, Records())

    def covers(self, name: str) -> bool:
        """True when we are the authority for a name."""
        return bool(self.domain_of(name))

    def domain_of(self, name: str) -> str:
        """The domain of ours in which a name lies; empty: in none."""
        for domain in self._domains:
            if name == domain or name.endswith("." + domain):
                return domain
        return ""


def build(domain: str, services: Iterable[Json], slices: Iterable[Json], *others: str) -> Zone:
    """All records of a cluster; ``others`` are domains that somebody else fills."""
    zone = Zone(domain, *others)
    for each in (domain, *others):
        zone.add(each.rstrip(".") + ".")
    version = zone.add(f"dns-version.{zone.domain}")
    version.alias = ""
    by_service: dict[tuple[str, str], list[Json]] = {}
    for item in slices:
        labels = item["metadata"].get("labels") or {}
        key = (item["metadata"]["namespace"], labels.get(SERVICE_LABEL, ""))
        by_service.setdefault(key, []).append(item)
    for service in services:
        metadata = service["metadata"]
        own = by_service.get((metadata["namespace"], metadata["name"]), [])
        _add_service(zone, service, own)
    return zone


def _add_service(zone: Zone, service: Json, slices: list[Json]) -> None:
    metadata, spec = service["metadata"], service.get("spec") or {}
    name = f"{metadata['name']}.{metadata['namespace']}.svc.{zone.domain}".lower()
    if spec.get("type") == "ExternalName":
        zone.add(name).alias = str(spec.get("externalName", "")).rstrip(".") + "."
        return
    if spec.get("clusterIP") == "None":
        _add_headless(zone, name, spec, slices)
        return
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip]
    records = zone.add(name)
    for text in addresses:
        address = ip_address(text)
        records.addresses.add(address)
        zone.add(reverse(address)).pointers.add(name)
    for port in spec.get("ports") or []:
        if port.get("name"):
            add_port(zone, name, port, Srv(0, 100, int(port["port"]), name))


def add_port(zone: Zone, name: str, port: Json, record: Srv) -> None:
    """A named port of a service."""
    protocol = str(port.get("protocol") or "TCP").lower()
    zone.add(f"_{port['name']}._{protocol}.{name}".lower()).services.add(record)


def _add_headless(zone: Zone, name: str, spec: Json, slices: list[Json]) -> None:
    zone.add(name)
    unready = bool(spec.get("publishNotReadyAddresses"))
    for item in slices:
        for endpoint in item.get("endpoints") or []:
            ready = (endpoint.get("conditions") or {}).get("ready")
            if ready is False and not unready:
                continue
            for text in endpoint.get("addresses") or []:
                address = ip_address(text)
                host = endpoint.get("hostname") or text.replace(".", "-").replace(":", "-")
                full = f"{host}.{name}".lower()
                zone[name].addresses.add(address)
                zone.add(full).addresses.add(address)
                zone.add(reverse(address)).pointers.add(full)
                for port in item.get("ports") or []:
                    if port.get("name") and port.get("port"):
                        add_port(zone, name, port, Srv(0, 100, int(port["port"]), full))


def reverse(address: Address) -> str:
    """The name under which an address is looked up."""
    return address.reverse_pointer + "."
