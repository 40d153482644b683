"""What the API server says about policy → the computation's inputs. Adapter.

Four kinds are watched here: the three kinds of policies and CIDR groups. Of pods, services, slices
and endpoints, which ``kube_inputs`` watches, this takes what rules may name: ports, services.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agent.staged_rules import StagedRules
from kube.informer import Informer
from kube.port import Client
from kube.resources import (
    CIDR_GROUPS,
    CILIUM_POLICIES,
    CLUSTERWIDE_POLICIES,
    NETWORK_POLICIES,
)
from mesh.problems import Problems
from model.address import Address, Prefix, host_prefix
from model.labels import CLUSTER_LABEL, SOURCE_K8S, Labels
from model.local_service import LocalService
from model.service import ServiceName
from policy.known import CidrGroup, PolicyService
from policy.objects import cidr_group
from policy.objects.notes import Finding
from policy.objects.ports import PROTOCOLS
from policy.objects.read import Kind, Reading, Source, read
from policy.objects.selectors import in_namespace
from policy.objects.settings import Settings
from policy.overlaps import pods_meant
from policy.rules import Operator, Requirement, Selector
from telemetry.metrics import Counter
from wire.k8s.cilium_endpoint import CiliumEndpoint
from wire.k8s.meta import annotations_of, labels_of
from wire.k8s.pod import Pod
from wire.k8s.policy import CidrGroupObject, PolicyObject

log = logging.getLogger("isthmus.agent.policy")

PolicyKey = tuple[Kind, str, str]  # kind, namespace, name
Port = tuple[str, int, int]  # name, protocol, number
_RESOURCES = {
    Kind.NETWORK_POLICY: NETWORK_POLICIES,
    Kind.CILIUM: CILIUM_POLICIES,
    Kind.CLUSTERWIDE: CLUSTERWIDE_POLICIES,
}


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy as it was stored, and what it was read as."""

    source: Source
    reading: Reading
    generation: int = 0


