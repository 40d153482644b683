"""Services and their mesh annotations."""

from dataclasses import replace
from typing import Any

import pytest

from model.address import parse_address
from model.local_service import MeshSettings, Proximity
from model.service import L4, Affinity, Protocol
from wire.k8s.errors import ObjectError
from wire.k8s.meta import ObjectMeta
from wire.k8s.service import (
    ClientIPConfig,
    Service,
    ServicePort,
    ServiceSpec,
    SessionAffinityConfig,
    decode_service,
    mesh_settings,
)

GLOBAL = "service.cilium.io/global"


def meta(**annotations: str) -> ObjectMeta:
    return ObjectMeta(name="shop", namespace="web", annotations=annotations)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, MeshSettings()),
        ({GLOBAL: "true"}, MeshSettings(is_global=True)),
        ({GLOBAL: "True"}, MeshSettings(is_global=True)),
        ({"io.cilium/global-service": "true"}, MeshSettings(is_global=True)),
        ({GLOBAL: "false", "io.cilium/global-service": "true"}, MeshSettings()),
        (
            {GLOBAL: "true", "service.cilium.io/shared": "false"},
            MeshSettings(is_global=True, shared=False),
        ),
        (
            {GLOBAL: "true", "io.cilium/shared-service": "FALSE"},
            MeshSettings(is_global=True, shared=False),
        ),
        (
            {GLOBAL: "true", "service.cilium.io/affinity": "local"},
            MeshSettings(is_global=True, affinity=Affinity.LOCAL),
        ),
        (
            {GLOBAL: "true", "io.cilium/service-affinity": "Remote"},
            MeshSettings(is_global=True, affinity=Affinity.REMOTE),
        ),
        ({GLOBAL: "true", "service.cilium.io/affinity": "none"}, MeshSettings(is_global=True)),
        ({GLOBAL: "true", "service.cilium.io/affinity": ""}, MeshSettings(is_global=True)),
        # Without global the others have no meaning, not even a wrong one.
        (
            {"service.cilium.io/shared": "maybe", "service.cilium.io/affinity": "near"},
            MeshSettings(),
        ),
    ],
)
def test_annotations(annotations: dict[str, str], expected: MeshSettings) -> None:
    """Names, aliases and spellings of the three annotations."""
    assert mesh_settings(meta(**annotations)) == (expected, ())


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (GLOBAL, "yes", MeshSettings()),
        ("service.cilium.io/shared", "0", MeshSettings(is_global=True)),
        ("io.cilium/shared-service", "", MeshSettings(is_global=True)),
        ("service.cilium.io/affinity", "near", MeshSettings(is_global=True)),
    ],
)
def test_invalid_annotation_is_named_and_replaced_by_the_default(
    annotation: str, value: str, expected: MeshSettings
) -> None:
    """One sentence names object, annotation, value and what to write instead."""
    settings, problems = mesh_settings(meta(**{GLOBAL: "true", annotation: value}))
    assert settings == expected
    assert len(problems) == 1
    assert problems[0].startswith(f'Service web/shop: annotation {annotation} is "{value}": use "')


ORDER = "isthmus.io/affinity-order"
THRESHOLD = "isthmus.io/failover-threshold"
WEIGHTS = "isthmus.io/cluster-weights"
AFFINITY = "service.cilium.io/affinity"


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({ORDER: "cluster1,cluster3"}, {"order": ("cluster1", "cluster3")}),
        ({ORDER: " cluster3 , cluster1 "}, {"order": ("cluster3", "cluster1")}),
        (
            {AFFINITY: "local", THRESHOLD: "50%"},
            {"affinity": Affinity.LOCAL, "threshold_pct": 50},
        ),
        ({ORDER: "c1", THRESHOLD: " 100% "}, {"order": ("c1",), "threshold_pct": 100}),
        ({ORDER: "c1", THRESHOLD: "0%"}, {"order": ("c1",)}),
        (
            {WEIGHTS: "cluster2=20, cluster1=80"},
            {"weights": (("cluster1", 80), ("cluster2", 20))},
        ),
        ({WEIGHTS: "c1=1,c2=0"}, {"weights": (("c1", 1), ("c2", 0))}),
    ],
)
def test_preference_of_clusters(annotations: dict[str, str], expected: dict[str, Any]) -> None:
    """Order, threshold and weights as they are written."""
    settings = MeshSettings(is_global=True, **expected)
    assert mesh_settings(meta(**{GLOBAL: "true"}, **annotations)) == (settings, ())
    # Without global they have no meaning.
    assert mesh_settings(meta(**annotations)) == (MeshSettings(), ())


