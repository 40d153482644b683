"""One stored object, several versions: what a path shows and what is stored. Pure.

CRD versions differ in ``apiVersion`` only (conversion strategy None). Events exist in two groups
with different field names for the same facts.
"""

from kind.apiserver.objects import Obj
from kind.apiserver.resources import Resource

# core/v1 name → events.k8s.io/v1 name
_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
}
_EVENT_FIELDS_BACK = {v: k for k, v in _EVENT_FIELDS.items()}


def to_shown(resource: Resource, obj: Obj) -> Obj:
    """The object as this path's version; the stored object itself when they are the same."""
    if obj.get("apiVersion") == resource.group_version:
        return obj
    return _renamed(obj, _EVENT_FIELDS, resource.group_version, resource)


def to_stored(resource: Resource, obj: Obj) -> Obj:
    """The object as it is stored."""
    if obj.get("apiVersion") == resource.stored_group_version:
        return obj
    return _renamed(obj, _EVENT_FIELDS_BACK, resource.stored_group_version, resource)


def _renamed(obj: Obj, names: dict[str, str], version: str, resource: Resource) -> Obj:
    out = obj if resource.custom else {names.get(k, k): v for k, v in obj.items()}
    return out | {"apiVersion": version}
