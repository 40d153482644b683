"""Which addresses stand behind a service: from its pods to EndpointSlices and Endpoints. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kind.apiserver.objects import Obj, dicts, dig, labels_of
from kind.controllers.owned import is_finished, is_ready, is_terminating, owner_reference

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS_LABEL = "service.kubernetes.io/headless"
ENDPOINTS_PER_SLICE = 100
Ports = tuple[tuple[str, str, int | None, str], ...]  # name, protocol, port, appProtocol


@dataclass(slots=True)
class Plan:
    """What to do to the slices of one service."""

    create: list[Obj] = field(default_factory=list)
    update: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)


def selected(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The service's pods, in order of name; none for a service without a selector."""
    selector = dig(service, "spec", "selector")
    if not selector:
        return []
    wanted = selector.items()
    found = [p for p in pods if wanted <= labels_of(p).items()]
    return sorted(found, key=lambda p: str(p["metadata"]["name"]))


def resolve_ports(service: Obj, pod: Obj) -> Ports | None:
    """The pod's port numbers; ``None`` when a named port is not in the pod."""
    out = []
    for port in dicts(dig(service, "spec", "ports")):
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort") or port.get("port")
        number = target if isinstance(target, int) else _named(pod, str(target), protocol)
        if number is None:
            continue
        out.append((port.get("name") or "", protocol, number, port.get("appProtocol") or ""))
    if not out and dicts(dig(service, "spec", "ports")):
        return None
    return tuple(out)


def _named(pod: Obj, name: str, protocol: str) -> int | None:
    for container in dicts(dig(pod, "spec", "containers")):
        for port in dicts(container.get("ports")):
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return None


def families_of(service: Obj) -> list[str]:
    """The families of a service's endpoints, its first one first."""
    said = dig(service, "spec", "ipFamilies")
    return [str(family) for family in said] if said else ["IPv4"]


def _address_of(pod: Obj, family: str) -> str | None:
    said = [p.get("ip") for p in dicts(dig(pod, "status", "podIPs"))]
    texts = [str(ip) for ip in said or [dig(pod, "status", "podIP")] if ip]
    return next((text for text in texts if (":" in text) == (family == "IPv6")), None)


def endpoint(service: Obj, pod: Obj, family: str) -> Obj | None:
    """The pod as an endpoint; ``None`` while it has no address of it or has finished."""
    address = _address_of(pod, family)
    if not address or is_finished(pod):
        return None
    ready, ending = is_ready(pod), is_terminating(pod)
    always = dig(service, "spec", "publishNotReadyAddresses") is True
    m = pod["metadata"]
    out: Obj = {
        "addresses": [address],
        "conditions": {
            "ready": always or (ready and not ending),
            "serving": ready,
            "terminating": ending,
        },
        "nodeName": dig(pod, "spec", "nodeName"),
        "targetRef": {
            "kind": "Pod",
            "namespace": m["namespace"],
            "name": m["name"],
            "uid": m["uid"],
        },
    }
    hostname = dig(pod, "spec", "hostname")
    if hostname and dig(pod, "spec", "subdomain") == service["metadata"]["name"]:
        out["hostname"] = hostname
    return out


