"""Pods and the labels of their identity."""

import msgspec
import pytest

from model.address import parse_address
from model.labels import Label
from wire.k8s.pod import Pod, addresses_of, counts_for_identity, identity_labels


def decode(text: str) -> Pod:
    return msgspec.json.decode(text, type=Pod)


def test_addresses_come_from_the_list_and_else_from_the_single_field() -> None:
    """Both families from podIPs; an old server gives podIP only; none yet means none."""
    both = decode('{"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]}}')
    assert addresses_of(both) == (parse_address("10.0.0.1"), parse_address("fd00::1"))
    assert addresses_of(decode('{"status":{"podIP":"10.0.0.2"}}')) == (parse_address("10.0.0.2"),)
    assert addresses_of(decode("{}")) == ()


def test_unknown_fields_and_nulls_are_fine() -> None:
    """A newer server's fields are ignored; null where a map may be is an empty map."""
    pod = decode('{"metadata":{"labels":null,"newField":{}},"spec":{"fancy":[1]}}')
    assert pod.metadata.labels is None
    assert pod.running
    assert not pod.ready


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        ("app", True),
        ("team.example.com/name", True),
        ("io.kubernetes.pod.namespace", True),
        ("io.kubernetes.pod.name", False),
        ("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", True),
        ("io.cilium.k8s.policy.cluster", True),
        ("io.cilium.k8s.policy.serviceaccount", True),
        ("app.kubernetes.io/name", True),
        ("kubernetes.io/hostname", False),
        ("statefulset.kubernetes.io/pod-name", False),
        ("apps.kubernetes.io/pod-index", False),
        ("batch.kubernetes.io/job-completion-index", False),
        ("batch.kubernetes.io/controller-uid", False),
        ("batch.kubernetes.io/job-name", True),
        ("failure-domain.beta.kubernetes.io/zone", False),
        ("k8s.io/x", False),
        ("pod-template-generation", False),
        ("pod-template-hash", False),
        ("controller-revision-hash", False),
        ("controller-uid", False),
        ("annotation.something", False),
        ("etcd_node", False),
    ],
)
def test_default_label_filter(key: str, counts: bool) -> None:
    """The longest matching rule of the default filter decides; what none matches counts."""
    assert counts_for_identity(key) is counts


def test_identity_labels_of_a_pod() -> None:
    """User labels, namespace, its labels, cluster and service account, in canonical text."""
    found = identity_labels(
        {"app": "shop", "pod-template-hash": "7c9f"},
        "web",
        {"kubernetes.io/metadata.name": "web"},
        "default",
        "berlin",
    )
    assert found.text() == (
        "k8s:app=shop;"
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=web;"
        "k8s:io.cilium.k8s.policy.cluster=berlin;"
        "k8s:io.cilium.k8s.policy.serviceaccount=default;"
        "k8s:io.kubernetes.pod.namespace=web;"
    )


def test_a_pod_cannot_claim_what_is_derived() -> None:
    """Labels that name another cluster, namespace or service account are not the pod's to set."""
    claimed = {
        "io.cilium.k8s.policy.cluster": "paris",
        "io.kubernetes.pod.namespace": "kube-system",
        "io.cilium.k8s.policy.serviceaccount": "admin",
        "io.cilium.k8s.namespace.labels.trusted": "yes",
        "io.cilium.k8s.policy.name": "allow-all",
        "io.cilium.k8s/anything": "yes",
    }
    found = identity_labels(claimed, "web", {}, "", "berlin")
    assert set(found) == {
        Label("io.cilium.k8s.policy.cluster", "berlin"),
        Label("io.kubernetes.pod.namespace", "web"),
    }
