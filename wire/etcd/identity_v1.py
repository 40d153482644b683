"""``cilium/state/identities/v1/id/<number>``: labels as one canonical text. Pure.

A reader believes a cluster only about its own identities: the number must lie in the cluster's
range, and exactly one label names the cluster.
"""

from functools import lru_cache
from itertools import pairwise

from model.cluster import ClusterName, IdentityRange
from model.identity import Identity, NumericIdentity
from model.labels import CLUSTER_LABEL, SOURCE_K8S, Label, Labels
from wire.etcd.errors import LocalWireError, RemoteWireError

LIMIT_BYTES = 64 * 1024  # labels of one pod; Kubernetes bounds each, nobody has that many


def encode(labels: Labels) -> bytes:
    """The value of the key. Raises ``LocalWireError`` for an identity without labels."""
    if not labels:
        raise LocalWireError("an identity needs at least one label")
    return labels.text().encode()


def parse_labels(text: str) -> Labels:
    """Read the canonical text; a label without a source has the source ``unspec``."""
    found = [_label(part) for part in text.split(";") if part]
    places = [(label.key, label.source) for label in found]
    for before, after in pairwise(places):
        if before >= after:
            return Labels.of(found)
    return Labels(tuple(found))  # in order, as it is written


@lru_cache(maxsize=16_384)
def _label(text: str) -> Label:
    """One label; most identities of a mesh share most of theirs, and the memory for them."""
    source, colon, rest = text.partition(":")
    if not colon:
        source, rest = "unspec", text
    key, _, value = rest.partition("=")
    return Label(key, value, source)


def decode_number(name: str, allowed: IdentityRange, where: str) -> NumericIdentity:
    """The number in a key. Raises ``RemoteWireError``."""
    if not name.isascii() or not name.isdecimal() or len(name) > 10:
        raise RemoteWireError(where, f"{name!r} is not a numeric identity")
    number = int(name)
    if number not in allowed:
        raise RemoteWireError(
            where, f"identity {number} is outside {allowed.first}..{allowed.last} of this cluster"
        )
    return NumericIdentity(number)


def decode(
    name: str, data: bytes, cluster: ClusterName, allowed: IdentityRange, where: str
) -> Identity:
    """Raises ``RemoteWireError``."""
    number = decode_number(name, allowed, where)
    if len(data) > LIMIT_BYTES:
        raise RemoteWireError(where, f"{len(data)} bytes of labels, more than {LIMIT_BYTES}")
    try:
        labels = parse_labels(data.decode())
    except UnicodeDecodeError as error:
        raise RemoteWireError(where, "the labels are not UTF-8") from error
    said = [label for label in labels if label.key == CLUSTER_LABEL]
    if [label.source for label in said] != [SOURCE_K8S] or said[0].value != cluster:
        raise RemoteWireError(
            where, f"label k8s:{CLUSTER_LABEL}={cluster} is missing or contradicted"
        )
    return Identity(number, labels)
