"""Bodies in Kubernetes' protobuf, of the kinds that kubectl makes without a manifest. Pure.

kubectl sends its imperative creations (``create configmap``, ``create deployment``, ``create
token``, ...) as protobuf and has no way back to JSON. Field numbers are those of Kubernetes'
published ``generated.proto`` files. A field or kind that is not in these tables is refused, so that
nothing a client sent gets lost.
"""

import base64
from collections.abc import Iterator
from typing import Any

from kind.apiserver.errors import ApiError, unsupported_media
from kind.apiserver.objects import Obj

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

# Message → field number → (JSON name, type). Types: s text, b bytes, i number, t truth; a message's
# name; [x] repeated; {x} map of text to x; x? a pointer, whose zero is kept; - is skipped.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "ObjectMeta": {
        1: ("name", "s"),
        2: ("generateName", "s"),
        3: ("namespace", "s"),
        4: ("selfLink", "-"),
        5: ("uid", "s"),
        6: ("resourceVersion", "s"),
        7: ("generation", "-"),
        8: ("creationTimestamp", "-"),
        9: ("deletionTimestamp", "-"),
        10: ("deletionGracePeriodSeconds", "-"),
        11: ("labels", "{s}"),
        12: ("annotations", "{s}"),
        13: ("ownerReferences", "[OwnerReference]"),
        14: ("finalizers", "[s]"),
        17: ("managedFields", "-"),
    },
    "OwnerReference": {
        1: ("kind", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
        5: ("apiVersion", "s"),
        6: ("controller", "t?"),
        7: ("blockOwnerDeletion", "t?"),
    },
    "ObjectReference": {
        1: ("kind", "s"),
        2: ("namespace", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
        5: ("apiVersion", "s"),
        6: ("resourceVersion", "s"),
        7: ("fieldPath", "s"),
    },
    "LocalObjectReference": {1: ("name", "s")},
    "LabelSelector": {
        1: ("matchLabels", "{s}"),
        2: ("matchExpressions", "[LabelSelectorRequirement]"),
    },
    "LabelSelectorRequirement": {1: ("key", "s"), 2: ("operator", "s"), 3: ("values", "[s]")},
    "IntOrString": {1: ("type", "i"), 2: ("intVal", "i"), 3: ("strVal", "s")},
    "Quantity": {1: ("string", "s")},
    "Namespace": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "NamespaceSpec"),
        3: ("status", "NamespaceStatus"),
    },
    "NamespaceSpec": {1: ("finalizers", "[s]")},
    "NamespaceStatus": {1: ("phase", "s")},
    "ConfigMap": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "{s}"),
        3: ("binaryData", "{b}"),
        4: ("immutable", "t?"),
    },
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "{b}"),
        3: ("type", "s"),
        4: ("stringData", "{s}"),
        5: ("immutable", "t?"),
    },
    "ServiceAccount": {
        1: ("metadata", "ObjectMeta"),
        2: ("secrets", "[ObjectReference]"),
        3: ("imagePullSecrets", "[LocalObjectReference]"),
        4: ("automountServiceAccountToken", "t?"),
    },
    "Service": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "ServiceSpec"),
        3: ("status", "ServiceStatus"),
    },
    "ServiceStatus": {1: ("loadBalancer", "LoadBalancerStatus")},
    "LoadBalancerStatus": {},
    "ServiceSpec": {
        1: ("ports", "[ServicePort]"),
        2: ("selector", "{s}"),
        3: ("clusterIP", "s"),
        4: ("type", "s"),
        5: ("externalIPs", "[s]"),
        7: ("sessionAffinity", "s"),
        8: ("loadBalancerIP", "s"),
        9: ("loadBalancerSourceRanges", "[s]"),
        10: ("externalName", "s"),
        11: ("externalTrafficPolicy", "s"),
        12: ("healthCheckNodePort", "i"),
        13: ("publishNotReadyAddresses", "t"),
        17: ("ipFamilyPolicy", "s"),
        18: ("clusterIPs", "[s]"),
        19: ("ipFamilies", "[s]"),
        22: ("internalTrafficPolicy", "s"),
    },
    "ServicePort": {
        1: ("name", "s"),
        2: ("protocol", "s"),
        3: ("port", "i"),
        4: ("targetPort", "IntOrString"),
        5: ("nodePort", "i"),
        6: ("appProtocol", "s"),
    },
    "PodTemplateSpec": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodSpec")},
    "PodSpec": {
        2: ("containers", "[Container]"),
        3: ("restartPolicy", "s"),
        4: ("terminationGracePeriodSeconds", "i?"),
        5: ("activeDeadlineSeconds", "i?"),
        6: ("dnsPolicy", "s"),
        7: ("nodeSelector", "{s}"),
        8: ("serviceAccountName", "s"),
        9: ("serviceAccount", "s"),
        10: ("nodeName", "s"),
        11: ("hostNetwork", "t"),
        12: ("hostPID", "t"),
        13: ("hostIPC", "t"),
        14: ("securityContext", "PodSecurityContext"),
        16: ("hostname", "s"),
        17: ("subdomain", "s"),
        19: ("schedulerName", "s"),
        24: ("priorityClassName", "s"),
    },
    "PodSecurityContext": {},
    "Container": {
        1: ("name", "s"),
        2: ("image", "s"),
        3: ("command", "[s]"),
        4: ("args", "[s]"),
        5: ("workingDir", "s"),
        6: ("ports", "[ContainerPort]"),
        7: ("env", "[EnvVar]"),
        8: ("resources", "ResourceRequirements"),
        13: ("terminationMessagePath", "s"),
        14: ("imagePullPolicy", "s"),
        16: ("stdin", "t"),
        17: ("stdinOnce", "t"),
        18: ("tty", "t"),
        20: ("terminationMessagePolicy", "s"),
    },
    "ContainerPort": {
        1: ("name", "s"),
        2: ("hostPort", "i"),
        3: ("containerPort", "i"),
        4: ("protocol", "s"),
        5: ("hostIP", "s"),
    },
    "EnvVar": {1: ("name", "s"), 2: ("value", "s")},
    "ResourceRequirements": {1: ("limits", "{Quantity}"), 2: ("requests", "{Quantity}")},
    "Deployment": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "DeploymentSpec"),
        3: ("status", "-"),
    },
    "DeploymentSpec": {
        1: ("replicas", "i?"),
        2: ("selector", "LabelSelector"),
        3: ("template", "PodTemplateSpec"),
        4: ("strategy", "DeploymentStrategy"),
        5: ("minReadySeconds", "i"),
        6: ("revisionHistoryLimit", "i?"),
        7: ("paused", "t"),
        9: ("progressDeadlineSeconds", "i?"),
    },
    "DeploymentStrategy": {1: ("type", "s")},
    "Job": {1: ("metadata", "ObjectMeta"), 2: ("spec", "JobSpec"), 3: ("status", "-")},
    "JobSpec": {
        1: ("parallelism", "i?"),
        2: ("completions", "i?"),
        3: ("activeDeadlineSeconds", "i?"),
        4: ("selector", "LabelSelector"),
        5: ("manualSelector", "t?"),
        6: ("template", "PodTemplateSpec"),
        7: ("backoffLimit", "i?"),
        8: ("ttlSecondsAfterFinished", "i?"),
        9: ("completionMode", "s"),
        10: ("suspend", "t?"),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "i?"),
        2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "t?"),
        4: ("propagationPolicy", "s"),
        5: ("dryRun", "[s]"),
    },
    "Preconditions": {1: ("uid", "s"), 2: ("resourceVersion", "s")},
    "Eviction": {1: ("metadata", "ObjectMeta"), 2: ("deleteOptions", "DeleteOptions")},
    "TokenRequest": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "TokenRequestSpec"),
        3: ("status", "-"),
    },
    "TokenRequestSpec": {
        1: ("audiences", "[s]"),
        3: ("boundObjectRef", "BoundObjectReference"),
        4: ("expirationSeconds", "i"),
    },
    "BoundObjectReference": {
        1: ("kind", "s"),
        2: ("apiVersion", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
    },
    "SelfSubjectReview": {1: ("metadata", "ObjectMeta"), 2: ("status", "-")},
    "SelfSubjectAccessReview": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "SelfSubjectAccessReviewSpec"),
        3: ("status", "-"),
    },
    "SelfSubjectAccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"),
        2: ("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        1: ("namespace", "s"),
        2: ("verb", "s"),
        3: ("group", "s"),
        4: ("version", "s"),
        5: ("resource", "s"),
        6: ("subresource", "s"),
        7: ("name", "s"),
    },
    "NonResourceAttributes": {1: ("path", "s"), 2: ("verb", "s")},
}
_KINDS = frozenset(
    {
        "Namespace",
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "Service",
        "Deployment",
        "Job",
        "DeleteOptions",
        "Eviction",
        "TokenRequest",
        "SelfSubjectReview",
        "SelfSubjectAccessReview",
    }
)


