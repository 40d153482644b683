"""``--context``, ``--kubeconfig`` and ``-n``: on a command, or on any group before it. Adapter.

``isthmus --context a clustermesh status`` and ``isthmus clustermesh status --context a`` mean the
same; the option nearest to the command wins.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_KEY = "isthmus.cli.options."  # click shares ``Context.meta`` along a command line
NAMESPACE = "kube-system"
NAMESPACE_VARIABLE = "CILIUM_NAMESPACE"
_OPTIONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("-n", "--namespace"),
        NAMESPACE,
        f"Of the components.  [env var: {NAMESPACE_VARIABLE}; default: {NAMESPACE}]",
    ),
    (("--kubeconfig",), "", "Default: $KUBECONFIG or ~/.kube/config."),
    (("--context",), "", "Kubeconfig context."),
)


# Options of the well-known tool that have no meaning here, and what is said of them.
_ABSENT = {
    "--as": "name a --context of that user",
    "--as-group": "name a --context of that user",
}


def _refuse(ctx: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        name = option.opts[0]
        raise click.UsageError(f"{name} is not supported: {_ABSENT[name]}.", ctx)


def _keep(ctx: click.Context, option: click.Parameter, value: str | None) -> str:
    assert option.name is not None
    name = _KEY + option.name
    if value is not None:
        ctx.meta[name] = value
    default = next(d for names, d, _ in _OPTIONS if names[-1] == f"--{option.name}")
    if option.name == "namespace":
        default = os.environ.get(NAMESPACE_VARIABLE) or default
    return str(ctx.meta.get(name, default))


def group(function: F) -> F:
    """For a group: what is given here holds for its commands."""
    return _decorate(function, expose=False)


def command(function: F) -> F:
    """For a command: three arguments, ``context``, ``kubeconfig`` and ``namespace``."""
    return _decorate(function, expose=True)


def _decorate(function: F, expose: bool) -> F:
    for names, _, text in _OPTIONS:
        function = click.option(*names, help=text, callback=_keep, expose_value=expose)(function)
    for name in _ABSENT:
        function = click.option(
            name, hidden=True, multiple=True, callback=_refuse, expose_value=False
        )(function)
    # There is no Helm release to name; scripts that name one go on to work.
    return click.option("--helm-release-name", hidden=True, expose_value=False)(function)