@pytest.mark.parametrize(
    ("annotation", "value", "remedy"),
    [
        (ORDER, "", 'use names of clusters like "cluster1,cluster3"'),
        (ORDER, "cluster1,,cluster3", 'use names of clusters like "cluster1,cluster3"'),
        (ORDER, "Cluster_1", 'use names of clusters like "cluster1,cluster3"'),
        (ORDER, "c1,c2,c1", "use each cluster once (c1 is there twice)"),
        (THRESHOLD, "50", 'use a share from "0%" to "100%"'),
        (THRESHOLD, "101%", 'use a share from "0%" to "100%"'),
        (THRESHOLD, "-1%", 'use a share from "0%" to "100%"'),
        (THRESHOLD, "0.5%", 'use a share from "0%" to "100%"'),
        (THRESHOLD, "%", 'use a share from "0%" to "100%"'),
        (THRESHOLD, "50%", "it has no effect while our cluster does not come before others"),
        (WEIGHTS, "", 'use clusters with weights like "cluster1=80,cluster2=20"'),
        (WEIGHTS, "c1:80", 'use clusters with weights like "cluster1=80,cluster2=20"'),
        (WEIGHTS, "c1=80%", 'use clusters with weights like "cluster1=80,cluster2=20"'),
        (WEIGHTS, "c1=-1", 'use clusters with weights like "cluster1=80,cluster2=20"'),
        (WEIGHTS, "=80", 'use clusters with weights like "cluster1=80,cluster2=20"'),
        (WEIGHTS, "c1=0,c2=0", "use weights up to 10000, one of them above 0"),
        (WEIGHTS, "c1=10001", "use weights up to 10000, one of them above 0"),
        (WEIGHTS, "c1=1,c1=2", "use each cluster once (c1 is there twice)"),
        (WEIGHTS, "c1=\u0665", 'use clusters with weights like "cluster1=80,cluster2=20"'),
    ],
)
def test_invalid_preference_is_named_and_replaced_by_the_default(
    annotation: str, value: str, remedy: str
) -> None:
    """One sentence; the other annotations of the service stay in force."""
    other = WEIGHTS if annotation != WEIGHTS else ORDER
    good = {WEIGHTS: "c7=1", ORDER: "c7"}[other]
    if annotation == THRESHOLD:
        other, good = WEIGHTS, "c7=1"
    settings, problems = mesh_settings(meta(**{GLOBAL: "true", annotation: value, other: good}))
    (problem,) = problems
    assert problem.startswith(f'Service web/shop: annotation {annotation} is "{value}": {remedy}')
    alone, _ = mesh_settings(meta(**{GLOBAL: "true", other: good}))
    no_effect = annotation == THRESHOLD and value == "50%"
    assert settings == (replace(alone, threshold_pct=50) if no_effect else alone)


def test_service_with_two_ports() -> None:
    """Every cluster address has all ports, by name."""
    spec = ServiceSpec(
        cluster_ip="10.96.4.5",
        cluster_ips=["10.96.4.5", "fd00::5"],
        ports=[ServicePort(name="http", port=80), ServicePort(name="dns", port=53, protocol="UDP")],
        session_affinity="ClientIP",
        session_affinity_config=SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=60)),
    )
    service, problems = decode_service(Service(metadata=meta(), spec=spec))
    ports = {"http": L4(80, Protocol.TCP), "dns": L4(53, Protocol.UDP)}
    assert problems == ()
    assert service.frontends == {
        parse_address("10.96.4.5"): ports,
        parse_address("fd00::5"): ports,
    }
    assert service.session_affinity_s == 60


@pytest.mark.parametrize(
    "spec",
    [
        ServiceSpec(cluster_ip="None", ports=[ServicePort(port=80)]),
        ServiceSpec(type="ExternalName", cluster_ip=""),
    ],
)
def test_services_without_address_have_no_frontends(spec: ServiceSpec) -> None:
    """Headless and ExternalName services."""
    service, _ = decode_service(Service(metadata=meta(), spec=spec))
    assert service.frontends == {}
    assert service.headless is (spec.cluster_ip == "None")


MODE = "service.kubernetes.io/topology-mode"


@pytest.mark.parametrize(
    ("fields", "annotations", "expected"),
    [
        ({}, {}, Proximity.ANYWHERE),
        ({"traffic_distribution": "PreferClose"}, {}, Proximity.ZONE),
        ({"traffic_distribution": "PreferSameZone"}, {}, Proximity.ZONE),
        ({"traffic_distribution": "PreferSameNode"}, {}, Proximity.NODE),
        ({}, {MODE: "Auto"}, Proximity.HINTED),
        ({}, {"service.kubernetes.io/topology-aware-hints": "auto"}, Proximity.HINTED),
        ({}, {MODE: "Disabled"}, Proximity.ANYWHERE),
        ({"traffic_distribution": "PreferClose"}, {MODE: "Auto"}, Proximity.HINTED),
        ({"internal_traffic_policy": "Cluster"}, {}, Proximity.ANYWHERE),
        ({"internal_traffic_policy": "Local"}, {MODE: "Auto"}, Proximity.ONLY_NODE),
    ],
)
def test_near_backends(
    fields: dict[str, str], annotations: dict[str, str], expected: Proximity
) -> None:
    """Field, annotation and policy; the narrower one counts."""
    spec = ServiceSpec(cluster_ip="10.96.4.5", **fields)
    service, problems = decode_service(Service(metadata=meta(**annotations), spec=spec))
    assert (service.proximity, problems) == (expected, ())


def test_an_unknown_distribution_is_named() -> None:
    """A word of a newer Kubernetes takes nothing else with it."""
    spec = ServiceSpec(cluster_ip="10.96.4.5", traffic_distribution="PreferSameRack")
    service, (problem,) = decode_service(Service(metadata=meta(), spec=spec))
    assert service.proximity is Proximity.ANYWHERE
    assert problem.startswith('Service web/shop: spec.trafficDistribution is "PreferSameRack": use')


def test_unusable_service_is_named() -> None:
    """What cannot be used at all names the object."""
    spec = ServiceSpec(cluster_ip="10.96.4.5", ports=[ServicePort(port=1, protocol="DCCP")])
    with pytest.raises(ObjectError, match=r'Service web/shop: protocol "DCCP" is not known'):
        decode_service(Service(metadata=meta(), spec=spec))
