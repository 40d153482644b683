"""Sizes of maps as settings say, and the sentence before one is full."""

import pytest

from agent.config import load
from agent.map_pressure import Pressure, sizes, warnings
from datapath import map_names


def test_sizes_follow_the_settings() -> None:
    """Left alone, a map has the size of its object; prefixes grow with addresses."""
    assert sizes(load([], {})) == {}
    found = sizes(load(["--bpf-ipcache-map-max=2000000"], {}))
    assert found == {map_names.IPCACHE: 2_000_000, map_names.IPCACHE_PREFIXES: 250_000}
    small = sizes(load(["--bpf-ipcache-map-max=1000", "--bpf-lb-map-max=9"], {}))
    assert small[map_names.IPCACHE_PREFIXES] == 65_536
    assert small[map_names.BACKENDS] == 9


@pytest.mark.parametrize(("wanted", "said"), [(899, 0), (900, 1), (1000, 1), (1500, 1)])
def test_a_warning_comes_before_a_map_is_full(wanted: int, said: int) -> None:
    """From nine tenths on, with numbers and the setting that helps."""
    found = list(warnings([Pressure(map_names.BACKENDS, wanted, 1000)]))
    assert len(found) == said
    if found:
        assert f"{wanted} of 1000 entries" in found[0]
        assert found[0].endswith("raise bpf-lb-map-max")
