"""How large the kernel's maps are made. Pure."""

from agent.config import AgentConfig
from datapath import map_names

_LB = (map_names.SERVICES, map_names.BACKENDS, map_names.REVNAT)
_ADDRESSES_PER_PREFIX = 8  # a node has more pods than that


def sizes(config: AgentConfig) -> dict[str, int]:
    """Entries by map; maps that are not named have the size of the objects."""
    found = dict.fromkeys(_LB, config.bpf_lb_map_max) if config.bpf_lb_map_max else {}
    if config.bpf_ipcache_map_max:
        most = config.bpf_ipcache_map_max
        found[map_names.IPCACHE] = most
        found[map_names.IPCACHE_PREFIXES] = max(65_536, most // _ADDRESSES_PER_PREFIX)
    return found
