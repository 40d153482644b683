"""Routes by the hundred: what worked is not answered, and who failed is named all the same."""

from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from datapath import routes
from datapath.kernel_thread import KernelThread
from datapath.routes import Route, RouteTable
from model.address import Prefix, parse_prefix
from tests.support.datapath import kernel_thread

pytestmark = pytest.mark.root

COUNT = 3 * routes._BATCH - 1
PREFIXES = [parse_prefix(f"10.{6 + n // 256}.{n % 256}.0/24") for n in range(COUNT)]
# First, within and last, also alone, in the whole batches and in the rest.
STRANGE = [PREFIXES[n] for n in (0, 5, 127, 128, 200, 255, 256, COUNT - 1)]
ROUTE = Route("lo")


@pytest.fixture
def thread() -> Iterator[KernelThread]:
    with kernel_thread(own_network=True) as found:
        found.submit(_strangers).result(timeout=30)
        yield found


def _strangers() -> None:
    with IPRoute() as ipr:
        ipr.link("set", index=1, state="up")
        for prefix in STRANGE:
            ipr.route("add", dst=str(prefix), oif=1, proto=4)


def _of_strangers() -> set[Prefix]:
    with IPRoute() as ipr:
        return {
            parse_prefix(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
            for route in ipr.get_routes(table=254)
            if route["proto"] == 4
        }


async def test_who_fails_is_named(thread: KernelThread) -> None:
    """By its own error; all others are there, and strangers are as they were."""
    table = RouteTable(thread)
    rows = dict.fromkeys(PREFIXES, ROUTE)
    for _ in range(2):  # the second time all of them are there already
        errors = await table.upsert(list(rows.items()))
        assert errors.keys() == set(STRANGE)
        assert {type(error) for error in errors.values()} == {FileExistsError}
        assert (await table.read()).keys() == set(PREFIXES) - set(STRANGE)
    assert thread.submit(_of_strangers).result(timeout=30) == set(STRANGE)


async def test_what_is_not_there_is_deleted(thread: KernelThread) -> None:
    """Not ours or never written: no error; ours are gone."""
    table = RouteTable(thread)
    ours = [prefix for prefix in PREFIXES if prefix not in STRANGE]
    assert await table.upsert([(prefix, ROUTE) for prefix in ours[::2]]) == {}
    assert await table.delete(PREFIXES) == {}
    assert await table.read() == {}
    assert thread.submit(_of_strangers).result(timeout=30) == set(STRANGE)


async def test_a_batch_of_which_everything_fails(thread: KernelThread) -> None:
    """Its answers fit into the socket."""
    table = RouteTable(thread)
    nowhere = Route("lo", gateway=parse_prefix("192.0.2.1/32").network_address)
    errors = await table.upsert([(p, nowhere) for p in PREFIXES if p not in STRANGE])
    assert errors.keys() == set(PREFIXES) - set(STRANGE)
    assert await table.read() == {}
