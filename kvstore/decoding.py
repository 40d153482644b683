"""Rows of one remote cluster → values, each alone: a bad one is refused and told. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kvstore.allowance import Purse
from kvstore.mirror import Told
from model.address import Prefix
from model.cluster import ClusterId, ClusterName, IdentityRange
from model.identity import NumericIdentity
from model.node import NodeName
from model.service import ServiceName
from model.shared_slice import SliceName
from wire.etcd import (
    endpointslice_v1,
    identity_v1,
    ip_v1,
    keys,
    node_v1,
    service_export_v1,
    service_reader,
    service_v1,
)
from wire.etcd.errors import RemoteWireError

Key: TypeAlias = NodeName | NumericIdentity | Prefix | ServiceName | SliceName
# The value: Node, Identity, EndpointAddress, SharedService, SharedSlice or None.
Change: TypeAlias = tuple[Key, Any]


class Decoding:
    """What is known of a cluster that its records must agree with, and what they may cost."""

    def __init__(self, cluster: ClusterName, purse: Purse, node_labels: bool) -> None:
        """Without ``node_labels`` those of nodes are left out."""
        self._cluster, self._purse, self._node_labels = cluster, purse, node_labels
        self._services = service_reader.Reader()
        self._range: IdentityRange | None = None
        self.id: ClusterId | None = None  # as announced and believed

    def believe(self, number: ClusterId, numbers: IdentityRange) -> None:
        """The announcement was accepted; before, nothing is decoded."""
        self.id, self._range = number, numbers

    def forget(self, purse: Purse) -> None:
        """Everything it said was taken back."""
        self._purse, self._services = purse, service_reader.Reader()

    def rows(
        self, resource: str, prefix: str, rows: Sequence[Told], refuse: Callable[[str], None]
    ) -> list[Change]:
        """Rows by their names below ``prefix``; a value that is no good is passed over and told."""
        purse = self._purse
        if resource == keys.IP:
            assert self._range is not None  # a session believes first
            most = purse.most_bytes(resource)
            return [*ip_v1.decode_rows(rows, prefix, self._range, most, refuse)]
        changes: list[Change] = []
        for name, data in rows:
            key = prefix + name
            try:
                if data is not None:
                    purse.check(resource, name, data, key)
                changes.append(self._one(resource, key, name, data))
                purse.keep(resource, name, len(data or b""))
            except RemoteWireError as error:
                if data is not None:  # what was never believed is no loss
                    refuse(str(error))
        return changes

    def _one(self, resource: str, key: str, name: str, data: bytes | None) -> Change:
        cluster, number, numbers = self._cluster, self.id, self._range
        assert number is not None  # a session believes first
        assert numbers is not None
        match resource:
            case keys.NODES:
                if data is None:
                    return NodeName(name), None
                labels = self._node_labels
                node = node_v1.decode(name, data, cluster, number, key, labels=labels)
                return NodeName(name), node
            case keys.IDENTITIES:
                if data is None:
                    return identity_v1.decode_number(name, numbers, key), None
                identity = identity_v1.decode(name, data, cluster, numbers, key)
                return identity.id, identity
            case keys.ENDPOINT_SLICES:
                if data is None:
                    return endpointslice_v1.decode_name(name, key), None
                found = endpointslice_v1.decode(name, data, cluster, number, key)
                return found.name, found
            case keys.SERVICE_EXPORTS:
                if data is None:
                    return service_export_v1.decode_name(name, key), None
                export = service_export_v1.decode(name, data, cluster, key)
                return export.name, export
            case _:
                if data is None:
                    self._services.forget(name)
                    return service_v1.decode_name(name, key), None
                service = self._services.decode(name, data, cluster, number, key)
                return service.name, service
