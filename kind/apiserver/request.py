"""What a request asks for: the path, the query and the Accept header, taken apart. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from kind.apiserver import errors, protobuf
from kind.apiserver.objects import Obj
from kind.apiserver.options import DeleteOptions, Options
from kind.apiserver.resources import Resource
from kind.apiserver.selectors import Selection, parse_fields, parse_labels

JSON = "application/json"
YAML = "application/yaml"


@dataclass(frozen=True, slots=True)
class Target:
    """A path below ``/api/v1`` or ``/apis/GROUP/VERSION``."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""  # below a proxy subresource
    watch: bool = False  # the old /watch/ prefix


def parse_path(path: str) -> Target | None:
    """``None`` when the path names no resource."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = parts[0] == "watch" and len(parts) > 1
    if watch:
        parts = parts[1:]
    namespace = ""
    own = len(parts) < 3 or parts[2] in ("status", "finalize")
    if parts[0] == "namespaces" and not own:
        namespace, parts = parts[1], parts[2:]
    plural, name, sub = (*parts[:3], "", "")[:3]
    rest = "/".join(parts[3:])
    return Target(group, version, plural, namespace, name, sub, rest, watch)


@dataclass(frozen=True, slots=True)
class View:
    """How the client wants objects shown: ``object``, ``table`` or ``partial``."""

    shape: str = "object"
    version: str = "v1"  # of meta.k8s.io
    media: str = JSON


def parse_accept(header: str) -> View:
    """The first media type we can answer. Raises ``ApiError`` 406."""
    if not header:
        return View()
    for part in header.split(","):
        media, *parameters = [p.strip() for p in part.split(";")]
        asked = dict(p.split("=", 1) for p in parameters if "=" in p)
        if media in (JSON, "*/*", "application/*", YAML):
            shape = {
                "Table": "table",
                "PartialObjectMetadata": "partial",
                "PartialObjectMetadataList": "partial",
            }.get(asked.get("as", ""), "object")
            return View(shape, asked.get("v", "v1"), YAML if media == YAML else JSON)
    raise errors.not_acceptable([JSON, YAML])


def is_true(query: Mapping[str, str], key: str) -> bool:
    """A boolean query parameter."""
    return query.get(key, "").lower() in ("1", "true", "t") or (key in query and query[key] == "")


def number(query: Mapping[str, str], key: str, default: int = 0) -> int:
    """Raises ``ApiError`` 400."""
    text = query.get(key, "")
    if not text:
        return default
    if not text.isdigit():
        raise errors.bad_request(f'invalid value "{text}" for {key}: a number is needed')
    return int(text)


def selection(resource: Resource, target: Target, query: Mapping[str, str]) -> Selection:
    """Namespace, labelSelector and fieldSelector; a name in the path selects like a field."""
    fields = query.get("fieldSelector", "")
    if target.name:
        fields = f"metadata.name={target.name}" + (f",{fields}" if fields else "")
    return Selection(
        target.namespace if resource.namespaced else "",
        parse_labels(query.get("labelSelector", "")),
        parse_fields(fields, resource.plural),
    )


def write_options(query: Mapping[str, str]) -> Options:
    """``dryRun`` and ``fieldValidation``."""
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise errors.bad_request(f'invalid dryRun "{dry}": only All is supported')
    return Options(dry == "All", query.get("fieldValidation") == "Strict")


def delete_options(query: Mapping[str, str], body: Obj) -> DeleteOptions:
    """From the body (a ``DeleteOptions``) and the query; the query wins."""
    grace = body.get("gracePeriodSeconds")
    if "gracePeriodSeconds" in query:
        grace = number(query, "gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or grace < 0):
        raise errors.bad_request("gracePeriodSeconds must be a number from 0")
    pre = body.get("preconditions") or {}
    propagation = query.get("propagationPolicy") or body.get("propagationPolicy") or ""
    if body.get("orphanDependents") is True:
        propagation = "Orphan"
    if propagation not in ("", "Foreground", "Background", "Orphan"):
        raise errors.bad_request(f'invalid propagationPolicy "{propagation}"')
    dry = write_options(query).dry_run or body.get("dryRun") == ["All"]
    return DeleteOptions(
        grace, propagation, str(pre.get("uid") or ""), str(pre.get("resourceVersion") or ""), dry
    )


def decode_body(data: bytes, content_type: str) -> object:
    """JSON, YAML, or some protobuf. Raises ``ApiError`` 400 or 415."""
    media = content_type.partition(";")[0].strip()
    if media == protobuf.MEDIA:
        return protobuf.decode(data)
    try:
        if media.endswith("yaml"):
            return msgspec.yaml.decode(data)
        return msgspec.json.decode(data)
    except msgspec.DecodeError as e:
        raise errors.bad_request(f"the body is not valid {media or JSON}: {e}") from None
