"""Refusing built-in objects that Kubernetes would refuse, in its words. Pure.

What is checked is what a person gets wrong by hand: names, required fields, ports, selectors,
fields that cannot change. CRD objects are checked by ``schema``.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address

from kind.apiserver.errors import Cause
from kind.apiserver.objects import Obj, dicts, dig, meta

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_PATH_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%]+")

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
    "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value', "
    " or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def required(field: str, why: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value{': ' + why if why else ''}")


def wrong(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {why}")


def unsupported(field: str, value: object, allowed: list[str]) -> Cause:
    words = ", ".join(f'"{a}"' for a in allowed)
    return Cause(
        field, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {words}'
    )


def is_subdomain(text: str) -> bool:
    """RFC 1123 subdomain."""
    return len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text))


def _name_cause(table: str, name: str) -> Cause | None:
    field = "metadata.name"
    if table.startswith("rbac."):
        ok = bool(_PATH_SEGMENT.fullmatch(name))
        return None if ok else wrong(field, name, 'may not contain "/" or "%"')
    if table == "core/services":
        ok, text, limit = bool(_LABEL_1035.fullmatch(name)), _LABEL_1035_TEXT, 63
    elif table == "core/namespaces":
        ok, text, limit = bool(_LABEL.fullmatch(name)), _LABEL_TEXT, 63
    else:
        ok, text, limit = bool(_SUBDOMAIN.fullmatch(name)), _SUBDOMAIN_TEXT, 253
    if not ok:
        return wrong(field, name, text)
    return (
        wrong(field, name, f"must be no more than {limit} characters")
        if (len(name) > limit)
        else None
    )


def _string_map(field: str, value: object) -> list[Cause]:
    """Labels and annotations: qualified keys; label values are short words."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [wrong(field, str(value), "must be a map of strings")]
    out = []
    for key, text in value.items():
        prefix, slash, name = key.rpartition("/")
        if not _KEY_NAME.fullmatch(name) or len(name) > 63:
            out.append(wrong(field, key, _KEY_TEXT))
        elif slash and not is_subdomain(prefix.lower() if "annotations" in field else prefix):
            out.append(wrong(field, key, f"prefix part {_SUBDOMAIN_TEXT}"))
        elif not isinstance(text, str):
            out.append(wrong(f"{field}.{key}", text, "must be a string"))
        elif field.endswith("labels") and (len(text) > 63 or not _LABEL_VALUE.fullmatch(text)):
            out.append(wrong(field, text, _VALUE_TEXT))
    return out


def validate_metadata(table: str, obj: Obj) -> list[Cause]:
    """Name, labels, annotations, finalizers, owner references."""
    m = meta(obj)
    out: list[Cause] = []
    if cause := _name_cause(table, str(m.get("name") or "")):
        out.append(cause)
    out += _string_map("metadata.labels", m.get("labels"))
    out += _string_map("metadata.annotations", m.get("annotations"))
    for i, owner in enumerate(dicts(m.get("ownerReferences"))):
        out += [
            required(f"metadata.ownerReferences[{i}].{f}")
            for f in ("apiVersion", "kind", "name", "uid")
            if not owner.get(f)
        ]
    return out


def validate(table: str, obj: Obj, old: Obj | None = None) -> list[Cause]:
    """Everything wrong with a defaulted object; ``old`` when it replaces one."""
    out = validate_metadata(table, obj)
    if check := _CHECKS.get(table):
        out += check(obj)
    if old is not None:
        out += _immutable(table, obj, old)
    return out


def pod_spec(spec: object, at: str) -> list[Cause]:
    """Containers with unique names and images, ports in range, volumes that exist."""
    if not isinstance(spec, dict):
        return [required(at)]
    out: list[Cause] = []
    if not dicts(spec.get("containers")):
        out.append(required(f"{at}.containers"))
    volumes = {v.get("name") for v in dicts(spec.get("volumes"))}
    seen: set[object] = set()
    for group in ("initContainers", "containers"):
        for i, c in enumerate(dicts(spec.get(group))):
            out += _container(c, f"{at}.{group}[{i}]", volumes)
            if c.get("name") in seen:
                out.append(
                    Cause(
                        f"{at}.{group}[{i}].name",
                        "FieldValueDuplicate",
                        f'Duplicate value: "{c.get("name")}"',
                    )
                )
            seen.add(c.get("name"))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        out.append(
            unsupported(
                f"{at}.restartPolicy", spec.get("restartPolicy"), ["Always", "OnFailure", "Never"]
            )
        )
    return out


