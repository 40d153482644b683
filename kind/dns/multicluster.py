"""Names of the set of clusters: ServiceImports → records below ``clusterset.local``. Pure.

The schema is that of KEP-2577: a name per import with the import's addresses, SRV records of its
named ports; of a headless one the addresses of all its ready endpoints, and a name for each of them
that tells its cluster as well, since two clusters may have pods of one name.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from kind.dns.zone import Srv, Zone, add_port

Json = dict[str, Any]

DOMAIN = "clusterset.local"
SERVICE_LABEL = "multicluster.kubernetes.io/service-name"
CLUSTER_LABEL = "multicluster.kubernetes.io/source-cluster"


def add(zone: Zone, imports: Iterable[Json], slices: Iterable[Json]) -> None:
    """Add all imports to a zone that is the authority for ``DOMAIN``."""
    by_service: dict[tuple[str, str], list[Json]] = {}
    for item in slices:
        service = (item["metadata"].get("labels") or {}).get(SERVICE_LABEL)
        if service:
            by_service.setdefault((item["metadata"]["namespace"], service), []).append(item)
    for item in imports:
        metadata, spec = item["metadata"], item.get("spec") or {}
        name = f"{metadata['name']}.{metadata['namespace']}.svc.{DOMAIN}.".lower()
        zone.add(name)
        if spec.get("type") == "Headless":
            for part in by_service.get((metadata["namespace"], metadata["name"]), ()):
                _add_endpoints(zone, name, part)
            continue
        zone[name].addresses.update(ip_address(ip) for ip in spec.get("ips") or ())
        for port in spec.get("ports") or ():
            if port.get("name"):
                add_port(zone, name, port, Srv(0, 100, int(port["port"]), name))


def _add_endpoints(zone: Zone, name: str, part: Json) -> None:
    cluster = (part["metadata"].get("labels") or {}).get(CLUSTER_LABEL, "")
    for endpoint in part.get("endpoints") or ():
        if (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        for text in endpoint.get("addresses") or ():
            address = ip_address(text)
            host = endpoint.get("hostname") or text.replace(".", "-").replace(":", "-")
            full = ".".join(filter(None, (host, cluster, name))).lower()
            zone[name].addresses.add(address)
            zone.add(full).addresses.add(address)
            for port in part.get("ports") or ():
                if port.get("name") and port.get("port"):
                    add_port(zone, name, port, Srv(0, 100, int(port["port"]), full))
