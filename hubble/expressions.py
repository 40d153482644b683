"""CEL expressions over flows (``experimental.cel_expression``). Pure.

The language is Google's own implementation (ADR 0176), given one variable ``_flow`` of type
``flow.Flow`` in the container ``flow``. What one expression may cost is bounded: its length
here, the steps of its loops by the library (10,000 for one flow).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from cel_expr_python import cel
from google.protobuf import descriptor_pool

from hubble.patterns import FilterError
from wire.hubble import flow_pb2

LENGTH_MAX: Final = 2048  # characters


@cache
def _environment() -> cel.Env:
    return cel.NewEnv(
        descriptor_pool.Default(), variables={"_flow": cel.Type("flow.Flow")}, container="flow"
    )


def _compiled(expression: str) -> cel.Expression:
    if len(expression) > LENGTH_MAX:
        raise FilterError(f"cel_expression: over {LENGTH_MAX} characters")
    try:
        compiled = _environment().compile(expression)
    except RuntimeError as error:
        reason = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        raise FilterError(f"cel_expression {expression!r}: {reason}") from None
    if compiled.return_type() != cel.Type.BOOL:
        kind = compiled.return_type().name()
        raise FilterError(f"cel_expression {expression!r}: must be true or false, is {kind}")
    return compiled


def expressions(values: Sequence[str]) -> Callable[[flow_pb2.Flow], bool]:
    """Is one of them true of the flow? One that fails on it (in vain, or too long) ends it: no."""
    compiled = [_compiled(value) for value in values]

    def holds(flow: flow_pb2.Flow) -> bool:
        for expression in compiled:
            try:
                result = expression.eval(data={"_flow": flow})
            except RuntimeError:  # more steps than the library allows
                return False
            if result.type() == cel.Type.ERROR:
                return False
            if result.value() is True:
                return True
        return False

    return holds
