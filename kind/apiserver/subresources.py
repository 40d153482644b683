"""Paths below an object that are not a part of it: scale, binding, eviction, tokens. Adapter."""

import time
from datetime import UTC, datetime
from typing import Any

from kind.apiserver import errors, tokens
from kind.apiserver.api import Api, timestamp
from kind.apiserver.cache import Item
from kind.apiserver.objects import Obj, condition, dicts, dig, labels_of, meta, name_of
from kind.apiserver.options import DeleteOptions, Options
from kind.apiserver.resources import Resource
from kind.apiserver.selectors import Selection, match_labels, parse_label_selector
from kind.apiserver.strategy import check_preconditions
from kind.apiserver.tables import selector_text
from kind.apiserver.tokens import User

_DEFAULT_TOKEN_S = 3600


def _body(value: object, kind: str) -> Obj:
    if not isinstance(value, dict) or value.get("kind", kind) != kind:
        raise errors.bad_request(f"the body must be a {kind}")
    return value


# Scale.


def _scale_paths(resource: Resource) -> tuple[list[str], list[str], str]:
    paths = resource.scale_paths or {}

    def steps(key: str, default: str) -> list[str]:
        return str(paths.get(key) or default).strip(".").split(".")

    return (
        steps("specReplicasPath", ".spec.replicas"),
        steps("statusReplicasPath", ".status.replicas"),
        str(paths.get("labelSelectorPath") or ""),
    )


def to_scale(resource: Resource, obj: Obj) -> Obj:
    """The ``autoscaling/v1`` Scale of an object."""
    spec, status, selector = _scale_paths(resource)
    m = meta(obj)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    if resource.custom:
        text = str(dig(obj, *selector.strip(".").split(".")) or "") if selector else ""
    else:
        text = selector_text(dig(obj, "spec", "selector"))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: m[k] for k in kept if k in m},
        "spec": {"replicas": dig(obj, *spec) or 0},
        "status": {"replicas": dig(obj, *status) or 0, "selector": text},
    }


def from_scale(resource: Resource, obj: Obj, scale: Obj) -> Obj:
    """The object with the replicas of a Scale; its resourceVersion is a precondition."""
    spec, _, _ = _scale_paths(resource)
    replicas = dig(scale, "spec", "replicas") or 0
    if not isinstance(replicas, int) or replicas < 0:
        cause = errors.Cause(
            "spec.replicas",
            "FieldValueInvalid",
            f"Invalid value: {replicas}: must be greater than or equal to 0",
        )
        raise errors.invalid("autoscaling", "Scale", name_of(obj), [cause])
    place = obj
    for step in spec[:-1]:
        place = place.setdefault(step, {})
    place[spec[-1]] = replicas
    if version := dig(scale, "metadata", "resourceVersion"):
        meta(obj)["resourceVersion"] = version
    return obj


# Pods.


async def bind(api: Api, pods: Resource, namespace: str, name: str, body: object) -> None:
    """Assign a pod to a node: what a scheduler does."""
    binding = _body(body, "Binding")
    node = str(dig(binding, "target", "name") or "")
    if not node:
        raise errors.bad_request("a Binding needs target.name")

    def change(pod: Obj) -> Obj:
        bound = dig(pod, "spec", "nodeName")
        if bound or meta(pod).get("deletionTimestamp"):
            why = (
                f'pod {name} is already assigned to node "{bound}"'
                if bound
                else (f"pod {name} is being deleted, cannot be assigned to a host")
            )
            raise errors.conflict("", "pods/binding", name, why)
        pod["spec"]["nodeName"] = node
        extra = dig(binding, "metadata", "annotations") or {}
        if extra:
            meta(pod)["annotations"] = (meta(pod).get("annotations") or {}) | extra
        return pod

    await api.modify(pods, namespace, name, change)
    await _set_condition(api, pods, namespace, name, {"type": "PodScheduled", "status": "True"})


async def _set_condition(api: Api, pods: Resource, namespace: str, name: str, wanted: Obj) -> None:
    def change(pod: Obj) -> Obj:
        if (condition(pod, wanted["type"]) or {}).get("status") == wanted["status"]:
            return pod
        status = pod.setdefault("status", {})
        rest = [c for c in dicts(status.get("conditions")) if c.get("type") != wanted["type"]]
        now = timestamp(datetime.now(UTC))
        status["conditions"] = [*rest, wanted | {"lastTransitionTime": now}]
        return pod

    await api.modify(pods, namespace, name, change, "status")


