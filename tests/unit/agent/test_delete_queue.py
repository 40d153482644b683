"""Deletions that waited: each carried out once, a bad one harms no other, none slips through."""

import asyncio
import fcntl
import os
from pathlib import Path

from agent.cni_types import CniError
from agent.delete_queue import drained
from reconcile.tasks import TaskGroup


async def test_worked_off_and_held_shut(tmp_path: Path) -> None:
    """What can be deleted is and its file goes; what fails stays for the next start; rubbish goes.
    Until the block ends no plugin gets the lock."""
    done: list[tuple[str, str]] = []

    async def delete(container: str, interface: str) -> None:
        if container == "stuck":
            raise CniError(999, "device is busy")
        done.append((container, interface))

    for name, text in (
        ("1", '{"container-id":"a","ifname":"eth0"}'),
        ("2", '{"container-id":"stuck"}'),
        ("3", "{"),
        ("4", '{"container-id":"b","ifname":"eth1"}'),
    ):
        (tmp_path / f"{name}.delete").write_text(text)
    async with drained(tmp_path, delete) as count:
        assert count == 4
        assert done == [("a", "eth0"), ("b", "eth1")]
        assert _queued(tmp_path) == ["2.delete"]
        assert not _lockable(tmp_path)
    assert _lockable(tmp_path)


def _queued(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.glob("*.delete"))


def _lockable(directory: Path) -> bool:
    handle = os.open(directory / "lockfile", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


async def test_a_plugin_that_writes_is_waited_for(tmp_path: Path) -> None:
    """A deletion that is being queued while we start is carried out by this start."""
    done: list[str] = []

    async def delete(container: str, interface: str) -> None:
        done.append(container)

    handle = os.open(tmp_path / "lockfile", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_SH)
    started = asyncio.Event()

    async def start() -> None:
        started.set()
        async with drained(tmp_path, delete):
            pass

    async with TaskGroup() as tasks:
        task = tasks.create_task(start())
        await started.wait()
        (tmp_path / "1.delete").write_text('{"container-id":"late"}')
        assert not task.done()
        os.close(handle)
    assert done == ["late"]
