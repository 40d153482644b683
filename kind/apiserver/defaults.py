"""The defaults that clients rely on finding in stored objects. Pure.

Only fields that some client reads: a complete copy of Kubernetes' defaulting is not the aim.
"""

import base64
from collections.abc import Callable

from kind.apiserver.objects import Obj, dicts, dig, meta


def apply_defaults(table: str, obj: Obj) -> None:
    """Fill what the client left out, in place; ``table`` is ``Resource.table``."""
    if fill := _DEFAULTS.get(table):
        fill(obj)


def _spec(obj: Obj) -> Obj:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        spec = obj["spec"] = {}
    return spec


def pod_spec(spec: Obj) -> None:
    """Defaults of a pod's spec, in a pod as well as in a template."""
    for key, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("terminationGracePeriodSeconds", 30),
        ("securityContext", {}),
    ):
        spec.setdefault(key, value)
    if spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    host = spec.get("hostNetwork") is True
    for c in dicts(spec.get("containers")) + dicts(spec.get("initContainers")):
        _container(c, host)
    for v in dicts(spec.get("volumes")):
        if isinstance(v.get("configMap"), dict):
            v["configMap"].setdefault("defaultMode", 420)
        if isinstance(v.get("secret"), dict):
            v["secret"].setdefault("defaultMode", 420)
        if isinstance(v.get("hostPath"), dict):
            v["hostPath"].setdefault("type", "")


def _container(c: Obj, host_network: bool) -> None:
    image = str(c.get("image") or "")
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    c.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
    c.setdefault("terminationMessagePath", "/dev/termination-log")
    c.setdefault("terminationMessagePolicy", "File")
    c.setdefault("resources", {})
    for p in dicts(c.get("ports")):
        p.setdefault("protocol", "TCP")
        if host_network and "containerPort" in p:
            p.setdefault("hostPort", p["containerPort"])
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(c.get(probe), dict):
            for key, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                c[probe].setdefault(key, value)
            if isinstance(c[probe].get("httpGet"), dict):
                c[probe]["httpGet"].setdefault("scheme", "HTTP")
                c[probe]["httpGet"].setdefault("path", "/")
    for e in dicts(c.get("env")):
        ref = dig(e, "valueFrom", "fieldRef")
        if isinstance(ref, dict):
            ref.setdefault("apiVersion", "v1")


def _pod(obj: Obj) -> None:
    spec = _spec(obj)
    pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    tolerations = spec.setdefault("tolerations", [])
    for taint in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(t.get("key") == taint or not t.get("key") for t in dicts(tolerations)):
            tolerations.append(
                {
                    "key": taint,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
            )


def _template(obj: Obj) -> None:
    spec = dig(obj, "spec", "template", "spec")
    if isinstance(spec, dict):
        pod_spec(spec)


def _workload(obj: Obj) -> None:
    _spec(obj).setdefault("replicas", 1)
    _template(obj)


def _deployment(obj: Obj) -> None:
    _workload(obj)
    spec = _spec(obj)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {}) or {}
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
        strategy["rollingUpdate"] = rolling


def _daemonset(obj: Obj) -> None:
    _template(obj)
    spec = _spec(obj)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {"maxSurge": 0, "maxUnavailable": 1})


def _statefulset(obj: Obj) -> None:
    _workload(obj)
    spec = _spec(obj)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})


def _job(obj: Obj) -> None:
    _template(obj)
    spec = _spec(obj)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    if not spec.get("manualSelector"):
        uid = meta(obj).get("uid")
        if uid and isinstance(spec.get("template"), dict):
            name = str(meta(obj).get("name"))
            mine = {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid}
            named = {"batch.kubernetes.io/job-name": name, "job-name": name}
            labels = meta(spec["template"]).get("labels") or {}
            meta(spec["template"])["labels"] = labels | mine | named
            spec.setdefault(
                "selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
            )


def _service(obj: Obj) -> None:
    spec = _spec(obj)
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP" and not spec.get("sessionAffinityConfig"):
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    for p in dicts(spec.get("ports")):
        p.setdefault("protocol", "TCP")
        if p.get("targetPort") in (None, "", 0) and "port" in p:
            p["targetPort"] = p["port"]
    obj.setdefault("status", {"loadBalancer": {}})


def _namespace(obj: Obj) -> None:
    _spec(obj).setdefault("finalizers", ["kubernetes"])
    status = obj.setdefault("status", {})
    status.setdefault("phase", "Active")
    labels = meta(obj).get("labels") or {}
    labels["kubernetes.io/metadata.name"] = str(meta(obj).get("name"))
    meta(obj)["labels"] = labels


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    strings = obj.pop("stringData", None)
    if isinstance(strings, dict):
        data = obj.get("data") or {}
        data |= {k: base64.b64encode(str(v).encode()).decode() for k, v in strings.items()}
        obj["data"] = data


def _endpoints(obj: Obj) -> None:
    for subset in dicts(obj.get("subsets")):
        for p in dicts(subset.get("ports")):
            p.setdefault("protocol", "TCP")


def _slice(obj: Obj) -> None:
    for p in dicts(obj.get("ports")):
        p.setdefault("protocol", "TCP")
        p.setdefault("name", "")


def _crd(obj: Obj) -> None:
    spec = _spec(obj)
    names = spec.setdefault("names", {})
    if isinstance(names, dict) and names.get("kind"):
        names.setdefault("singular", str(names["kind"]).lower())
        names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})


_DEFAULTS: dict[str, Callable[[Obj], None]] = {
    "core/pods": _pod,
    "core/services": _service,
    "core/namespaces": _namespace,
    "core/secrets": _secret,
    "core/endpoints": _endpoints,
    "apps/deployments": _deployment,
    "apps/replicasets": _workload,
    "apps/statefulsets": _statefulset,
    "apps/daemonsets": _daemonset,
    "batch/jobs": _job,
    "discovery.k8s.io/endpointslices": _slice,
    "apiextensions.k8s.io/customresourcedefinitions": _crd,
}
