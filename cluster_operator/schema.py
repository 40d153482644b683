"""Short words for OpenAPI schemas, as resource definitions need them. Pure."""

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
INT64: Schema = {"type": "integer", "format": "int64"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}


def fields(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object; an underscore in a name stands for the hyphen of these kinds' fields."""
    schema: Schema = {
        "type": "object",
        "properties": {name.replace("_", "-"): value for name, value in properties.items()},
    }
    if required:
        schema["required"] = list(required)
    return schema


def named(properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """An object whose field names are no Python names."""
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


def array(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def mapping(values: Schema) -> Schema:
    """A map from any text."""
    return {"type": "object", "additionalProperties": values}


def enum(*values: str) -> Schema:
    """One of a few texts."""
    return {"type": "string", "enum": list(values)}


def opaque() -> Schema:
    """An object whose inside is not ours to say."""
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
