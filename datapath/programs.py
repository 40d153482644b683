"""The compiled programs into the kernel, on maps that outlive them. Adapter; blocking.

A pinned map of the same shape is taken over with all it holds. One of another shape is left to the
programs that still run, and gives up its name only when the new ones are attached (``commit``).
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from datapath import pins, syscall
from datapath.attach import Attachment
from datapath.kernel_table import KernelTable
from datapath.libbpf import BpfObject, ObjectMap
from datapath.syscall import AttachType
from model.kernel_numbers import DEVICE_HOST, DEVICE_VXLAN

PROGRAM_CONTAINER = "from_container"
PROGRAM_HOST = "from_host"
PROGRAM_OVERLAY = "from_overlay"
PROGRAM_NETWORK = "to_netdev"
PROGRAM_FROM_NETWORK = "from_network"
PROGRAM_FROM_WIREGUARD = "from_wireguard"
# One object each, of the same name.
PROGRAMS = (
    PROGRAM_CONTAINER,
    PROGRAM_HOST,
    PROGRAM_OVERLAY,
    PROGRAM_NETWORK,
    PROGRAM_FROM_NETWORK,
    PROGRAM_FROM_WIREGUARD,
)

HOST_ATTACHMENT = Attachment(PROGRAM_HOST, AttachType.TCX_EGRESS, DEVICE_HOST)
TUNNEL_ATTACHMENT = Attachment(PROGRAM_OVERLAY, AttachType.TCX_INGRESS, DEVICE_VXLAN)


@dataclass
class Programs:
    """Loaded programs with their maps. Owns the descriptors."""

    fds: dict[str, int]
    tables: dict[str, KernelTable]
    messages: tuple[str, ...]  # for the operator: maps whose contents could not be kept
    _objects: list[BpfObject] = field(default_factory=list, repr=False)
    _unpinned: dict[str, Path] = field(default_factory=dict, repr=False)

    def commit(self) -> None:
        """Give new maps their names. Only after the programs that use them are attached."""
        for name, path in self._unpinned.items():
            pins.replace_pin(self.tables[name].fd, path)
        self._unpinned = {}

    def close(self) -> None:
        """Release descriptors; what is pinned or attached stays."""
        for table in self.tables.values():
            table.close()
        for opened in self._objects:
            opened.close()
        self._objects = []


def load_programs(
    object_dir: Path,
    pin_dir: Path,
    constants: Mapping[str, int | bytes],
    sizes: Mapping[str, int],
) -> Programs:
    """Load every program. ``sizes`` overrides the number of entries by map name."""
    loaded = Programs({}, {}, ())
    messages: list[str] = []
    with ExitStack() as undo:
        undo.callback(loaded.close)
        for name in PROGRAMS:
            opened = BpfObject(object_dir / f"{name}.bpf.o")
            loaded._objects.append(opened)
            _set_constants(opened, constants)
            for entry in opened.maps.values():
                if not entry.internal:
                    _share(entry, loaded, pin_dir, sizes, messages)
            opened.load()
            for entry in opened.maps.values():
                if not entry.internal and entry.name not in loaded.tables:
                    loaded.tables[entry.name] = KernelTable(os.dup(entry.fd), entry.name)
                    loaded._unpinned[entry.name] = pins.map_pin(pin_dir, entry.name)
            loaded.fds.update(opened.programs())
        undo.pop_all()
    loaded.messages = tuple(messages)
    return loaded


def _set_constants(opened: BpfObject, constants: Mapping[str, int | bytes]) -> None:
    """Every constant of an object must get a value: a forgotten one would be zero unnoticed."""
    known = {name for name in opened.constants() if name.startswith("config_")}
    missing = known - set(constants)
    if missing:
        raise KeyError(f"{opened.path.name} has constants without a value: {sorted(missing)}")
    opened.set_constants({name: constants[name] for name in known})


def _share(
    entry: ObjectMap,
    loaded: Programs,
    pin_dir: Path,
    sizes: Mapping[str, int],
    messages: list[str],
) -> None:
    entry.forget_pin_path()
    if entry.name in sizes:
        entry.set_max_entries(sizes[entry.name])
    if entry.name in loaded.tables:
        entry.reuse(loaded.tables[entry.name].fd)
        return
    path = pins.map_pin(pin_dir, entry.name)
    pinned = pins.open_pinned(path)
    if pinned is None:
        return
    info = syscall.map_info(pinned)
    shape = (info.type, info.key_size, info.value_size, info.max_entries, info.flags)
    if shape == entry.shape:
        entry.reuse(pinned)
        loaded.tables[entry.name] = KernelTable(pinned, entry.name)
        return
    os.close(pinned)
    messages.append(
        f"map {entry.name} changed its shape from {shape} to {entry.shape} "
        "(type, key bytes, value bytes, entries, flags): it starts empty and is filled again"
    )