class PolicyInputs:
    """Feeds ``StagedRules``; ``on_change`` is told that something is to be computed."""

    def __init__(
        self,
        client: Client,
        table: StagedRules,
        settings: Settings,
        on_change: Callable[[bool], None],
    ) -> None:
        """``on_change`` is given whether a rule itself has changed."""
        self._table, self.settings, self._on_change = table, settings, on_change
        self.policies: dict[PolicyKey, StoredPolicy] = {}
        self.groups: dict[str, cidr_group.CidrGroup] = {}
        self.problems: Problems[str] = Problems()
        self.changes = Counter(("outcome",))  # of policies
        for outcome in ("success", "failure"):
            self.changes.declare(outcome)
        self.pod_cidrs: Callable[[], Iterable[Prefix]] = tuple  # that rules of prefixes pass by
        self._services: dict[ServiceName, LocalService] = {}
        self._addresses: dict[ServiceName, tuple[Address, ...]] = {}
        self._pod_ports: dict[tuple[str, str], frozenset[Port]] = {}
        self._port_users: dict[tuple[str, int], dict[int, int]] = {}
        self._informers: tuple[Informer[Any], ...] = (
            *(
                Informer(client, resource, self._policy_change(kind))
                for kind, resource in _RESOURCES.items()
            ),
            Informer(client, CIDR_GROUPS, self._group_change),
        )

    def informers(self) -> tuple[Informer[Any], ...]:
        """The watches of policy's own kinds."""
        return self._informers

    def _policy_change(self, kind: Kind) -> Callable[..., Any]:
        async def on_change(old: PolicyObject | None, new: PolicyObject | None) -> None:
            some = new or old
            assert some is not None
            self._policy((kind, some.metadata.namespace, some.metadata.name), new)

        return on_change

    def _policy(self, key: PolicyKey, new: PolicyObject | None) -> None:
        if new is None:
            self.policies.pop(key, None)
            self._table.drop_object(key)
            self._report(key, ())
            self.changes.add("success")
        else:
            meta = new.metadata
            source = Source(*key, new.spec, new.specs, annotations_of(meta), meta.uid)
            reading = read(source, self.settings)
            known = self.policies.get(key)
            self.policies[key] = StoredPolicy(source, reading, meta.generation)
            if known is not None and known.reading == reading:
                return  # its status, or what does not matter here
            self._table.put_object(key, reading.rules)
            self._report(key, reading.errors)
            for remark in self.remarks(reading):
                log.warning('event=policy-passes-pods-by policy="%s %s/%s" "%s"', *key, remark)
            self.changes.add("failure" if reading.errors else "success")
        self._on_change(True)

    def remarks(self, reading: Reading) -> list[Finding]:
        """What is probably not meant, as things are now."""
        return pods_meant(self._table.known, reading.rules, self.pod_cidrs())

    async def _group_change(self, old: CidrGroupObject | None, new: CidrGroupObject | None) -> None:
        some = new or old
        assert some is not None
        name = some.metadata.name
        if new is None:
            self.groups.pop(name, None)
            self._table.put_group(name, None)
            errors: tuple[Finding, ...] = ()
        else:
            found = cidr_group.read(name, labels_of(new.metadata), new.spec)
            self.groups[name] = found
            self._table.put_group(name, CidrGroup(found.prefixes, found.labels))
            errors = found.errors
        self._report(("CiliumCIDRGroup", "", name), errors)
        self._on_change(True)

    def _report(self, key: tuple[str, str, str], errors: Iterable[Finding]) -> None:
        kind, namespace, name = key
        subject = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        before = self.problems.total
        self.problems.set(subject, tuple(f"{subject}: {error}" for error in errors))
        if self.problems.total != before:
            log.warning('event=policy-invalid "%s"', self.problems.last)

    def service(self, name: ServiceName, service: LocalService | None) -> None:
        """A service of this cluster, or ``None``: it is gone."""
        if service is None:
            self._services.pop(name, None)
        else:
            self._services[name] = service
        self._put_service(name)

    def backends(self, name: ServiceName, addresses: Iterable[Address]) -> None:
        """The endpoint addresses of a service of this cluster."""
        self._addresses[name] = tuple(sorted(addresses))
        if not self._addresses[name]:
            del self._addresses[name]
        self._put_service(name)

    def _put_service(self, name: ServiceName) -> None:
        service = self._services.get(name)
        found = None
        if service is not None:
            addresses = () if service.selector else self._addresses.get(name, ())
            found = PolicyService(
                Labels.k8s(service.labels),
                _pods_of(service, self.settings.cluster) if service.selector else None,
                tuple(host_prefix(address) for address in addresses),
            )
        self._table.put_service(name.namespace, name.name, found)
        self._on_change(False)

    def port_names(self, namespace: str, pod: str, ports: Iterable[Port]) -> None:
        """The named ports of a pod of this cluster; none: it has none, or is gone."""
        new, old = frozenset(ports), self._pod_ports.get((namespace, pod), frozenset())
        if new == old:
            return
        self._pod_ports[namespace, pod] = new
        if not new:
            del self._pod_ports[namespace, pod]
        for port, more in (*((p, 1) for p in new - old), *((p, -1) for p in old - new)):
            name = port[0].lower(), port[1]
            counts = self._port_users.setdefault(name, {})
            counts[port[2]] = counts.get(port[2], 0) + more
            if not counts[port[2]]:
                del counts[port[2]]
            self._table.put_port_name(*name, counts)
            if not counts:
                del self._port_users[name]
        self._on_change(False)


def ports_of(pod: Pod) -> tuple[Port, ...]:
    """The named ports of a pod's containers."""
    found = [
        (port.name, PROTOCOLS[port.protocol][0], port.container_port)
        for container in pod.spec.containers or ()
        for port in container.ports or ()
        if port.name and port.protocol in ("TCP", "UDP", "SCTP")
    ]
    return tuple(sorted(set(found)))


def published_ports(endpoint: CiliumEndpoint | None) -> tuple[Port, ...]:
    """The named ports that an endpoint's object tells."""
    named = (endpoint.status.named_ports if endpoint and endpoint.status else None) or ()
    known = ("TCP", "UDP", "SCTP")
    return tuple((p.name, PROTOCOLS[p.protocol][0], p.port) for p in named if p.protocol in known)


def _pods_of(service: LocalService, cluster: str) -> Selector:
    """The pods behind a service: of other clusters only if it is global."""
    terms = [in_namespace(service.name.namespace)]
    if not service.mesh.is_global:
        terms.append(Requirement(CLUSTER_LABEL, Operator.IN, (cluster,), SOURCE_K8S))
    terms += [
        Requirement(key, Operator.IN, (value,), SOURCE_K8S)
        for key, value in sorted(service.selector.items())
    ]
    return Selector(tuple(terms))
