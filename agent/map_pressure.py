"""How large the kernel's maps are made, and the warning before one is full. Pure.

A full map refuses rows, and each is told; but that is late. So rows that *should* be in a map
count, written or not, and the warning comes at nine tenths.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.config import AgentConfig
from agent.targets import Tables
from datapath import map_names
from datapath.runtime import Datapath

_LB = (map_names.SERVICES, map_names.BACKENDS, map_names.REVNAT)
_IPCACHE = (map_names.IPCACHE, map_names.IPCACHE_PREFIXES)
_REMEDIES = {
    **dict.fromkeys(_IPCACHE, "bpf-ipcache-map-max"),
    **dict.fromkeys(_LB, "bpf-lb-map-max"),
}
WARN_SHARE = 0.9
_ADDRESSES_PER_PREFIX = 8  # a node has more pods than that


def sizes(config: AgentConfig) -> dict[str, int]:
    """Entries by map; maps that are not named have the size of the objects."""
    found = dict.fromkeys(_LB, config.bpf_lb_map_max) if config.bpf_lb_map_max else {}
    if config.bpf_ipcache_map_max:
        most = config.bpf_ipcache_map_max
        found[map_names.IPCACHE] = most
        found[map_names.IPCACHE_PREFIXES] = max(65_536, most // _ADDRESSES_PER_PREFIX)
    return found


@dataclass(frozen=True, slots=True)
class Pressure:
    """One map: how many rows are wanted in it, and how many it takes."""

    name: str
    wanted: int
    room: int

    @property
    def share(self) -> float:
        """1 and more: rows find no room."""
        return self.wanted / self.room

    def sentence(self) -> str:
        """For people."""
        remedy = _REMEDIES.get(self.name)
        return (
            f"map {self.name}: {self.wanted} of {self.room} entries are wanted "
            f"({100 * self.share:.0f} %)" + (f": raise {remedy}" if remedy else "")
        )


def pressures(tables: Tables, datapath: Datapath) -> list[Pressure]:
    """Every map that other clusters fill."""
    addresses = tables.ipcache.status
    # Every prefix behind the tunnel has its route; hosts have none.
    prefixes = tables.routes.status.rows
    hosts = max(0, addresses.rows + len(addresses.failing) - prefixes)
    room = datapath.ipcache.room
    found = [
        Pressure(map_names.IPCACHE, hosts, room[0]),
        Pressure(map_names.IPCACHE_PREFIXES, prefixes, room[1]),
    ]
    fill = datapath.services.fill()
    return found + [Pressure(name, *fill[name]) for name in _LB if name in fill]


def warnings(found: Iterable[Pressure]) -> Iterator[str]:
    """A sentence for each map that is nearly full, or full."""
    return (p.sentence() for p in found if p.share >= WARN_SHARE)
