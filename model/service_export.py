"""A Service that a cluster offers to the whole set of clusters (KEP-1645). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from model.cluster import ClusterName
from model.service import Protocol, ServiceName


class ExportType(Enum):
    """Whether the set of clusters gives it an address of its own."""

    CLUSTER_SET_IP = "ClusterSetIP"
    HEADLESS = "Headless"


class SessionAffinity(Enum):
    """Whether a client stays with its backend."""

    NONE = "None"
    CLIENT_IP = "ClientIP"


@dataclass(frozen=True, slots=True, order=True)
class ExportedPort:
    """A port as clients of all clusters see it."""

    port: int
    protocol: Protocol
    name: str = ""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class ServiceExport:
    """What one cluster says of a service that it exports."""

    cluster: ClusterName
    name: ServiceName
    created: datetime  # of the ServiceExport, with a zone: the oldest one decides
    ports: tuple[ExportedPort, ...] = ()
    type: ExportType = ExportType.CLUSTER_SET_IP
    affinity: SessionAffinity = SessionAffinity.NONE
    affinity_timeout_s: int | None = None  # None: not said
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


_NAME = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def is_qualified(name: str) -> bool:
    """Whether it may name a label or an annotation, or be an ``appProtocol``."""
    return _NAME.fullmatch(name) is not None


def check_metadata(annotations: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Raises ``ValueError`` naming the first of them that no API server takes."""
    for name in annotations:
        if not is_qualified(name):
            raise ValueError(
                f'annotation "{name}" is no valid name: use letters, digits, -_. and /'
            )
    for name, value in labels.items():
        if not is_qualified(name) or not _VALUE.fullmatch(value):
            raise ValueError(
                f'label "{name}={value}" is not valid: use at most 63 letters, digits and -_.'
            )
