"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386). Pure."""

from typing import Any

from kind.apiserver.errors import ApiError, bad_request


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: ``null`` removes, objects merge, all else replaces. The target is not changed."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def _failed(message: str) -> ApiError:
    return ApiError(
        422, "Invalid", f"the server rejected our request due to an error in our request: {message}"
    )


def _steps(pointer: str) -> list[str]:
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise bad_request(f'JSON pointer "{pointer}" does not begin with "/"')
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer[1:].split("/")]


def _index(items: list[Any], step: str, pointer: str, extra: int = 0) -> int:
    if step == "-" and extra:
        return len(items)
    if not step.isdigit() or int(step) >= len(items) + extra:
        raise _failed(f'no list index "{step}" at "{pointer}"')
    return int(step)


def _get(doc: Any, steps: list[str], pointer: str) -> Any:
    for step in steps:
        if isinstance(doc, list):
            doc = doc[_index(doc, step, pointer)]
        elif isinstance(doc, dict) and step in doc:
            doc = doc[step]
        else:
            raise _failed(f'nothing at "{pointer}"')
    return doc


def _add(doc: Any, steps: list[str], value: Any, pointer: str) -> Any:
    if not steps:
        return value
    parent = _get(doc, steps[:-1], pointer)
    last = steps[-1]
    if isinstance(parent, list):
        parent.insert(_index(parent, last, pointer, 1), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise _failed(f'nothing can be added at "{pointer}"')
    return doc


def _remove(doc: Any, steps: list[str], pointer: str) -> Any:
    if not steps:
        return None
    parent = _get(doc, steps[:-1], pointer)
    _get(parent, steps[-1:], pointer)
    if isinstance(parent, list):
        del parent[int(steps[-1])]
    else:
        del parent[steps[-1]]
    return doc


def deep_copy(value: Any) -> Any:
    """A copy of JSON data that shares nothing."""
    if isinstance(value, dict):
        return {k: deep_copy(v) for k, v in value.items()}
    return [deep_copy(v) for v in value] if isinstance(value, list) else value


def json_patch(target: Any, operations: Any) -> Any:
    """Apply all operations or none. Raises ``ApiError``; the target is not changed."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    doc = deep_copy(target)
    for op in operations:
        if not isinstance(op, dict) or not isinstance(op.get("path"), str):
            raise bad_request("a JSON patch operation needs op and path")
        path, steps = op["path"], _steps(op["path"])
        match op.get("op"):
            case "add":
                doc = _add(doc, steps, deep_copy(op.get("value")), path)
            case "remove":
                doc = _remove(doc, steps, path)
            case "replace":
                _get(doc, steps, path)
                doc = _replace(doc, steps, deep_copy(op.get("value")), path)
            case "test":
                if _get(doc, steps, path) != op.get("value"):
                    raise _failed(f'testing path "{path}" failed')
            case "move" | "copy" as verb:
                source = str(op.get("from", ""))
                value = deep_copy(_get(doc, _steps(source), source))
                if verb == "move":
                    doc = _remove(doc, _steps(source), source)
                doc = _add(doc, steps, value, path)
            case other:
                raise bad_request(f'unknown JSON patch operation "{other}"')
    return doc


def _replace(doc: Any, steps: list[str], value: Any, pointer: str) -> Any:
    if not steps:
        return value
    parent = _get(doc, steps[:-1], pointer)
    if isinstance(parent, list):
        parent[_index(parent, steps[-1], pointer)] = value
    else:
        parent[steps[-1]] = value
    return doc
