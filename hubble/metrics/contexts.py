"""Labels that tell whose flow it was: ``source``, ``destination`` and single properties. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hubble.metrics import options
from hubble.metrics.options import Metric
from wire.hubble import flow_pb2 as f

_APP_KEYS = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
_DIRECTIONS = {f.EGRESS: "egress", f.INGRESS: "ingress"}
Pod = tuple[str, str]  # namespace, name


class Side(NamedTuple):
    """One end of a flow."""

    endpoint: f.Endpoint
    names: Sequence[str]  # of DNS
    address: str


def _app(side: Side) -> str:
    for label in side.endpoint.labels:
        if label.startswith(_APP_KEYS):
            return label.partition("=")[2]
    return ""


def _pod(side: Side) -> str:
    namespace, pod = side.endpoint.namespace, side.endpoint.pod_name
    return f"{namespace}/{pod}" if namespace else pod


def _reserved(side: Side) -> str:
    found = [label for label in side.endpoint.labels if label.startswith("reserved:")]
    api_server = "reserved:kube-apiserver"
    return api_server if api_server in found else found[0] if found else ""


def _workload_name(side: Side) -> str:
    workloads = side.endpoint.workloads
    return workloads[0].name if workloads else ""


def _workload_kind(side: Side) -> str:
    workloads = side.endpoint.workloads
    return workloads[0].kind if workloads else ""


def _workload(side: Side) -> str:
    name, namespace = _workload_name(side), side.endpoint.namespace
    return f"{namespace}/{name}" if namespace and name else name


Reading = Callable[[Side], str]
_IDENTIFIERS: dict[str, Reading] = {
    "identity": lambda side: ",".join(side.endpoint.labels),
    "namespace": lambda side: side.endpoint.namespace,
    "pod": _pod,
    "pod-name": lambda side: side.endpoint.pod_name,
    "dns": lambda side: ",".join(side.names),
    "ip": lambda side: side.address,
    "reserved-identity": _reserved,
    "workload": _workload,
    "workload-name": _workload_name,
    "app": _app,
}
_PROPERTIES: dict[str, Reading] = {
    "ip": lambda side: side.address,
    "pod": lambda side: side.endpoint.pod_name,
    "namespace": lambda side: side.endpoint.namespace,
    "workload": _workload_name,
    "workload_kind": _workload_kind,
    "app": _app,
}


class _End:
    """The options of one side: what its label says first that is not empty."""

    def __init__(self, metric: Metric, side: str) -> None:
        def read(key: str) -> tuple[str, ...]:
            return metric.options.get(key, ())

        self._usual = read(f"{side}context")
        by_direction: dict[int, tuple[str, ...]] = {
            f.EGRESS: read(f"{side}egresscontext"),
            f.INGRESS: read(f"{side}ingresscontext"),
        }
        self._by_direction = {d: found for d, found in by_direction.items() if found}
        self.is_wanted = bool(self._usual or self._by_direction)
        used = [self._usual, *self._by_direction.values()]
        wanted = set(metric.options.get(options.LABELS_CONTEXT, ()))
        self.names_pods = any("pod" in identifiers for identifiers in used) or (
            {f"{side}_pod", f"{side}_namespace"} <= wanted
        )

    def value(self, side: Side, direction: int) -> str:
        for identifier in self._by_direction.get(direction, self._usual):
            found = _IDENTIFIERS[identifier](side)
            if found:
                return found
        return ""


class Context:
    """The labels that a metric's options ask for, in their order."""

    def __init__(self, metric: Metric) -> None:
        self._source, self._destination = _End(metric, "source"), _End(metric, "destination")
        wanted = metric.options.get(options.LABELS_CONTEXT, ())
        properties = [label for label in options.LABELS if label in wanted]
        self._properties: list[tuple[bool, Reading] | None] = []
        for label in properties:
            side, _, what = label.partition("_")
            reading = _PROPERTIES.get(what)
            self._properties.append((side == "source", reading) if reading else None)
        ends = (("source", self._source), ("destination", self._destination))
        self.labels = (*properties, *(label for label, end in ends if end.is_wanted))

    def values(self, flow: f.Flow, *, swapped: bool = False) -> tuple[str, ...]:
        """One for each label. ``swapped``: the flow is an answer, and its request is meant."""
        if not self.labels:
            return ()
        source, destination = sides(flow)
        if swapped:
            source, destination = destination, source
        direction = flow.traffic_direction
        found = []
        for one in self._properties:
            if one is None:
                found.append(_DIRECTIONS.get(direction, "unknown"))
            else:
                found.append(one[1](source if one[0] else destination))
        if self._source.is_wanted:
            found.append(self._source.value(source, direction))
        if self._destination.is_wanted:
            found.append(self._destination.value(destination, direction))
        return tuple(found)

    def pods(self, flow: f.Flow, *, swapped: bool = False) -> tuple[Pod, ...]:
        """Those that the labels name: a series of theirs ends with them."""
        source, destination = self._source, self._destination
        if not source.names_pods and not destination.names_pods:
            return ()
        found = []
        for end, endpoint in ((source, flow.source), (destination, flow.destination)):
            its = (destination if end is source else source) if swapped else end
            if its.names_pods and endpoint.pod_name:
                found.append((endpoint.namespace, endpoint.pod_name))
        return tuple(found)


def sides(flow: f.Flow) -> tuple[Side, Side]:
    """Source and destination."""
    return (
        Side(flow.source, flow.source_names, flow.IP.source),
        Side(flow.destination, flow.destination_names, flow.IP.destination),
    )
