"""One set of loaded programs for all tests of a process, with clean maps for each."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.bpf import (
    NODE,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    ROUTER4,
    ROUTER6,
    A,
    B,
    Machine,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/bpf" in str(item.path):
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def loaded() -> Iterator[Machine]:
    machine = Machine().load()
    yield machine
    machine.close()


def furnish(machine: Machine) -> Machine:
    """Two pods here, one elsewhere, and the node itself."""
    machine.pod(A)
    machine.pod(B)
    for text in (ROUTER4, ROUTER6, NODE):
        machine.host(text)
    for text in (REMOTE, REMOTE6):
        machine.remote(text, REMOTE_IDENTITY)
    return machine


def machine_of_its_own(prepare: Callable[[Machine], object], **changes: int) -> Any:
    """A fixture of one module: programs with other settings, in a world that is kept."""

    @pytest.fixture(scope="module")
    def made() -> Iterator[Machine]:
        machine = furnish(Machine(changes=dict(changes)).load())
        prepare(machine)
        yield machine
        machine.close()

    return made


@pytest.fixture
def machine(loaded: Machine) -> Machine:
    loaded.clear()
    return furnish(loaded)
