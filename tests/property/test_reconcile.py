"""Any history of wishes and faults ends in the wanted table."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.backoff import LAST_S
from reconcile.loop import Loop
from reconcile.table import Table
from tests.support.datapath import FakeTable, Fault

KEYS = st.sampled_from("abcde")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
        st.tuples(st.just("fault"), st.sampled_from([f.value for f in Fault]), st.just(0)),
        st.tuples(st.just("stranger"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("round"), st.just(""), st.integers(0, 40)),
        st.tuples(st.just("prune"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS, st.dictionaries(KEYS, st.integers(0, 3)))
@settings(deadline=None)
def test_every_history_converges(steps: list[tuple[str, str, int]], first: dict[str, int]) -> None:
    """Faults, foreign writes and changes in any order: at the end the table is as wanted."""

    async def run() -> None:
        now = [0.0]
        wanted: dict[str, int] = {}
        target: FakeTable[str, int] = FakeTable(first)
        table: Table[str, int] = Table("t", target, wanted, clock=lambda: now[0], draw=lambda: 0.5)
        loop = Loop([table])
        for word, key, value in steps:
            match word:
                case "want":
                    wanted[key] = value
                    table.mark(key)
                case "drop":
                    wanted.pop(key, None)
                    table.mark(key)
                case "fault":
                    target.fault = Fault(key)
                case "stranger":
                    target.rows[key] = value
                case "prune":
                    table.allow_prune()
                case _:
                    now[0] += value
                    await loop.round()
        target.fault = Fault.NONE
        table.allow_prune()
        now[0] += LAST_S * 10 + 1000
        for _ in range(4):
            await loop.round()
            now[0] += LAST_S
        assert target.rows == wanted
        assert table.status.healthy

    asyncio.run(run())
