"""What the commands of ``isthmus bpf`` share. Adapter."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from model.kernel_numbers import PIN_DIRECTORY

pins = click.option(
    "--pin-dir",
    type=click.Path(path_type=Path),
    default=Path("/sys/fs/bpf") / PIN_DIRECTORY,
    show_default=True,
    help="Where the maps are pinned.",
)


@contextmanager
def readable() -> Iterator[None]:
    """One line instead of an errno."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        if error.errno in (errno.EPERM, errno.EACCES):
            what += ": run as root"
        raise click.ClickException(what) from error
