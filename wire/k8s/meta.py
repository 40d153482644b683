"""What every Kubernetes object has in common, and the answer of a failed request. Pure.

Objects are read leniently: unknown fields are ignored, because newer servers add some, and only
the fields that Isthmus reads are declared. They are therefore never written back whole: writers
send patches, or the full body of kinds that are our own.
"""

import msgspec


class K8sStruct(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """Base of all object structs: camelCase on the wire, values here."""


class OwnerReference(K8sStruct, frozen=True):
    """The object that this one goes away with."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(K8sStruct, frozen=True):
    """Name, version and markings of an object."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    # Some writers send an explicit null, which a schema-less server keeps.
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


class K8sObject(K8sStruct, frozen=True):
    """An object; apiVersion and kind are implied by the resource it is read as."""

    metadata: ObjectMeta = ObjectMeta()


class ListMeta(K8sStruct, frozen=True):
    """Where a list stands in the history of the store."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Condition(K8sStruct, frozen=True):
    """One condition of a status."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class StatusCause(K8sStruct, frozen=True):
    """A detail of a failure; an exec's exit code comes as one."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(K8sStruct, frozen=True):
    """Which object a failure is about, and why."""

    name: str = ""
    kind: str = ""
    causes: list[StatusCause] | None = None


class Status(K8sStruct, frozen=True):
    """The body of a failed request, of a watch's ERROR event, and of an exec's end."""

    status: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: StatusDetails | None = None


def labels_of(meta: ObjectMeta) -> dict[str, str]:
    """The labels, empty when absent."""
    return meta.labels or {}


def annotations_of(meta: ObjectMeta) -> dict[str, str]:
    """The annotations, empty when absent."""
    return meta.annotations or {}
