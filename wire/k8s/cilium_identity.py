"""CiliumIdentity ↔ Identity. Pure.

``security-labels`` is the truth; ``metadata.labels`` repeats the Kubernetes labels for listing.
"""

from typing import Any

import msgspec

from model.identity import Identity, NumericIdentity
from model.labels import NAMESPACE_META_PREFIX, SOURCE_K8S, Label, Labels
from wire.k8s.errors import ObjectError
from wire.k8s.meta import K8sObject

GC_MARK = "io.cilium.heartbeat"  # annotation: since when the collector has seen it unused


class CiliumIdentity(K8sObject, frozen=True):
    """A numeric identity and its labels; the name is the number."""

    security_labels: dict[str, str] | None = msgspec.field(name="security-labels", default=None)


def decode_labels(security_labels: dict[str, str]) -> Labels:
    """``{"k8s:app": "shop"}`` → labels. A key without source keeps an empty one."""
    found = []
    for text, value in security_labels.items():
        source, separator, key = text.partition(":")
        found.append(Label(key, value, source) if separator else Label(text, value, ""))
    return Labels.of(found)


def encode_labels(labels: Labels) -> dict[str, str]:
    """Inverse of ``decode_labels``."""
    return {f"{i.source}:{i.key}" if i.source else i.key: i.value for i in labels}


def decode_identity(obj: CiliumIdentity) -> Identity:
    """Raises ``ObjectError`` when the name is no number or the object has no labels."""
    name = obj.metadata.name
    if not name.isascii() or not name.isdigit() or not 0 < int(name) < 1 << 24:
        raise ObjectError(
            "CiliumIdentity", "", name, "its name is no identity number: delete the object"
        )
    if not obj.security_labels:
        raise ObjectError(
            "CiliumIdentity", "", name, "it has no security-labels: delete the object"
        )
    return Identity(NumericIdentity(int(name)), decode_labels(obj.security_labels))


def encode_identity(identity: Identity) -> dict[str, Any]:
    """The body of a CiliumIdentity to create."""
    shown = {
        i.key: i.value
        for i in identity.labels
        if i.source == SOURCE_K8S and not i.key.startswith(NAMESPACE_META_PREFIX)
    }
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": str(identity.id), "labels": shown},
        "security-labels": encode_labels(identity.labels),
    }