def _refuse(what: str) -> ApiError:
    error = unsupported_media(MEDIA, ["application/json", "application/yaml"])
    return ApiError(
        error.code,
        error.reason,
        f"{what} is not understood in protobuf: write a "
        f"manifest and use kubectl create -f (it is sent as JSON)",
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _refuse("a number that does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their number or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise _refuse("a message that is cut off")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise _refuse(f"wire type {tag & 7}")


def _value(raw: int | bytes, kind: str) -> Any:
    if isinstance(raw, int):
        if kind == "t":
            return bool(raw)
        if kind != "i":
            raise _refuse("a number in the place of something else")
        return raw - (1 << 64) if raw >= 1 << 63 else raw
    if kind == "s":
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise _refuse("a text that is not UTF-8") from None
    if kind == "b":
        return base64.b64encode(raw).decode()
    return _message(raw, kind)


def _message(data: bytes, name: str) -> Any:  # the two scalar messages are no objects
    table = _MESSAGES.get(name, {})
    out: Obj = {}
    for number, raw in _fields(data):
        if number not in table:
            raise _refuse(f"field {number} of {name}")
        field, kind = table[number]
        if kind == "-":
            continue
        if kind.startswith("["):
            out.setdefault(field, []).append(_value(raw, kind[1:-1]))
        elif kind.startswith("{"):
            key, value = _entry(raw, kind[1:-1])
            out.setdefault(field, {})[key] = value
        else:
            value = _value(raw, kind.rstrip("?"))
            # Go writes the zero of every field that is no pointer; JSON leaves it out.
            if kind.endswith("?") or value not in ("", 0, False, {}):
                out[field] = value
    if name == "IntOrString":
        return out.get("strVal", "") if out.get("type") else out.get("intVal", 0)
    return out.get("string", "0") if name == "Quantity" else out


def _entry(raw: int | bytes, kind: str) -> tuple[str, Any]:
    if isinstance(raw, int):
        raise _refuse("a number in the place of a map")
    found = dict(_fields(raw))
    return str(_value(found.get(1, b""), "s")), _value(found.get(2, b""), kind)


def decode(data: bytes) -> Obj:
    """The object in a body. Raises ``ApiError`` 415."""
    if not data.startswith(_MAGIC):
        raise _refuse("a body without Kubernetes' mark")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    header = envelope.get(1, b"")
    if isinstance(header, int):
        raise _refuse("the envelope")
    names = {n: _value(v, "s") for n, v in _fields(header)}
    version, kind = names.get(1, ""), names.get(2, "")
    if kind not in _KINDS:
        raise _refuse(f"a {kind or 'body without a kind'}")
    raw = envelope.get(2, b"")
    if isinstance(raw, int):
        raise _refuse("the envelope")
    body: Obj = _message(raw, kind)
    return {"apiVersion": version, "kind": kind} | body
