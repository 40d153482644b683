"""Who answers an echo request: the real socket, and the fake that unit tests use."""

import asyncio
from collections.abc import Iterator

import pytest

from agent.echo import Echo
from agent.probing import Asking
from datapath import namespaces
from model.address import parse_address
from reconcile.tasks import TaskGroup
from tests.support.fake_echo import FakeEcho
from tests.support.nodes import netns_path, new_namespace, sh

pytestmark = pytest.mark.root

HERE = [parse_address(f"127.0.0.{number}") for number in range(1, 41)]
SILENT, NOWHERE = parse_address("192.0.2.1"), parse_address("198.51.100.1")


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = new_namespace("echo")
    sh(f"ip -n {name} link set lo up")
    sh(f"ip -n {name} route add {SILENT}/32 dev lo")  # sent, and nobody is there
    yield name
    sh(f"ip netns del {name}")


@pytest.fixture(params=["real", "fake"])
def echo(request: pytest.FixtureRequest, namespace: str) -> Iterator[Asking]:
    if request.param == "fake":
        made: Asking = FakeEcho(HERE)
    else:
        made = namespaces.run_inside(netns_path(namespace), Echo)
    yield made
    made.close()


async def test_those_who_answer_are_told_with_their_time(echo: Asking) -> None:
    """More than are sent at once; one that is silent, and one without a way there."""
    found = await echo.ask([*HERE, SILENT, NOWHERE])
    assert found.keys() == set(HERE)
    assert all(0 < seconds < 60 for seconds in found.values())


async def test_it_is_asked_again_and_again(echo: Asking) -> None:
    """Answers of one question are not those of the next; nobody may be asked, too."""
    assert (await echo.ask(HERE[:2])).keys() == set(HERE[:2])
    assert await echo.ask([SILENT]) == {}
    assert await echo.ask([]) == {}
    assert (await echo.ask(HERE[1:3])).keys() == set(HERE[1:3])


async def test_it_does_not_wait_when_all_have_answered(namespace: str) -> None:
    """A question to those who answer takes less than one wait for those who do not."""
    echo = namespaces.run_inside(netns_path(namespace), Echo)
    async with asyncio.timeout(30):
        assert (await echo.ask(HERE[:3], gap_s=60)).keys() == set(HERE[:3])
    echo.close()


async def test_two_that_ask_do_not_hear_each_other(namespace: str) -> None:
    """Another process's answers, and other kinds of messages, are not ours."""
    one = namespaces.run_inside(netns_path(namespace), Echo)
    other = namespaces.run_inside(netns_path(namespace), Echo)
    async with TaskGroup() as tasks:
        first = tasks.create_task(one.ask(HERE[:20]))
        second = tasks.create_task(other.ask(HERE[20:]))
    assert (set(first.result()), set(second.result())) == (set(HERE[:20]), set(HERE[20:]))
    one.close()
    other.close()