def _container(c: Obj, at: str, volumes: set[object]) -> list[Cause]:
    out = []
    name = c.get("name")
    if not name:
        out.append(required(f"{at}.name"))
    elif not _LABEL.fullmatch(str(name)) or len(str(name)) > 63:
        out.append(wrong(f"{at}.name", name, _LABEL_TEXT))
    if not c.get("image"):
        out.append(required(f"{at}.image"))
    for i, p in enumerate(dicts(c.get("ports"))):
        out += _port(p.get("containerPort"), f"{at}.ports[{i}].containerPort")
        out += _protocol(p.get("protocol"), f"{at}.ports[{i}].protocol")
    for i, m in enumerate(dicts(c.get("volumeMounts"))):
        if m.get("name") not in volumes:
            out.append(
                Cause(
                    f"{at}.volumeMounts[{i}].name",
                    "FieldValueNotFound",
                    f'Not found: "{m.get("name")}"',
                )
            )
        if not m.get("mountPath"):
            out.append(required(f"{at}.volumeMounts[{i}].mountPath"))
    out += [
        required(f"{at}.env[{i}].name")
        for i, e in enumerate(dicts(c.get("env")))
        if not e.get("name")
    ]
    return out


def _port(value: object, at: str) -> list[Cause]:
    if value is None:
        return [required(at)]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        return [wrong(at, value, "must be between 1 and 65535, inclusive")]
    return []


def _protocol(value: object, at: str) -> list[Cause]:
    allowed = ["SCTP", "TCP", "UDP"]
    return [] if value in allowed else [unsupported(at, value, allowed)]


def _pod(obj: Obj) -> list[Cause]:
    return pod_spec(obj.get("spec"), "spec")


