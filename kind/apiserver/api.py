"""The verbs: read, create, change and remove objects under the rules of the API. Adapter.

One process serves one etcd, and every write waits until the cache has seen it: so reads from the
cache are as fresh as reads from etcd (ADR 0060). Between reading the cache and sending a
transaction nothing is assumed; the transaction compares the object's revision.
"""

import logging
import secrets
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from kind.apiserver import errors, versions
from kind.apiserver.allocate import Network, Taken, allocate
from kind.apiserver.cache import Cache, Item
from kind.apiserver.errors import ApiError
from kind.apiserver.objects import Obj, dig, meta, name_of
from kind.apiserver.options import PLAIN, DeleteOptions, Options
from kind.apiserver.resources import Registry, Resource
from kind.apiserver.selectors import Selection
from kind.apiserver.storage import StaleError, Storage
from kind.apiserver.strategy import (
    Stamp,
    check_place,
    check_preconditions,
    check_shape,
    check_type,
    prepare_create,
    prepare_update,
    same,
    strict_error,
)

log = logging.getLogger(__name__)
_ATTEMPTS = 10  # of a patch that others keep overtaking
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words
Change = Callable[[Obj], Obj]


def timestamp(now: datetime) -> str:
    """As metadata shows it: whole seconds, UTC."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


class Api:
    """Object verbs on one store."""

    def __init__(self, storage: Storage, registry: Registry, networks: Sequence[Network]) -> None:
        self.storage = storage
        self.cache: Cache = storage.cache
        self.registry = registry
        self._networks = networks  # of services, one per family
        self._reserved: dict[str, Obj] = {}  # services on their way to the store

    # Reading.

    def read(self, resource: Resource, namespace: str, name: str) -> Item:
        """Raises ``ApiError`` 404."""
        item = self.cache.get(resource.table, _key(resource, namespace, name))
        if item is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return item

    # Writing.

    async def create(
        self, resource: Resource, namespace: str, body: object, options: Options = PLAIN
    ) -> Item:
        """Store a new object. Raises ``ApiError`` 409 when the name is taken."""
        obj = check_type(resource, body)
        obj = check_shape(resource, versions.to_stored(resource, obj))
        check_place(resource, obj, namespace, "")
        if resource.namespaced:
            self._check_namespace(resource, obj, namespace)
        letters = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
        stamp = Stamp(timestamp(datetime.now(UTC)), str(uuid.uuid4()), letters)
        unknown = prepare_create(resource, obj, stamp)
        if unknown and options.strict:
            raise strict_error(resource, unknown)
        if resource.table == "apiextensions.k8s.io/customresourcedefinitions":
            establish(obj, stamp.now)
        name = name_of(obj)
        key = _key(resource, namespace, name)
        if self.cache.get(resource.table, key) is not None:
            raise errors.already_exists(resource.group, resource.plural, name)
        with self._reserve(resource, obj):
            if options.dry_run:
                return Item(obj, 0)
            try:
                return await self.storage.write(resource.table, key, obj, 0)
            except StaleError:
                raise errors.already_exists(resource.group, resource.plural, name) from None

    def _check_namespace(self, resource: Resource, obj: Obj, namespace: str) -> None:
        found = self.cache.get("core/namespaces", namespace)
        if found is None:
            raise errors.not_found("", "namespaces", namespace)
        if meta(found.obj).get("deletionTimestamp"):
            error = errors.forbidden(
                resource.group,
                resource.plural,
                name_of(obj),
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated",
            )
            assert error.details is not None
            error.details["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "field": "metadata.namespace",
                    "message": f"namespace {namespace} is being terminated",
                }
            ]
            raise error

    def _reserve(self, resource: Resource, obj: Obj) -> "_Reservation":
        """Give a service its addresses, held against other requests until it is in the cache."""
        key = ""
        if resource.table == "core/services":
            key = f"{meta(obj).get('namespace')}/{name_of(obj)}"
            others = [i.obj for k, i in self.cache.select("core/services", Selection()) if k != key]
            taken = Taken([*others, *(o for k, o in self._reserved.items() if k != key)])
            causes = allocate(obj, self._networks, taken, secrets.randbelow(1 << 20))
            if causes:
                raise errors.invalid("", "Service", name_of(obj), causes)
        return _Reservation(self._reserved, key, obj)

    async def modify(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Change,
        part: str = "",
        options: Options = PLAIN,
        missing: Callable[[], Obj] | None = None,
    ) -> Item:
        """Store what ``change`` makes of the current object.

        ``change`` gets a copy without resourceVersion; when its result has one, that is a
        precondition, otherwise the change is repeated on whatever is newest.
        """
        for _ in range(_ATTEMPTS):
            try:
                item = self.read(resource, namespace, name)
            except ApiError as e:
                if missing is None or e.code != 404:
                    raise
                return await self.create(resource, namespace, missing(), options)
            old = item.copy()
            shown = versions.to_shown(resource, item.copy())
            meta(shown).pop("resourceVersion", None)
            new = check_type(resource, change(shown))
            new = check_shape(resource, versions.to_stored(resource, new))
            check_place(resource, new, namespace, name)
            pinned = bool(meta(new).get("resourceVersion"))
            new, unknown = prepare_update(resource, new, old, part)
            if unknown and options.strict:
                raise strict_error(resource, unknown)
            if same(new, old):
                return item
            if resource.table == "apiextensions.k8s.io/customresourcedefinitions" and not part:
                establish(new, timestamp(datetime.now(UTC)))
            key = _key(resource, namespace, name)
            with self._reserve(resource, new):
                if options.dry_run:
                    return Item(new, item.revision)
                try:
                    if meta(new).get("deletionTimestamp") and _removable(resource, new):
                        revision = await self.storage.erase(resource.table, key, item.revision)
                        return Item(new, revision)
                    return await self.storage.write(resource.table, key, new, item.revision)
                except StaleError:
                    if pinned:
                        break
        raise errors.conflict(resource.group, resource.plural, name)

    async def finalize_namespace(
        self, resource: Resource, name: str, finalizers: list[str], options: Options
    ) -> Item:
        """Set ``spec.finalizers``, which no other path may change."""
        for _ in range(_ATTEMPTS):
            item = self.read(resource, "", name)
            new = item.copy()
            new["spec"] = {k: v for k, v in new["spec"].items() if k != "finalizers"}
            if finalizers:
                new["spec"]["finalizers"] = finalizers
            if same(new, item.obj) or options.dry_run:
                return item
            try:
                if meta(new).get("deletionTimestamp") and _removable(resource, new):
                    revision = await self.storage.erase(resource.table, name, item.revision)
                    return Item(new, revision)
                return await self.storage.write(resource.table, name, new, item.revision)
            except StaleError:
                continue
        raise errors.conflict("", "namespaces", name)

    # Removing.

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[Item, bool]:
        """Remove, or begin to. The flag says whether the object is gone."""
        for _ in range(_ATTEMPTS):
            item = self.read(resource, namespace, name)
            obj = item.copy()
            check_preconditions(resource, obj, options.uid, options.version)
            key = _key(resource, namespace, name)
            begun = self._begin_delete(resource, obj, options)
            if options.dry_run:
                return item, not begun
            try:
                if begun:
                    if same(obj, item.obj):
                        return item, False
                    return await self.storage.write(resource.table, key, obj, item.revision), False
                if resource.table == "apiextensions.k8s.io/customresourcedefinitions":
                    await self._delete_instances(obj)
                revision = await self.storage.erase(resource.table, key, item.revision)
                return item.at(revision), True
            except StaleError:
                continue
        raise errors.conflict(resource.group, resource.plural, name)

    def _begin_delete(self, resource: Resource, obj: Obj, options: DeleteOptions) -> bool:
        """Mark an object that cannot go at once; false when it can."""
        m = meta(obj)
        finalizers = list(m.get("finalizers") or [])
        for policy, mark in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
            if options.propagation == policy and mark not in finalizers:
                finalizers.append(mark)
            elif options.propagation and options.propagation != policy and mark in finalizers:
                finalizers.remove(mark)
        if finalizers:
            m["finalizers"] = finalizers
        else:
            m.pop("finalizers", None)
        grace = _grace(resource, obj, options.grace_s)
        held = resource.table == "core/namespaces" and dig(obj, "spec", "finalizers")
        if not grace and not finalizers and not held:
            return False
        known = m.get("deletionGracePeriodSeconds")
        if not m.get("deletionTimestamp") or (known is not None and grace < known):
            m["deletionTimestamp"] = timestamp(datetime.now(UTC) + timedelta(seconds=grace))
            m["deletionGracePeriodSeconds"] = grace
        if resource.table == "core/namespaces":
            obj.setdefault("status", {})["phase"] = "Terminating"
        return True

    async def _delete_instances(self, crd: Obj) -> None:
        for resource in self.registry.all():
            if resource.custom and resource.table == f"{crd['spec']['group']}/" + str(
                dig(crd, "spec", "names", "plural")
            ):
                for key, _ in list(self.cache.select(resource.table, Selection())):
                    namespace, _, name = key.rpartition("/")
                    try:
                        await self.delete(resource, namespace, name, DeleteOptions())
                    except ApiError as e:
                        if e.code != 404:
                            raise
                return


class _Reservation:
    """Holds a service's addresses while its transaction is under way."""

    def __init__(self, held: dict[str, Obj], key: str, obj: Obj) -> None:
        self._held, self._key = held, key
        if key:
            held[key] = obj

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._held.pop(self._key, None)


