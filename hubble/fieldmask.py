"""Field masks: the paths of a flow that a reader wants. Pure.

A path names fields of ``flow.Flow`` as in the .proto, nested with dots; a parent swallows its
children. What is not named is taken out.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias, Union

from google.protobuf.message import Message

from wire.hubble import flow_pb2

Tree: TypeAlias = dict[str, Union["Tree", None]]  # None: the field with all that is in it
PATHS_MAX: Final = 1000


class FieldMaskError(ValueError):
    """A path that names no field; the message says which."""


def _add(tree: Tree, descriptor: Any, path: str) -> None:
    node, steps = tree, path.split(".")
    for place, step in enumerate(steps):
        field = descriptor.fields_by_name.get(step)
        if field is None:
            raise FieldMaskError(f"invalid fieldmask: {path!r}: no field {step!r} there")
        if place == len(steps) - 1:
            node[step] = None
            return
        if field.message_type is None or field.is_repeated:
            raise FieldMaskError(f"invalid fieldmask: {path!r}: {step!r} has no fields to name")
        descriptor = field.message_type
        below = node.setdefault(step, {})
        # Below a parent that is wanted whole the rest of the path need only be right.
        node = {} if below is None else below


def parse(paths: Iterable[str]) -> Tree | None:
    """The mask as a tree; ``None`` for no mask (everything). ``FieldMaskError``."""
    wanted = list(paths)
    if not wanted:
        return None
    if len(wanted) > PATHS_MAX:
        raise FieldMaskError(f"invalid fieldmask: over {PATHS_MAX} paths")
    tree: Tree = {}
    for path in wanted:
        _add(tree, flow_pb2.Flow.DESCRIPTOR, path)
    return tree


def keep(message: Message, tree: Tree) -> None:
    """Clear what the mask does not name, in place."""
    for field, value in message.ListFields():
        if field.name not in tree:
            message.ClearField(field.name)
            continue
        below = tree[field.name]
        if below is not None:
            keep(value, below)
