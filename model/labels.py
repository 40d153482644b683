"""Labels with a source, and their one canonical text. Pure.

Canonical text: sorted by key, each ``source:key=value;`` with a trailing semicolon, as
identities are stored in etcd. An empty value keeps its ``=``.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

SOURCE_K8S = "k8s"
SOURCE_RESERVED = "reserved"
CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT_LABEL = "io.cilium.k8s.policy.serviceaccount"
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
NAMESPACE_META_PREFIX = "io.cilium.k8s.namespace.labels."


class Label(msgspec.Struct, frozen=True, order=True, gc=False):
    """``source:key=value``."""

    key: str
    value: str = ""
    source: str = SOURCE_K8S

    def __str__(self) -> str:
        return (
            f"{self.source}:{self.key}={self.value}" if self.value else f"{self.source}:{self.key}"
        )


class Labels(msgspec.Struct, frozen=True, gc=False):
    """An immutable set of labels, at most one per (source, key), ordered by key then source."""

    items: tuple[Label, ...] = ()

    @classmethod
    def of(cls, labels: Iterable[Label]) -> "Labels":
        """Sort, and let a later label of the same source and key replace an earlier one."""
        last = {(label.key, label.source): label for label in labels}
        return cls(tuple([last[k] for k in sorted(last)]))

    @classmethod
    def k8s(cls, labels: Mapping[str, str]) -> "Labels":
        """All of one mapping, with source ``k8s``."""
        return cls.of(Label(key, value) for key, value in labels.items())

    def __iter__(self) -> Iterator[Label]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def get(self, key: str, source: str = SOURCE_K8S) -> str | None:
        """The value, or ``None`` when there is no such label."""
        return next((i.value for i in self.items if i.key == key and i.source == source), None)

    def text(self) -> str:
        """The canonical text."""
        return "".join(f"{i.source}:{i.key}={i.value};" for i in self.items)

    def strings(self) -> list[str]:
        """As command lines and CiliumEndpoint show them: ``source:key=value``, no bare ``=``."""
        return [str(i) for i in self.items]
