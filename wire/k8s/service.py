"""Services, and what their annotations say about the mesh. Pure.

A value that is not understood never takes the rest of the object with it: the default is used and
the sentence about it is returned beside the result, for the caller to count and show.
"""

import msgspec

from model.address import Address, parse_address
from model.local_service import LocalService, MeshSettings, Proximity
from model.service import L4, Affinity, Protocol, ServiceName
from wire.k8s.errors import ObjectError
from wire.k8s.mesh_preference import with_preference
from wire.k8s.meta import K8sObject, K8sStruct, ObjectMeta, annotations_of, labels_of

GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
SHARED = ("service.cilium.io/shared", "io.cilium/shared-service")
AFFINITY = ("service.cilium.io/affinity", "io.cilium/service-affinity")
LB_ALGORITHM = "service.cilium.io/lb-algorithm"
TOPOLOGY_MODE = (
    "service.kubernetes.io/topology-mode",
    "service.kubernetes.io/topology-aware-hints",
)
DEFAULT_SESSION_AFFINITY_S = 10800  # what the API server fills in as well


class ServicePort(K8sStruct, frozen=True):
    """A port clients connect to."""

    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    target_port: int | str = 0
    node_port: int = 0
    app_protocol: str = ""


class ClientIPConfig(K8sStruct, frozen=True):
    """Options of session affinity by client address."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(K8sStruct, frozen=True):
    """Options of session affinity."""

    client_ip: ClientIPConfig | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(K8sStruct, frozen=True):
    """What a service offers."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    internal_traffic_policy: str = ""
    traffic_distribution: str = ""


class Service(K8sObject, frozen=True):
    """A service."""

    spec: ServiceSpec = ServiceSpec()

    @property
    def headless(self) -> bool:
        """Explicitly without a cluster address."""
        return self.spec.cluster_ip == "None"


_PROTOCOLS = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}


def protocol_of(text: str | None) -> Protocol:
    """The protocol of a port; absent means TCP. Raises ``ValueError``."""
    try:
        return _PROTOCOLS[text or "TCP"]
    except KeyError:
        raise ValueError(f'protocol "{text}" is not known: use TCP, UDP or SCTP') from None


def service_name(meta: ObjectMeta) -> ServiceName:
    """The name under which clusters meet."""
    return ServiceName(meta.namespace, meta.name)


def _annotation(meta: ObjectMeta, names: tuple[str, str]) -> tuple[str, str] | None:
    """The annotation and its value; the older alias counts only without the newer name."""
    annotations = annotations_of(meta)
    return next(((name, annotations[name]) for name in names if name in annotations), None)


def _boolean(meta: ObjectMeta, names: tuple[str, str], default: bool, problems: list[str]) -> bool:
    found = _annotation(meta, names)
    if found is None:
        return default
    name, value = found
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    problems.append(
        f'Service {meta.namespace}/{meta.name}: annotation {name} is "{value}": '
        f'use "true" or "false"; "{str(default).lower()}" is used until then'
    )
    return default


def mesh_settings(meta: ObjectMeta) -> tuple[MeshSettings, tuple[str, ...]]:
    """Settings, and one sentence for each annotation that cannot be understood.

    All but ``global`` have a meaning on global services only and are not looked at on others.
    """
    problems: list[str] = []
    if not _boolean(meta, GLOBAL, False, problems):
        return MeshSettings(), tuple(problems)
    shared = _boolean(meta, SHARED, True, problems)
    affinity = Affinity.NONE
    found = _annotation(meta, AFFINITY)
    if found is not None and found[1]:
        name, value = found
        try:
            affinity = Affinity(value.lower())
        except ValueError:
            problems.append(
                f'Service {meta.namespace}/{meta.name}: annotation {name} is "{value}": '
                'use "local", "remote" or "none"; "none" is used until then'
            )
    mesh = MeshSettings(is_global=True, shared=shared, affinity=affinity)
    return with_preference(meta, mesh, problems), tuple(problems)


def _cluster_addresses(service: Service) -> list[Address]:
    texts = service.spec.cluster_ips or [service.spec.cluster_ip]
    return [parse_address(t) for t in texts if t not in ("", "None")]


def _selection(meta: ObjectMeta, problems: list[str]) -> str:
    value = annotations_of(meta).get(LB_ALGORITHM, "")
    if value in ("", "random", "maglev"):
        return value
    problems.append(
        f'Service {meta.namespace}/{meta.name}: annotation {LB_ALGORITHM} is "{value}": '
        'use "random" or "maglev"; the default is used until then'
    )
    return ""


def _session_affinity_s(spec: ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    config = spec.session_affinity_config
    if config is None or config.client_ip is None or config.client_ip.timeout_seconds is None:
        return DEFAULT_SESSION_AFFINITY_S
    return config.client_ip.timeout_seconds


_DISTRIBUTIONS = {
    "": Proximity.ANYWHERE,
    "PreferClose": Proximity.ZONE,
    "PreferSameZone": Proximity.ZONE,
    "PreferSameNode": Proximity.NODE,
}


def _proximity(meta: ObjectMeta, spec: ServiceSpec, problems: list[str]) -> Proximity:
    """The annotation counts before the newer field, and a policy before both."""
    if spec.internal_traffic_policy == "Local":
        return Proximity.ONLY_NODE
    found = _annotation(meta, TOPOLOGY_MODE)
    if found is not None and found[1].lower() == "auto":
        return Proximity.HINTED
    try:
        return _DISTRIBUTIONS[spec.traffic_distribution]
    except KeyError:
        problems.append(
            f"Service {meta.namespace}/{meta.name}: spec.trafficDistribution is "
            f'"{spec.traffic_distribution}": use "PreferSameZone" (or "PreferClose") or '
            '"PreferSameNode"; backends anywhere are used until then'
        )
        return Proximity.ANYWHERE


def decode_service(service: Service) -> tuple[LocalService, tuple[str, ...]]:
    """The service in our words, and sentences about what was not understood in it.

    An ExternalName service is an alias in DNS: it has neither frontends nor backends.
    Raises ``ObjectError`` when its addresses or ports are unusable.
    """
    meta, spec = service.metadata, service.spec
    mesh, found = mesh_settings(meta)
    problems = list(found)
    try:
        ports = {p.name: L4(p.port, protocol_of(p.protocol)) for p in spec.ports or ()}
        addresses = [] if spec.type == "ExternalName" else _cluster_addresses(service)
    except ValueError as error:
        raise ObjectError("Service", meta.namespace, meta.name, str(error)) from error
    decoded = LocalService(
        name=service_name(meta),
        frontends={address: dict(ports) for address in addresses},
        headless=service.headless,
        mesh=mesh,
        session_affinity_s=_session_affinity_s(spec),
        proximity=_proximity(meta, spec, problems),
        selection=_selection(meta, problems),
        labels=dict(labels_of(meta)),
        selector=dict(spec.selector or {}),
    )
    return decoded, tuple(problems)
