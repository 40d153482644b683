"""The whole mesh over many seeds; that a seed is one story; and that mistakes would be found."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.remote_inputs import RemoteInputs
from kvstore.mirror import Mirror
from kvstore.publisher import Publisher
from kvstore.remote import Remote
from kvstore.session import Session
from reconcile.table import Table
from reconcile.tasks import TaskGroup
from tests.simulation.play import Failure, Story, play
from tests.support import virtual_time

ROOT = Path(__file__).parents[2]
CHUNKS = 8
MUTATED_SEEDS = 30


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per chunk of seeds, or the one seed that was asked for."""
    if "seeds" in metafunc.fixturenames:
        seed = metafunc.config.getoption("--simulation-seed")
        count = metafunc.config.getoption("--simulation-seeds")
        chunks = [range(n, count, CHUNKS) for n in range(CHUNKS)]
        chosen = [range(seed, seed + 1)] if seed is not None else chunks
        metafunc.parametrize("seeds", chosen, ids=[f"from {c.start}" for c in chosen])


def test_after_each_quiet_every_kernel_is_right(seeds: range) -> None:
    """Partitions, crashes, restored stores, members that come and go, rows that fail: afterwards
    every table is what the clusters say, and what they said all along was there all along."""
    for seed in seeds:
        play(seed)


def test_a_seed_is_one_story() -> None:
    """Also in other processes, whose sets have other orders: to the last row written."""
    script = "import logging; logging.disable(); from tests.simulation.play import play; "
    script += r"print('\n'.join(play(11)))"
    told = set()
    for order in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": order}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(told) == 1


def test_one_command_plays_a_seed_again() -> None:
    """The one that a failure names: event by event what was played before."""
    story = Story(11, lines=["0.00  something"])
    command = str(Failure(story, ["wrong"])).rpartition("event by event: ")[2].split()
    assert command[:2] == ["python", "-m"]
    argv = [sys.executable, *command[1:]]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *told, last = done.stdout.splitlines()
    assert told == play(11)
    assert last.startswith(f"seed 11: well, {len(told)} events")


def _deaf_to_deletions(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = RemoteInputs.on_changes

    def on_changes(self: Any, cluster: Any, resource: str, changes: Any) -> None:
        heard(self, cluster, resource, [c for c in changes if c[1] is not None])

    monkeypatch.setattr(RemoteInputs, "on_changes", on_changes)


def _nothing_vanishes_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Mirror.end_listing

    def end_listing(self: Mirror, revision: int) -> list[tuple[str, bytes | None]]:
        ended(self, revision)
        return []

    monkeypatch.setattr(Mirror, "end_listing", end_listing)


def _revisions_outlive_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mirror, "forget_revisions", lambda self: None)


def _silence_is_a_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    never = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(Session, "_silent", never, raising=False)


def _last_words_are_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteInputs, "restore", lambda self, *rows: None)


def _members_leave_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_removed(self: Any, cluster: Any) -> None:
        self._mesh.services.drop_cluster(cluster)

    monkeypatch.setattr(RemoteInputs, "on_removed", on_removed)


def _earlier_runs_leave_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def prune(self: Publisher) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Publisher, "_prune", prune)


def _leases_run_out_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drop_expired(self: Publisher, store: object) -> set[str]:
        await asyncio.sleep(0)
        return set()

    monkeypatch.setattr(Publisher, "_drop_expired", drop_expired)


def _stores_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    async def compare(self: Remote, store: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Remote, "_compare", compare)


def _strangers_are_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Table.__init__

    def init(self: Any, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **{**more, "full_read_s": 1e9})

    monkeypatch.setattr(Table, "__init__", init)


def _failure(seed: int) -> tuple[int, str] | None:
    try:
        play(seed)
    except Failure as failure:
        return seed, str(failure)
    return None


@pytest.mark.parametrize(
    "mistake",
    [
        _deaf_to_deletions,
        _nothing_vanishes_unseen,
        _revisions_outlive_connections,
        _silence_is_a_farewell,
        _last_words_are_thrown_away,
        _members_leave_their_addresses,
        _earlier_runs_leave_rows,
        _leases_run_out_unnoticed,
        _strangers_are_not_noticed,
        _stores_are_not_compared,
    ],
)
def test_a_mistake_is_found(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seed fails, and says how to play it again."""
    mistake(monkeypatch)
    seed, text = next(filter(None, map(_failure, range(MUTATED_SEEDS))), (-1, "nothing noticed"))
    assert text.startswith(f"seed {seed}: ")
    assert f"--simulation-seed {seed}" in text


def test_a_virtual_hour_is_short() -> None:
    """Timers are in order, and a wait that nobody will end is an error."""

    async def hour() -> list[str]:
        said: list[str] = []

        async def say(after_s: float, text: str) -> None:
            await asyncio.sleep(after_s)
            said.append(f"{asyncio.get_running_loop().time():.0f} {text}")

        async with TaskGroup() as tasks:
            tasks.create_task(say(3600, "b"))
            tasks.create_task(say(1800, "a"))
        return said

    assert virtual_time.run(hour()) == ["1800 a", "3600 b"]

    async def for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nobody will ever go on"):
        virtual_time.run(for_ever())