async def evict(
    api: Api, pods: Resource, namespace: str, name: str, body: object, options: DeleteOptions
) -> None:
    """Delete a pod unless a disruption budget forbids it. Raises ``ApiError`` 429."""
    eviction = _body(body, "Eviction")
    pod = api.read(pods, namespace, name).obj
    inner = eviction.get("deleteOptions") or {}
    check_preconditions(pods, pod, str(dig(inner, "preconditions", "uid") or ""), "")
    for _, budget in api.cache.select("policy/poddisruptionbudgets", Selection(namespace)):
        chosen = parse_label_selector(dig(budget.obj, "spec", "selector"))
        if chosen is None or not match_labels(chosen, labels_of(pod)):
            continue
        if (condition(pod, "Ready") or {}).get("status") != "True":
            continue
        if _allowed(api, namespace, budget.obj) <= 0:
            raise errors.too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.", 10
            )
    grace = inner.get("gracePeriodSeconds", options.grace_s)
    await api.delete(pods, namespace, name, DeleteOptions(grace, dry_run=options.dry_run))


def _count(value: Any, total: int, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        exact = total * int(value[:-1])
        return -(-exact // 100) if up else exact // 100
    return int(value)


def _allowed(api: Api, namespace: str, budget: Obj) -> int:
    """Pods of the budget that may go now."""
    chosen = parse_label_selector(dig(budget, "spec", "selector"))
    assert chosen is not None
    pods = [i.obj for _, i in api.cache.select("core/pods", Selection(namespace, chosen))]
    healthy = sum(
        1
        for p in pods
        if (condition(p, "Ready") or {}).get("status") == "True"
        and not meta(p).get("deletionTimestamp")
    )
    spec = budget.get("spec") or {}
    if "maxUnavailable" in spec:
        wanted = len(pods) - _count(spec["maxUnavailable"], len(pods), up=True)
    else:
        wanted = _count(spec.get("minAvailable", 1), len(pods), up=True)
    return healthy - wanted


# Tokens and questions about the caller.


async def request_token(
    api: Api, accounts: Resource, namespace: str, name: str, body: object, key: bytes
) -> Obj:
    """A new token for a service account."""
    asked = _body(body, "TokenRequest")
    account = api.read(accounts, namespace, name).obj
    spec = asked.get("spec") or {}
    lifetime = int(spec.get("expirationSeconds") or _DEFAULT_TOKEN_S)
    if lifetime < 600:
        cause = errors.Cause(
            "spec.expirationSeconds",
            "FieldValueInvalid",
            f"Invalid value: {lifetime}: may not specify a duration less than 10 minutes",
        )
        raise errors.invalid("authentication.k8s.io", "TokenRequest", name, [cause])
    now = int(time.time())
    ref = spec.get("boundObjectRef") or {}
    bound = {"name": ref.get("name"), "uid": ref.get("uid")} if ref.get("kind") == "Pod" else None
    audiences = [str(a) for a in spec.get("audiences") or []]
    token = tokens.issue(
        key, namespace, name, meta(account)["uid"], now, lifetime, audiences, bound
    )
    until = timestamp(datetime.fromtimestamp(now + lifetime, UTC))
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": None},
        "spec": {
            "audiences": audiences or [tokens.AUDIENCE],
            "expirationSeconds": lifetime,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": token, "expirationTimestamp": until},
    }


def user_info(user: User) -> Obj:
    """As TokenReview and SelfSubjectReview show a user."""
    return {"username": user.name, "uid": user.uid, "groups": list(user.groups)}


def answer_question(resource: Resource, body: object, user: User, asked: User | None) -> Obj:
    """A review: not stored, answered at once. There is no authorisation: all is allowed."""
    obj = _body(body, resource.kind)
    obj.setdefault("apiVersion", resource.group_version)
    obj.setdefault("kind", resource.kind)
    meta(obj).setdefault("creationTimestamp", None)
    match resource.plural:
        case "tokenreviews":
            obj["status"] = (
                {"authenticated": True, "user": user_info(asked), "audiences": [tokens.AUDIENCE]}
                if asked
                else {"authenticated": False, "error": "the token is not known"}
            )
        case "selfsubjectreviews":
            obj["status"] = {"userInfo": user_info(user)}
        case _:
            obj["status"] = {"allowed": True, "reason": "the lab's API server allows everything"}
    return obj


async def finalize(
    api: Api, namespaces: Resource, name: str, body: object, options: Options
) -> Item:
    """Replace a namespace's ``spec.finalizers``; without any, a terminating namespace goes."""
    wanted = dig(_body(body, "Namespace"), "spec", "finalizers") or []
    return await api.finalize_namespace(namespaces, name, [str(w) for w in wanted], options)
