"""What Isthmus asks of a Kubernetes API server. Pure: the contract, its values and its errors.

``kube.client`` keeps it over HTTPS. Every method raises ``ApiError`` when the server refuses and
another ``OSError`` when it cannot be reached; nothing is retried here, because only the caller
knows whether its request may be repeated.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

Body: TypeAlias = Mapping[str, Any] | msgspec.Struct


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """A kind of object: where it lives and what its JSON is read into.

    Never written ``Resource[X](...)``: a frozen slotted generic dataclass refuses that.
    """

    group: str  # empty for the core group
    version: str
    plural: str
    kind: str
    namespaced: bool
    type: type[T]

    @property
    def api_version(self) -> str:
        """As it stands in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of one object, or of a collection without ``name``.

        An empty namespace means all namespaces. Raises ``ValueError`` for a namespaced object
        without its namespace.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name}: a namespace is needed")
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


class PatchKind(Enum):
    """How a patch is to be understood; the content type of the request."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"  # built-in kinds only
    APPLY = "application/apply-patch+yaml"  # JSON is YAML


class ApiError(OSError):
    """The API server refused: which verb on which object, and why."""

    def __init__(self, verb: str, subject: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"cannot {verb} {subject}: {message or reason} ({status} {reason})")
        self.verb = verb
        self.subject = subject
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """There is no such object (or no such kind)."""
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        """A create met an object of that name."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Somebody else changed the object in between: read it again."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def expired(self) -> bool:
        """The revision asked for has been compacted away: list again."""
        return self.status == 410

    @property
    def ahead(self) -> bool:
        """The revision asked for is newer than the store, which was restored or made anew."""
        return "Too large resource version" in self.message


class UnreachableError(OSError):
    """The API server did not answer."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container wrote, and how it ended."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class Client(Protocol):
    """A connection to one API server. Safe to use from many tasks."""

    async def get(self, resource: Resource[T], name: str, namespace: str = "") -> T:
        """Read one object."""
        ...

    async def list(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[T]:
        """Read all objects of a kind, in one namespace or in all.

        Raises ``ValueError`` naming the first object that does not decode; the informer is for
        those who must go on.
        """
        ...

    async def list_raw(
        self,
        resource: Resource[Any],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[Sequence[msgspec.Raw], str]:
        """Every item undecoded, and the revision from which a watch goes on."""
        ...

    async def create(self, resource: Resource[T], body: Body, namespace: str = "") -> T:
        """Make an object; the namespace defaults to the body's. ``already_exists`` is an error."""
        ...

    async def update(
        self, resource: Resource[T], body: Body, *, namespace: str = "", subresource: str = ""
    ) -> T:
        """Replace an object by a whole body; with a resourceVersion in it, only that version."""
        ...

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        body: Body | Sequence[Any],
        namespace: str = "",
        *,
        kind: PatchKind = PatchKind.MERGE,
        subresource: str = "",
        field_manager: str = "isthmus",
    ) -> T:
        """Change an object. ``APPLY`` also creates it, and takes fields over from others."""
        ...

    async def patch_status(
        self, resource: Resource[T], name: str, status: Mapping[str, Any], namespace: str = ""
    ) -> T:
        """Merge into ``status``, through the subresource."""
        ...

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        missing_ok: bool = True,
    ) -> None:
        """Remove an object; with ``uid`` or ``resource_version`` only that very one."""
        ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_s: float = 30,
    ) -> bytes:
        """One raw request; the way to paths that have no resource here (``/version``)."""
        ...

    async def server_time(self) -> datetime | None:
        """What time it is by the server's clock, to the second; ``None`` if it does not say."""
        ...

    def watch(
        self, path: str, query: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator[Sequence[bytes]]:
        """Lines of a watch as they arrive, all that came together at once, until it ends."""
        ...

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        timeout: float = 30,
        *,
        stdin: bytes | None = None,
    ) -> ExecResult:
        """Run a command in a container (empty: the only one). Raises ``TimeoutError``."""
        ...

    async def logs(
        self, namespace: str, pod: str, container: str = "", *, tail_lines: int | None = None
    ) -> str:
        """What a container wrote so far."""
        ...

    def follow_logs(
        self, namespace: str, pod: str, container: str = "", *, tail_lines: int | None = None
    ) -> AsyncIterator[bytes]:
        """What a container writes, in pieces as they come, until it ends."""
        ...

    async def close(self) -> None:
        """Give up the connections."""
        ...