def _service(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    out: list[Cause] = []
    kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
    if spec.get("type") not in kinds:
        out.append(unsupported("spec.type", spec.get("type"), kinds))
    ports = dicts(spec.get("ports"))
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        out.append(required("spec.ports"))
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        out.append(required("spec.externalName"))
    seen = set()
    for i, p in enumerate(ports):
        at = f"spec.ports[{i}]"
        out += _port(p.get("port"), f"{at}.port")
        out += _protocol(p.get("protocol"), f"{at}.protocol")
        target = p.get("targetPort")
        if isinstance(target, int):
            out += _port(target, f"{at}.targetPort")
        if len(ports) > 1 and not p.get("name"):
            out.append(required(f"{at}.name"))
        if (p.get("name"), p.get("port"), p.get("protocol")) in seen:
            out.append(Cause(at, "FieldValueDuplicate", f"Duplicate value: {p}"))
        seen.add((p.get("name"), p.get("port"), p.get("protocol")))
    if spec.get("sessionAffinity") not in ("None", "ClientIP"):
        out.append(
            unsupported("spec.sessionAffinity", spec.get("sessionAffinity"), ["ClientIP", "None"])
        )
    return out + _string_map("spec.selector", spec.get("selector"))


def _workload(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    out: list[Cause] = []
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        out.append(wrong("spec.replicas", replicas, "must be greater than or equal to 0"))
    selector = spec.get("selector")
    labels = dig(spec, "template", "metadata", "labels") or {}
    if not isinstance(selector, dict) or not (
        selector.get("matchLabels") or selector.get("matchExpressions")
    ):
        out.append(required("spec.selector"))
    elif any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        out.append(
            wrong(
                "spec.template.metadata.labels",
                str(labels),
                "`selector` does not match template `labels`",
            )
        )
    if not isinstance(spec.get("template"), dict):
        return [*out, required("spec.template")]
    return out + pod_spec(spec["template"].get("spec"), "spec.template.spec")


def _job(obj: Obj) -> list[Cause]:
    template = dig(obj, "spec", "template")
    if not isinstance(template, dict):
        return [required("spec.template")]
    out = pod_spec(template.get("spec"), "spec.template.spec")
    if dig(template, "spec", "restartPolicy") == "Always":
        out.append(
            unsupported("spec.template.spec.restartPolicy", "Always", ["OnFailure", "Never"])
        )
    return out


def _slice(obj: Obj) -> list[Cause]:
    out: list[Cause] = []
    kinds = ["FQDN", "IPv4", "IPv6"]
    if obj.get("addressType") not in kinds:
        out.append(unsupported("addressType", obj.get("addressType"), kinds))
    for i, e in enumerate(dicts(obj.get("endpoints"))):
        if not e.get("addresses"):
            out.append(required(f"endpoints[{i}].addresses"))
        for j, a in enumerate(e.get("addresses") or []):
            if obj.get("addressType") != "FQDN" and not _is_ip(a):
                out.append(wrong(f"endpoints[{i}].addresses[{j}]", a, "must be a valid IP address"))
    return out


def _is_ip(text: object) -> bool:
    try:
        ip_address(str(text))
    except ValueError:
        return False
    return True


def _crd(obj: Obj) -> list[Cause]:
    spec = obj.get("spec") or {}
    out = [required(f"spec.{f}") for f in ("group", "scope", "versions") if not spec.get(f)]
    names = spec.get("names") or {}
    out += [required(f"spec.names.{f}") for f in ("plural", "kind") if not names.get(f)]
    if spec.get("scope") and spec["scope"] not in ("Cluster", "Namespaced"):
        out.append(unsupported("spec.scope", spec["scope"], ["Cluster", "Namespaced"]))
    if not out and meta(obj).get("name") != f"{names['plural']}.{spec['group']}":
        out.append(
            wrong(
                "metadata.name", meta(obj).get("name"), 'must be spec.names.plural+"."+spec.group'
            )
        )
    versions = dicts(spec.get("versions"))
    if versions and sum(1 for v in versions if v.get("storage")) != 1:
        out.append(
            wrong(
                "spec.versions",
                "storage",
                "must have exactly one version marked as storage version",
            )
        )
    for i, v in enumerate(versions):
        if not v.get("name"):
            out.append(required(f"spec.versions[{i}].name"))
        if not isinstance(dig(v, "schema", "openAPIV3Schema"), dict):
            out.append(
                required(f"spec.versions[{i}].schema.openAPIV3Schema", "schemas are required")
            )
    return out


_CHECKS: dict[str, Callable[[Obj], list[Cause]]] = {
    "core/pods": _pod,
    "core/services": _service,
    "apps/deployments": _workload,
    "apps/replicasets": _workload,
    "apps/statefulsets": _workload,
    "apps/daemonsets": _workload,
    "batch/jobs": _job,
    "discovery.k8s.io/endpointslices": _slice,
    "apiextensions.k8s.io/customresourcedefinitions": _crd,
}

_FROZEN: dict[str, tuple[tuple[str, ...], ...]] = {
    "apps/deployments": (("spec", "selector"),),
    "apps/replicasets": (("spec", "selector"),),
    "apps/daemonsets": (("spec", "selector"),),
    "apps/statefulsets": (("spec", "selector"), ("spec", "serviceName")),
    "batch/jobs": (("spec", "selector"), ("spec", "template"), ("spec", "completions")),
    "discovery.k8s.io/endpointslices": (("addressType",),),
    "apiextensions.k8s.io/customresourcedefinitions": (("spec", "group"), ("spec", "scope")),
}
# Of a pod's spec only these may change after creation.
_POD_MUTABLE = (
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "tolerations",
    "ephemeralContainers",
    "nodeName",
)
_POD_FORBIDDEN = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
)


def _pod_core(obj: Obj) -> Obj:
    spec = {k: v for k, v in (obj.get("spec") or {}).items() if k not in _POD_MUTABLE}
    for group in ("containers", "initContainers"):
        if group in spec:
            spec[group] = [
                {k: v for k, v in c.items() if k not in ("image", "imagePullPolicy")}
                for c in dicts(spec[group])
            ]
    return spec


def _immutable(table: str, obj: Obj, old: Obj) -> list[Cause]:
    if table == "core/pods":
        same = _pod_core(obj) == _pod_core(old)
        return [] if same else [Cause("spec", "FieldValueForbidden", _POD_FORBIDDEN)]
    out = []
    for path in _FROZEN.get(table, ()):
        before = dig(old, *path)
        if before is not None and dig(obj, *path) != before:
            out.append(wrong(".".join(path), str(dig(obj, *path)), "field is immutable"))
    if table in ("core/configmaps", "core/secrets") and old.get("immutable") is True:
        changed = any(obj.get(f) != old.get(f) for f in ("data", "binaryData", "immutable"))
        if changed:
            out.append(
                Cause(
                    "data",
                    "FieldValueForbidden",
                    "Forbidden: field is immutable when `immutable` is set",
                )
            )
    if table == "core/services":
        before = dig(old, "spec", "clusterIP")
        after = dig(obj, "spec", "clusterIP")
        kinds = {dig(o, "spec", "type") for o in (obj, old)}
        if before and after != before and "ExternalName" not in kinds:
            out.append(wrong("spec.clusterIPs[0]", str(after), "may not change once set"))
    return out
