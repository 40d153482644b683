"""How much kernel memory the maps and programs take that this process has open. Adapter."""

import os
from pathlib import Path

_KINDS = {"anon_inode:bpf-map": "maps", "anon_inode:bpf-prog": "progs"}


def locked_bytes() -> dict[str, int]:
    """By kind (``maps``, ``progs``): the memory that is reserved for them, each object once."""
    found: dict[str, dict[str, int]] = {"maps": {}, "progs": {}}
    for name in os.listdir("/proc/self/fd"):
        try:
            kind = _KINDS.get(os.readlink(f"/proc/self/fd/{name}"))
            if kind is None:
                continue
            facts = Path(f"/proc/self/fdinfo/{name}").read_text()
        except OSError:  # closed meanwhile
            continue
        said = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)
        number = said.get("map_id") or said.get("prog_id") or name
        found[kind][number] = int(said.get("memlock", "0"))
    return {kind: sum(sizes.values()) for kind, sizes in found.items()}
