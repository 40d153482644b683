"""Structural schemas of CRDs: default, prune, validate. Pure.

The subset of OpenAPI v3 that ``apiextensions.k8s.io/v1`` allows; CEL rules are ignored.
"""

import math
import re
from functools import lru_cache
from typing import Any

from kind.apiserver.errors import Cause
from kind.apiserver.objects import Obj
from kind.apiserver.validate import required, unsupported, wrong

_KEEP = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EMBEDDED = "x-kubernetes-embedded-resource"


def _drop_nulls(value: Obj, schema: Obj) -> None:
    """A null that a schema does not allow, and has no default for, is as if it were absent."""
    extra = schema.get("additionalProperties")
    for name in [n for n, item in value.items() if item is None]:
        sub = (schema.get("properties") or {}).get(name, extra)
        if isinstance(sub, dict) and not sub.get("nullable") and "default" not in sub:
            del value[name]


def apply_defaults(value: Any, schema: Obj) -> None:
    """Fill ``default`` of absent properties and drop nulls that have none, in place."""
    if isinstance(value, dict):
        _drop_nulls(value, schema)
        for name, sub in (schema.get("properties") or {}).items():
            if (
                "default" in sub
                and value.get(name) is None
                and (name not in value or not sub.get("nullable"))
            ):
                value[name] = _copy(sub["default"])
            if name in value:
                apply_defaults(value[name], sub)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for name, item in value.items():
                if name not in (schema.get("properties") or {}):
                    apply_defaults(item, extra)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            apply_defaults(item, schema["items"])


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def prune(value: Any, schema: Obj, path: str = "", root: bool = True) -> list[str]:
    """Drop fields the schema does not name, in place; returns their paths."""
    gone: list[str] = []
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        for name in list(value):
            at = f"{path}.{name}" if path else name
            if (root or schema.get(_EMBEDDED)) and name in ("apiVersion", "kind", "metadata"):
                continue
            if name in properties:
                gone += prune(value[name], properties[name], at, root=False)
            elif isinstance(extra, dict):
                gone += prune(value[name], extra, at, root=False)
            elif not schema.get(_KEEP) and extra is not True:
                del value[name]
                gone.append(at)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, item in enumerate(value):
            gone += prune(item, schema["items"], f"{path}[{i}]", root=False)
    return gone


def validate(value: Any, schema: Obj, path: str = "", *, whole: bool = False) -> list[Cause]:
    """Everything that violates the schema.

    At the top, apiVersion, kind and metadata are not looked at unless ``whole``: custom kinds have
    those of every object.
    """
    if value is None and (schema.get("nullable") or not path):
        return []
    out = _type(value, schema, path)
    if out:
        return out
    out += _bounds(value, schema, path)
    if isinstance(value, dict):
        out += _object(value, schema, path, whole)
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for i, item in enumerate(value):
                out += validate(item, items, f"{path}[{i}]")
    return out + _combined(value, schema, path)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, kind):
            return name
    return type(value).__name__


def _type(value: Any, schema: Obj, path: str) -> list[Cause]:
    found = _type_name(value)
    if schema.get(_INT_OR_STRING):
        if found in ("integer", "string"):
            return []
        return [_type_cause(path, found, "integer,string")]
    wanted = schema.get("type")
    if not wanted or found == wanted:
        return []
    if wanted == "number" and found == "integer":
        return []
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return []
    return [_type_cause(path, found, wanted)]


def _type_cause(path: str, found: str, wanted: str) -> Cause:
    return Cause(
        path or "<nil>",
        "FieldValueTypeInvalid",
        f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"',
    )


@lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str] | None:
    """``None`` for a pattern that Python cannot read: such a rule is not enforced."""
    try:
        return re.compile(pattern)
    except re.error:
        return None


def _bounds(value: Any, schema: Obj, path: str) -> list[Cause]:
    out: list[Cause] = []
    if "enum" in schema and value not in schema["enum"]:
        out.append(unsupported(path, value, [str(v) for v in schema["enum"]]))
    if isinstance(value, str):
        out += _text(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        out += _number(value, schema, path)
    elif isinstance(value, list):
        out += _count(len(value), schema, path, "Items", "items")
    elif isinstance(value, dict):
        out += _count(len(value), schema, path, "Properties", "properties")
    return out


def _count(count: int, schema: Obj, path: str, suffix: str, noun: str) -> list[Cause]:
    low, high = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    if low is not None and count < low:
        return [wrong(path, count, f"{path} in body should have at least {low} {noun}")]
    if high is not None and count > high:
        return [
            Cause(path, "FieldValueTooMany", f"Too many: {count}: must have at most {high} {noun}")
        ]
    return []


_FORMATS = {
    "ipv4": re.compile(r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"),
    "cidr": re.compile(r"[0-9A-Fa-f:.]+/\d{1,3}"),
}


def _text(value: str, schema: Obj, path: str) -> list[Cause]:
    out = []
    low, high = schema.get("minLength"), schema.get("maxLength")
    if low is not None and len(value) < low:
        out.append(wrong(path, value, f"{path} in body should be at least {low} chars long"))
    if high is not None and len(value) > high:
        out.append(Cause(path, "FieldValueTooLong", f"Too long: may not be more than {high} bytes"))
    pattern = schema.get("pattern")
    if pattern and (regex := _regex(pattern)) and not regex.search(value):
        out.append(wrong(path, value, f"{path} in body should match '{pattern}'"))
    known = _FORMATS.get(str(schema.get("format")))
    if known and not known.fullmatch(value):
        out.append(
            wrong(path, value, f'{path} in body must be of type {schema["format"]}: "{value}"')
        )
    return out


def _number(value: float, schema: Obj, path: str) -> list[Cause]:
    out = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        out.append(wrong(path, value, f"{path} in body should be {word} {low}"))
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        out.append(wrong(path, value, f"{path} in body should be {word} {high}"))
    step = schema.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
        out.append(wrong(path, value, f"{path} in body should be a multiple of {step}"))
    return out


def _object(value: Obj, schema: Obj, path: str, whole: bool) -> list[Cause]:
    prefix = f"{path}." if path else ""
    out = [required(f"{prefix}{n}") for n in schema.get("required") or () if n not in value]
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for name, item in value.items():
        if not (path or whole) and name in ("apiVersion", "kind", "metadata"):
            continue
        if name in properties:
            out += validate(item, properties[name], f"{prefix}{name}")
        elif isinstance(extra, dict):
            out += validate(item, extra, f"{prefix}{name}")
    return out


def _combined(value: Any, schema: Obj, path: str) -> list[Cause]:
    out: list[Cause] = []
    for sub in schema.get("allOf") or ():
        out += validate(value, sub, path)
    any_of = schema.get("anyOf")
    if any_of and all(validate(value, s, path) for s in any_of):
        out.append(wrong(path, "", f"{path} in body must validate at least one schema (anyOf)"))
    one_of = schema.get("oneOf")
    if one_of and sum(1 for s in one_of if not validate(value, s, path)) != 1:
        out.append(wrong(path, "", f"{path} in body must validate one and only one schema (oneOf)"))
    forbidden = schema.get("not")
    if forbidden and not validate(value, forbidden, path):
        out.append(wrong(path, "", f"{path} in body must not validate the schema (not)"))
    return out
