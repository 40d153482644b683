"""Settings of ``isthmus hubble`` that need not be given each time: file and ``config``. Adapter.

A flag counts most, then ``HUBBLE_…`` of the environment, then the file, then the default. The file
is the well-known command's: ``hubble/config.yaml`` in the user's folder of settings, or
``~/.hubble/config.yaml``. One in the working directory is not read: it may be a stranger's.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_META: Final = "isthmus.hubble.config"
_DEBUG: Final = "isthmus.hubble.debug"
DEFAULTS: Final[Mapping[str, Any]] = {  # as the well-known command has them; keys of the file
    "allowlist": [],
    "basic-auth-password": "",
    "basic-auth-username": "",
    "debug": False,
    "denylist": [],
    "kube-context": "",
    "kube-namespace": "kube-system",
    "kubeconfig": "",
    "port-forward": False,
    "port-forward-port": 0,
    "request-timeout": "12s",
    "server": "",
    "timeout": "5s",
    "tls": False,
    "tls-allow-insecure": False,
    "tls-ca-cert-files": [],
    "tls-client-cert-file": "",
    "tls-client-key-file": "",
    "tls-server-name": "",
}


def default_path() -> Path:
    """The first file that is there; else where a new one goes."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    usual, elder = folder / "hubble/config.yaml", Path.home() / ".hubble/config.yaml"
    return elder if elder.is_file() and not usual.is_file() else usual


def variable(key: str) -> str:
    """Of the environment."""
    return "HUBBLE_" + key.upper().replace("-", "_")


def typed(key: str, value: Any) -> Any:
    """A value of the kind that the setting has; ``click.UsageError``."""
    default = DEFAULTS.get(key)
    if default is None:
        known = ", ".join(DEFAULTS)
        raise click.UsageError(f"no setting {key}: there are {known}")
    if isinstance(default, list):
        if isinstance(value, str):
            return [value] if key.endswith("list") else [v for v in value.split(",") if v]
        good = isinstance(value, list) and all(isinstance(one, str) for one in value)
    elif isinstance(default, bool):
        words = {"true": True, "1": True, "false": False, "0": False}
        value = words.get(str(value).lower(), value)
        good = isinstance(value, bool)
    elif isinstance(default, int):
        value = int(value) if str(value).isascii() and str(value).isdigit() else value
        good = isinstance(value, int)
    else:
        good = isinstance(value, str)
    if not good:
        raise click.UsageError(f"setting {key}: {value!r} is not like {default!r}")
    return value


def read(path: Path) -> dict[str, Any]:
    """The settings of a file, those that we know; none: there is no file. ``click.UsageError``."""
    if not path.exists():
        return {}
    import yaml  # most commands find no file, and do not wait for this

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise click.UsageError(f"{path}: cannot be read: {reason}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise click.UsageError(f"{path}: not a list of settings")
    try:
        return {key: typed(key, value) for key, value in found.items() if key in DEFAULTS}
    except click.UsageError as error:
        raise click.UsageError(f"{path}: {error.message}") from None


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(settings), default_flow_style=False)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)  # it may hold a password


def path_of(ctx: click.Context) -> Path:
    """The file in use."""
    return Path(ctx.meta.get(_META) or os.environ.get("HUBBLE_CONFIG") or default_path())


def _choose(ctx: click.Context, _option: click.Parameter, value: Path | None) -> None:
    if value is not None:
        if not value.is_file() and ctx.info_name != "set":
            raise click.UsageError(f"--config: there is no file {value}")
        ctx.meta[_META] = value
    found: dict[str, Any] = read(path_of(ctx))
    for key in ("tls-ca-cert-files",):
        if key in found:
            found[key] = ",".join(found[key])
    if wants_debug(ctx):
        found["debug"] = True
    ctx.default_map = {key.replace("-", "_"): value for key, value in found.items()}


def option(function: F) -> F:
    """``--config``; what the file says becomes the defaults of the command."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_choose,
        help=f"Settings.  [env var: HUBBLE_CONFIG; default: {default_path()}]",
    )(function)


def _keep(ctx: click.Context, _option: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.meta[_META] = value


def wants_debug(ctx: click.Context) -> bool:
    """Was ``-D`` given, before or after the command?"""
    return bool(ctx.meta.get(_DEBUG))


def _debug(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def debug_option(function: F) -> F:
    """``-D``: say on stderr who is asked."""
    return click.option(
        "-D",
        "--debug",
        is_flag=True,
        envvar=variable("debug"),
        expose_value=False,
        callback=_debug,
        help="Also say who is asked.",
    )(function)


def group_option(function: F) -> F:
    """``--config`` and ``-D`` before the command; the command reads them."""
    return debug_option(_group_config(function))


def _group_config(function: F) -> F:
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_keep,
        help="Settings, as after any command.",
    )(function)


@click.group()
def config() -> None:
    """Settings that need not be given each time."""


def _effective(path: Path) -> dict[str, Any]:
    named = {key: os.environ[variable(key)] for key in DEFAULTS if variable(key) in os.environ}
    given = {key: typed(key, value) for key, value in named.items()}
    return {**DEFAULTS, **read(path), **given}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "\n".join(value) if isinstance(value, list) else str(value)


@config.command()
@option
@click.pass_context
def view(ctx: click.Context) -> None:
    """All settings as they count now, as the file has them."""
    import yaml

    shown = {**_effective(path_of(ctx)), "config": str(path_of(ctx))}
    if shown["basic-auth-password"]:
        shown["basic-auth-password"] = "(hidden)"
    click.echo(yaml.safe_dump(shown, default_flow_style=False), nl=False)


@config.command("get")
@click.argument("key", required=False)
@option
@click.pass_context
def get(ctx: click.Context, key: str | None) -> None:
    """One setting, or all, as they count now."""
    settings = _effective(path_of(ctx))
    if key is not None:
        typed(key, DEFAULTS.get(key))
        click.echo(_text(settings[key]))
        return
    for name, value in settings.items():
        click.echo(f"{name}: {'(hidden)' if 'password' in name and value else _text(value)}")


@config.command("set")
@click.argument("key")
@click.argument("value", required=False)
@option
@click.pass_context
def set_(ctx: click.Context, key: str, value: str | None) -> None:
    """Keep a setting in the file; without VALUE the default."""
    path = path_of(ctx)
    kept = read(path)
    kept[key] = typed(key, DEFAULTS.get(key) if value is None else value)
    _write(path, kept)


@config.command()
@click.argument("key", required=False)
@option
@click.pass_context
def reset(ctx: click.Context, key: str | None) -> None:
    """Have one setting, or all, as they were before they were set."""
    path = path_of(ctx)
    kept = read(path)
    if key is not None:
        typed(key, DEFAULTS.get(key))
        kept.pop(key, None)
    _write(path, {} if key is None else kept)


@click.command()
def version() -> None:
    """Version of this command."""
    import platform
    from importlib import metadata

    system, machine = platform.system().lower(), platform.machine()
    ours = metadata.version("isthmus")
    click.echo(
        f"hubble {ours}@isthmus with python{platform.python_version()} on {system}/{machine}"
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """A script with which SHELL completes `isthmus`: to be sourced."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root().command
    click.echo(found(root, {}, "isthmus", "_ISTHMUS_COMPLETE").source())
