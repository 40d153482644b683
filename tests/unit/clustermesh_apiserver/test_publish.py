"""What is published for a set of Kubernetes objects, key by key."""

import itertools
import json
import random
from typing import Any, TypeVar

import msgspec
import pytest

from clustermesh_apiserver.publish import Publication, Rows
from model.cluster import ClusterId, ClusterName
from wire.k8s.cilium_endpoint import CiliumEndpoint
from wire.k8s.cilium_identity import CiliumIdentity
from wire.k8s.cilium_node import CiliumNode
from wire.k8s.endpointslice import EndpointSlice
from wire.k8s.service import Service

T = TypeVar("T")

SHOP = "cilium/state/services/v1/berlin/web/shop"
POD_IP = "cilium/state/ip/v1/default/10.11.3.207"


def publication() -> Publication:
    return Publication(ClusterName("berlin"), ClusterId(7))


def of(type_: type[T], body: dict[str, Any]) -> T:
    return msgspec.convert(body, type_)


def meta(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", **more}


def service(name: str = "shop", global_: str = "true", **annotations: str) -> Service:
    return of(
        Service,
        {
            "metadata": meta(
                name,
                "web",
                labels={"app": "shop"},
                annotations={"service.cilium.io/global": global_, **annotations},
            ),
            "spec": {
                "clusterIP": "10.96.4.5",
                "clusterIPs": ["10.96.4.5"],
                "selector": {"app": "shop"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        },
    )


def slice_(name: str = "shop-a", owner: str = "shop", **ready: bool) -> EndpointSlice:
    return of(
        EndpointSlice,
        {
            "metadata": meta(name, "web", labels={"kubernetes.io/service-name": owner}),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [address.replace("_", ".")], "conditions": {"ready": state}}
                for address, state in ready.items()
            ],
        },
    )


def ten(last: int) -> str:
    return f"10_11_3_{last}"


def endpoint(
    name: str = "shop-7c9f-abcde",
    ip: str = "10.11.3.207",
    created: str = "2026-03-04T05:06:07Z",
    identity: int = 491777,
) -> CiliumEndpoint:
    return of(
        CiliumEndpoint,
        {
            "metadata": meta(name, "web", creationTimestamp=created),
            "status": {
                "id": 12,
                "identity": {"id": identity},
                "networking": {"addressing": [{"ipv4": ip}], "node": "192.0.2.11"},
            },
        },
    )


def test_golden_keys_and_values() -> None:
    """One node, identity, pod and shared service give exactly these rows of Cluster Mesh."""
    node = of(
        CiliumNode,
        {
            "metadata": meta("b-worker-1", labels={"kubernetes.io/hostname": "b-worker-1"}),
            "spec": {
                "addresses": [
                    {"type": "InternalIP", "ip": "192.0.2.11"},
                    {"type": "Hostname", "ip": "b-worker-1"},
                    {"type": "CiliumInternalIP", "ip": "10.11.3.1"},
                ],
                "ipam": {"podCIDRs": ["10.11.3.0/24"]},
                "health": {"ipv4": "10.11.3.40"},
                "bootid": "0d6c1f7e-1111-4222-8333-abcdefabcdef",
            },
        },
    )
    identity = of(
        CiliumIdentity,
        {
            "metadata": meta("491777"),
            "security-labels": {
                "k8s:io.kubernetes.pod.namespace": "web",
                "k8s:app": "shop",
                "k8s:io.cilium.k8s.policy.cluster": "berlin",
                "k8s:io.cilium.k8s.policy.serviceaccount": "default",
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "web",
            },
        },
    )
    said = publication()
    rows = said.node(None, node) | said.identity(None, identity) | said.endpoint(None, endpoint())
    rows |= said.service(None, service()) | said.slice(None, slice_(**{ten(207): True}))
    rows |= said.complete_services()
    assert {k: v.decode() for k, v in rows.items() if v is not None} == {
        "cilium/state/nodes/v1/berlin/b-worker-1": (
            '{"Name":"b-worker-1","Cluster":"berlin","IPAddresses":[{"Type":"InternalIP","IP":'
            '"192.0.2.11"},{"Type":"CiliumInternalIP","IP":"10.11.3.1"}],"IPv4AllocCIDR":{"IP":'
            '"10.11.3.0","Mask":"////AA=="},"IPv4SecondaryAllocCIDRs":null,"IPv6AllocCIDR":null,'
            '"IPv6SecondaryAllocCIDRs":null,"IPv4HealthIP":"10.11.3.40","IPv6HealthIP":"",'
            '"IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":7,"Source":"custom-resource",'
            '"EncryptionKey":0,"Labels":{"kubernetes.io/hostname":"b-worker-1"},'
            '"Annotations":null,"NodeIdentity":0,"WireguardPubKey":"",'
            '"BootID":"0d6c1f7e-1111-4222-8333-abcdefabcdef"}'
        ),
        "cilium/state/identities/v1/id/491777": (
            "k8s:app=shop;"
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=web;"
            "k8s:io.cilium.k8s.policy.cluster=berlin;"
            "k8s:io.cilium.k8s.policy.serviceaccount=default;"
            "k8s:io.kubernetes.pod.namespace=web;"
        ),
        POD_IP: (
            '{"IP":"10.11.3.207","Mask":null,"HostIP":"192.0.2.11","ID":491777,"Key":0,'
            '"Metadata":"","K8sNamespace":"web","K8sPodName":"shop-7c9f-abcde"}'
        ),
        SHOP: (
            '{"cluster":"berlin","namespace":"web","name":"shop","frontends":{"10.96.4.5":'
            '{"http":{"Protocol":"TCP","Port":80}}},"backends":{"10.11.3.207":{"http":'
            '{"Protocol":"TCP","Port":8080}}},"hostnames":{},"labels":{"app":"shop"},'
            '"selector":{"app":"shop"},"includeExternal":true,"shared":true,"clusterID":7}'
        ),
    }
    assert said.problems == {}


def services_said(*changes: tuple[str, Any, Any]) -> tuple[Publication, Rows]:
    """A publication after its first lists, then after some changes; the rows of the changes."""
    said = publication()
    said.complete_services()
    rows: Rows = {}
    for what, old, new in changes:
        rows |= getattr(said, what)(old, new)
    return said, rows


def backends(value: bytes | None) -> list[str]:
    assert value is not None
    return sorted(json.loads(value)["backends"])


@pytest.mark.parametrize(
    ("annotations", "name", "shared"),
    [
        ({}, "shop", True),
        ({"global_": "false"}, "shop", False),
        ({"global_": "perhaps"}, "shop", False),
        ({"service.cilium.io/shared": "false"}, "shop", False),
        ({"service.cilium.io/shared": "perhaps"}, "shop", True),
        ({"service.cilium.io/affinity": "local"}, "shop", True),
        ({}, "kube-scheduler", False),
        ({}, "kube-controller-manager", False),
    ],
)
def test_only_global_shared_services_are_exported(
    annotations: dict[str, str], name: str, shared: bool
) -> None:
    """Global and shared, by default if an annotation cannot be understood; never certain names."""
    _, rows = services_said(("service", None, service(name, **annotations)))
    value = rows[f"cilium/state/services/v1/berlin/web/{name}"]
    assert (value is not None) is shared


def test_unsharing_withdraws_and_sharing_brings_back() -> None:
    """A changed annotation costs one key, with all backends when it comes back."""
    hidden = service(**{"service.cilium.io/shared": "false"})
    said, _ = services_said(
        ("service", None, service()), ("slice", None, slice_(**{ten(1): True, ten(2): True}))
    )
    assert said.service(service(), hidden) == {SHOP: None}
    rows = said.service(hidden, service())
    assert list(rows) == [SHOP]
    assert backends(rows[SHOP]) == ["10.11.3.1", "10.11.3.2"]


def test_invalid_annotation_is_named_until_it_is_corrected() -> None:
    """One sentence naming the object, counted, gone with the correction."""
    bad = service(**{"service.cilium.io/shared": "perhaps"})
    said, _ = services_said(("service", None, bad))
    (sentence,) = said.problems["Service", "web", "shop"]
    assert "Service web/shop: annotation service.cilium.io/shared" in sentence
    assert said.rejected == 1
    said.service(bad, service())
    assert said.problems == {}


def test_only_ready_backends_are_offered() -> None:
    """A backend that is not ready is not in the record."""
    said, rows = services_said(
        ("service", None, service()), ("slice", None, slice_(**{ten(1): True, ten(2): False}))
    )
    assert backends(rows[SHOP]) == ["10.11.3.1"]
    rows = said.slice(None, slice_("shop-a", **{ten(1): True, ten(2): True}))
    assert backends(rows[SHOP]) == ["10.11.3.1", "10.11.3.2"]


def test_no_service_before_both_lists() -> None:
    """A service without its slices yet would be read as a service without backends."""
    said = publication()
    assert said.service(None, service()) == {}
    assert said.slice(None, slice_(**{ten(1): True})) == {}
    assert backends(said.complete_services()[SHOP]) == ["10.11.3.1"]


def test_headless_service_offers_backends_without_frontends() -> None:
    """Host names go with the backends that have one."""
    headless = of(
        Service,
        {
            "metadata": meta("db", "web", annotations={"service.cilium.io/global": "true"}),
            "spec": {"clusterIP": "None", "ports": [{"port": 5432}]},
        },
    )
    names = of(
        EndpointSlice,
        {
            "metadata": meta("db-1", "web", labels={"kubernetes.io/service-name": "db"}),
            "ports": [{"port": 5432}],
            "endpoints": [{"addresses": ["10.11.3.9"], "hostname": "db-0"}],
        },
    )
    _, rows = services_said(("service", None, headless), ("slice", None, names))
    value = json.loads(rows["cilium/state/services/v1/berlin/web/db"] or b"")
    assert value["frontends"] == {}
    assert value["backends"] == {"10.11.3.9": {"": {"Protocol": "TCP", "Port": 5432}}}
    assert value["hostnames"] == {"10.11.3.9": "db-0"}


def test_slice_that_changes_its_service_is_taken_from_the_first() -> None:
    """Both services are said anew."""
    said, _ = services_said(("service", None, service()), ("service", None, service("other")))
    said.slice(None, slice_(**{ten(1): True}))
    rows = said.slice(slice_(**{ten(1): True}), slice_(owner="other", **{ten(1): True}))
    assert backends(rows[SHOP]) == []
    assert backends(rows["cilium/state/services/v1/berlin/web/other"]) == ["10.11.3.1"]


def test_copies_of_remote_backends_are_not_given_back() -> None:
    """Slices that hold another cluster's backends would go round in circles."""
    own = slice_(**{ten(1): True})
    copy = slice_("shop-of-paris", **{ten(2): True})
    labels = {
        **(copy.metadata.labels or {}),
        "endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io",
    }
    copy = msgspec.structs.replace(
        copy, metadata=msgspec.structs.replace(copy.metadata, labels=labels)
    )
    said, rows = services_said(("service", None, service()), ("slice", None, own))
    assert said.slice(None, copy) == {}
    assert backends(rows[SHOP]) == ["10.11.3.1"]


def test_deleted_service_is_withdrawn() -> None:
    """Its slices may go before or after it."""
    said, _ = services_said(("service", None, service()), ("slice", None, slice_(**{ten(1): True})))
    assert said.service(service(), None) == {SHOP: None}
    assert said.slice(slice_(**{ten(1): True}), None) == {SHOP: None}


def test_bad_slice_keeps_what_it_last_said() -> None:
    """An address that is none costs no backend, and holds up no other slice."""
    good, bad = slice_(**{ten(1): True}), slice_(nonsense=True)
    said, _ = services_said(("service", None, service()), ("slice", None, good))
    assert said.slice(good, bad) == {}
    assert "EndpointSlice web/shop-a" in said.problems["EndpointSlice", "web", "shop-a"][0]
    rows = said.slice(None, slice_("shop-b", **{ten(3): True}))
    assert backends(rows[SHOP]) == ["10.11.3.1", "10.11.3.3"]
    rows = said.slice(bad, slice_(**{ten(2): True}))
    assert backends(rows[SHOP]) == ["10.11.3.2", "10.11.3.3"]
    assert said.problems == {}
    said.slice(slice_(**{ten(2): True}), bad)
    assert backends(said.slice(bad, None)[SHOP]) == ["10.11.3.3"]
    assert said.problems == {}


def test_reused_address_stays_with_the_younger_pod() -> None:
    """The older pod's object goes away late and must not take the address along."""
    said = publication()
    old, new = endpoint("old"), endpoint("new", created="2026-03-04T05:06:09Z")
    said.endpoint(None, old)
    assert b'"K8sPodName":"new"' in (said.endpoint(None, new)[POD_IP] or b"")
    rows = said.endpoint(old, None)
    assert b'"K8sPodName":"new"' in (rows[POD_IP] or b"")
    assert said.endpoint(new, None) == {POD_IP: None}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_youngest_pod_has_the_address_in_any_order(order: tuple[int, ...]) -> None:
    """The order in which objects are listed decides nothing."""
    pods = [endpoint(f"p{n}", created=f"2026-03-04T05:06:0{n}Z") for n in range(3)]
    said = publication()
    rows: Rows = {}
    for index in order:
        rows |= said.endpoint(None, pods[index])
    assert b'"K8sPodName":"p2"' in (rows[POD_IP] or b"")


def test_update_of_the_older_pod_does_not_take_the_address_back() -> None:
    """Only age decides, not who spoke last."""
    said = publication()
    old, new = endpoint("old"), endpoint("new", created="2026-03-04T05:06:09Z")
    said.endpoint(None, old)
    said.endpoint(None, new)
    rows = said.endpoint(old, endpoint("old", identity=491778))
    assert b'"K8sPodName":"new"' in (rows[POD_IP] or b"")


def test_changed_address_replaces_the_former() -> None:
    """The key of the address that was given up goes."""
    said = publication()
    said.endpoint(None, endpoint())
    rows = said.endpoint(endpoint(), endpoint(ip="10.11.3.208"))
    assert rows[POD_IP] is None
    assert rows["cilium/state/ip/v1/default/10.11.3.208"] is not None


def test_unusable_objects_keep_their_last_good_rows() -> None:
    """A node with a bad prefix, an endpoint with a bad address, an identity without a number."""
    said = publication()
    good = of(CiliumNode, {"metadata": meta("n"), "spec": {}})
    bad = of(CiliumNode, {"metadata": meta("n"), "spec": {"ipam": {"podCIDRs": ["10.1.0.1/8"]}}})
    said.node(None, good)
    said.endpoint(None, endpoint())
    assert said.node(good, bad) == {}
    assert said.endpoint(endpoint(), endpoint(ip="10.11.3")) == {}
    assert said.identity(None, of(CiliumIdentity, {"metadata": meta("x")})) == {}
    assert sorted(said.problems) == [
        ("CiliumEndpoint", "web", "shop-7c9f-abcde"),
        ("CiliumIdentity", "", "x"),
        ("CiliumNode", "", "n"),
    ]
    assert said.rejected == 3
    assert said.node(bad, None) == {"cilium/state/nodes/v1/berlin/n": None}
    assert said.endpoint(endpoint(), None) == {POD_IP: None}
    assert said.identity(of(CiliumIdentity, {"metadata": meta("x")}), None) == {}
    assert said.problems == {}


@pytest.mark.parametrize("seed", range(100))
def test_end_state_does_not_depend_on_the_path(seed: int) -> None:
    """Whatever came before, the rows are those of a publication that saw only the last objects."""
    draw = random.Random(seed)
    kinds: dict[str, list[tuple[str, list[Any]]]] = {
        "endpoint": [
            (n, [endpoint(n, f"10.11.3.{i}", f"2026-03-04T05:06:0{k}Z") for i in (1, 2)])
            for k, n in enumerate(("a", "b", "c"))
        ],
        "service": [
            (n, [service(n), service(n, "false"), service(n, **{"io.cilium/shared-service": "x"})])
            for n in ("s", "t")
        ],
        "slice": [
            (n, [slice_(n, owner, **{ten(i): ready}) for owner in "st" for ready in (True, False)])
            for i, n in enumerate(("x", "y"))
        ],
    }
    walked, table = publication(), {}
    present: dict[tuple[str, str], Any] = {}
    complete = draw.randrange(40)
    for step in range(40):
        if step == complete:
            table |= walked.complete_services()
        what = draw.choice(list(kinds))
        name, forms = draw.choice(kinds[what])
        old = present.pop((what, name), None)
        new = draw.choice([*forms, None])
        if old is None and new is None:
            continue
        if new is not None:
            present[what, name] = new
        table |= getattr(walked, what)(old, new)
    fresh, expected = publication(), {}
    objects = list(present.items())
    draw.shuffle(objects)
    for (what, _), obj in objects:
        expected |= getattr(fresh, what)(None, obj)
    expected |= fresh.complete_services()
    assert {k: v for k, v in table.items() if v} == {k: v for k, v in expected.items() if v}