def plan_slices(service: Obj, pods: Sequence[Obj], slices: Sequence[Obj]) -> Plan:
    """Keep endpoints in the slice they are in, fill gaps, then open new slices."""
    wanted: dict[tuple[str, Ports], dict[str, Obj]] = {}
    for pod in pods:
        ports = resolve_ports(service, pod)
        for kind in families_of(service):
            made = endpoint(service, pod, kind)
            if made is not None and ports is not None:
                wanted.setdefault((kind, ports), {})[made["targetRef"]["uid"]] = made
    plan, labels = Plan(), _labels(service)
    empty: list[Obj] = []
    for old in slices:
        group = wanted.get((str(old.get("addressType")), _ports_of(old)), {})
        kept = [group.pop(uid) for uid in _uids(old) if uid in group]
        room = ENDPOINTS_PER_SLICE - len(kept)
        kept += [group.pop(uid) for uid in list(group)[:room]] if kept else []
        if not kept:
            empty.append(old)
            continue
        _update(plan, old, kept, labels)
    for (kind, ports), rest in wanted.items():
        left = list(rest.values())
        while left:
            part, left = left[:ENDPOINTS_PER_SLICE], left[ENDPOINTS_PER_SLICE:]
            at = next((i for i, o in enumerate(empty) if o.get("addressType") == kind), None)
            if at is None:
                plan.create.append(_new(service, kind, ports, part, labels))
            else:
                _update(plan, empty.pop(at), part, labels, ports)
    if len(empty) == len(slices) and not plan.create:
        # A service without endpoints keeps one empty slice, as a sign that it is looked after.
        if empty:
            _update(plan, empty.pop(0), [], labels)
        else:
            plan.create.append(_new(service, families_of(service)[0], (), [], labels))
    plan.delete += empty
    return plan


def _labels(service: Obj) -> dict[str, str]:
    own = {SERVICE_LABEL: service["metadata"]["name"], MANAGED_LABEL: MANAGER}
    if dig(service, "spec", "clusterIP") == "None":
        own[HEADLESS_LABEL] = ""
    return labels_of(service) | own


def _uids(slice_: Obj) -> list[str]:
    return [str(dig(e, "targetRef", "uid")) for e in dicts(slice_.get("endpoints"))]


def _ports_of(slice_: Obj) -> Ports:
    return tuple(
        (p.get("name") or "", p.get("protocol") or "TCP", p.get("port"), p.get("appProtocol") or "")
        for p in dicts(slice_.get("ports"))
    )


def _port_objects(ports: Ports) -> list[Obj]:
    return [
        {"name": n, "protocol": proto, "port": number} | ({"appProtocol": app} if app else {})
        for n, proto, number, app in ports
    ]


def _update(
    plan: Plan, old: Obj, endpoints: list[Obj], labels: dict[str, str], ports: Ports | None = None
) -> None:
    new = old | {"endpoints": endpoints, "metadata": old["metadata"] | {"labels": labels}}
    if ports is not None:
        new["ports"] = _port_objects(ports)
    same = (old.get("endpoints") or []) == endpoints and labels_of(old) == labels
    if not same or new.get("ports") != old.get("ports"):
        plan.update.append(new)


def _new(
    service: Obj, kind: str, ports: Ports, endpoints: list[Obj], labels: dict[str, str]
) -> Obj:
    m = service["metadata"]
    return {
        "metadata": {
            "generateName": m["name"] + "-",
            "namespace": m["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference("v1", "Service", service)],
        },
        "addressType": kind,
        "endpoints": endpoints,
        "ports": _port_objects(ports),
    }


def desired_endpoints(service: Obj, pods: Sequence[Obj]) -> list[Obj]:
    """The ``subsets`` of the Endpoints object of the same name."""
    groups: dict[Ports, tuple[list[Obj], list[Obj]]] = {}
    family = families_of(service)[0]  # this kind has no more than one
    for pod in pods:
        made, ports = endpoint(service, pod, family), resolve_ports(service, pod)
        if made is None or ports is None or is_terminating(pod):
            continue
        address = {
            "ip": made["addresses"][0],
            "nodeName": made["nodeName"],
            "targetRef": made["targetRef"],
        }
        if "hostname" in made:
            address["hostname"] = made["hostname"]
        ready, other = groups.setdefault(ports, ([], []))
        (ready if made["conditions"]["ready"] else other).append(address)
    out = []
    for ports, (ready, other) in sorted(groups.items()):
        subset: Obj = {}
        if ready:
            subset["addresses"] = ready
        if other:
            subset["notReadyAddresses"] = other
        listed = [{k: v for k, v in p.items() if k != "name" or v} for p in _port_objects(ports)]
        out.append(subset | ({"ports": listed} if listed else {}))
    return out