def _key(resource: Resource, namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if resource.namespaced else name


def _grace(resource: Resource, obj: Obj, asked: int | None) -> int:
    """Seconds a pod gets to end; only pods that run somewhere have any."""
    if resource.table != "core/pods":
        return 0
    if not dig(obj, "spec", "nodeName") or dig(obj, "status", "phase") in ("Succeeded", "Failed"):
        return 0
    own = dig(obj, "spec", "terminationGracePeriodSeconds")
    return max(0, asked if asked is not None else 30 if own is None else int(own))


def _removable(resource: Resource, obj: Obj) -> bool:
    if meta(obj).get("finalizers"):
        return False
    if resource.table == "core/namespaces":
        return not dig(obj, "spec", "finalizers")
    if resource.table == "core/pods" and meta(obj).get("deletionTimestamp"):
        return not meta(obj).get("deletionGracePeriodSeconds")
    return True


def establish(crd: Obj, now: str) -> None:
    """A CRD is served as soon as it is stored; its status says so."""
    spec = crd["spec"]
    status = crd.get("status") or {}
    stored = list(status.get("storedVersions") or [])
    stored += [v["name"] for v in spec["versions"] if v.get("storage") and v["name"] not in stored]
    old = {c.get("type"): c for c in status.get("conditions") or []}
    crd["status"] = {
        "acceptedNames": spec["names"],
        "storedVersions": stored,
        "conditions": [
            old.get(kind)
            or {
                "type": kind,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": now,
            }
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ],
    }
