"""Object files into the kernel, through libbpf 1.x by ctypes. Adapter; docs/adr/0020.

What comes in: a compiled object, constants, sizes, maps to share. What goes out: descriptors of
programs and maps. Errors are ``OSError`` with the object, and what libbpf and the verifier said.
"""

import ctypes
import errno
import os
import struct
from collections import deque
from collections.abc import Mapping
from pathlib import Path

LIBRARY = "libbpf.so.1"
_KIND_DATASEC = 15  # BTF_KIND_DATASEC
_MESSAGE_BYTES = 1 << 22
_LOG_LINES = 80  # the end of a verifier log tells what was wrong

_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# name: (result, arguments)
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "libbpf_set_print": (ctypes.c_void_p, [_Print]),
    "bpf_object__open_file": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_void_p]),
    "bpf_object__load": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_object__close": (None, [ctypes.c_void_p]),
    "bpf_object__btf": (ctypes.c_void_p, [ctypes.c_void_p]),
    "bpf_object__next_map": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_object__next_program": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_map__name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "bpf_map__fd": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_map__type": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__key_size": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__value_size": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__max_entries": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__map_flags": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__is_internal": (ctypes.c_bool, [ctypes.c_void_p]),
    "bpf_map__set_max_entries": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32]),
    "bpf_map__set_pin_path": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
    "bpf_map__reuse_fd": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "bpf_map__initial_value": (
        ctypes.c_void_p,
        [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)],
    ),
    "bpf_program__name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "bpf_program__fd": (ctypes.c_int, [ctypes.c_void_p]),
    "btf__find_by_name_kind": (ctypes.c_int32, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]),
    "btf__type_by_id": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_uint32]),
    "btf__name_by_offset": (ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_uint32]),
}

_libc = ctypes.CDLL(None)
_libc.vsnprintf.restype = ctypes.c_int
_libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]


class _Library:
    """The loaded library, and the last lines it printed."""

    def __init__(self) -> None:
        try:
            self.c = ctypes.CDLL(LIBRARY, use_errno=True)
        except OSError as error:
            raise OSError(
                errno.ENOENT, f"{LIBRARY} cannot be loaded ({error}): install libbpf1"
            ) from error
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._print = _Print(self._collect)  # kept: the library holds only a pointer
        self.c.libbpf_set_print(self._print)

    def _collect(self, level: int, template: bytes, arguments: int) -> int:
        if level <= 1:  # warnings and information; debug lines are not wanted
            # A verifier log is one message of up to megabytes, and its end is what matters.
            text = ctypes.create_string_buffer(_MESSAGE_BYTES)
            _libc.vsnprintf(text, len(text), template, arguments)
            self.lines.extend(text.value.decode(errors="replace").splitlines())
        return 0

    def failure(self, what: str, code: int) -> OSError:
        said = "\n  ".join(line for line in self.lines if line.strip())
        self.lines.clear()
        return OSError(code, f"{what}: {os.strerror(code)}" + (f"\n  {said}" if said else ""))


_library: _Library | None = None


def library() -> _Library:
    """The library, loaded on first use. ``OSError`` when it is not installed."""
    global _library
    if _library is None:
        _library = _Library()
    return _library


class ObjectMap:
    """One map of an object, before or after loading."""

    def __init__(self, handle: int) -> None:
        self._c = library().c
        self._handle = handle
        self.name: str = self._c.bpf_map__name(handle).decode()

    @property
    def internal(self) -> bool:
        """Constants and globals, which belong to one load of one object."""
        return bool(self._c.bpf_map__is_internal(self._handle))

    @property
    def fd(self) -> int:
        """The descriptor, owned by the object; negative before loading."""
        return int(self._c.bpf_map__fd(self._handle))

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Type, key size, value size, maximum of entries, flags: what must agree to share it."""
        c, h = self._c, self._handle
        return (
            c.bpf_map__type(h),
            c.bpf_map__key_size(h),
            c.bpf_map__value_size(h),
            c.bpf_map__max_entries(h),
            c.bpf_map__map_flags(h),
        )

    def set_max_entries(self, count: int) -> None:
        """Before loading."""
        _check(self._c.bpf_map__set_max_entries(self._handle, count), f"size of map {self.name}")

    def forget_pin_path(self) -> None:
        """Pins are ours to make: the library's would not survive a change of shape."""
        _check(self._c.bpf_map__set_pin_path(self._handle, None), f"pin path of map {self.name}")

    def reuse(self, fd: int) -> None:
        """Take an existing map; the descriptor is duplicated."""
        _check(self._c.bpf_map__reuse_fd(self._handle, fd), f"re-use of map {self.name}")

    def initial_value(self) -> int:
        """Where the bytes of a section of globals lie, to be written before loading; 0: none."""
        size = ctypes.c_size_t()
        return self._c.bpf_map__initial_value(self._handle, ctypes.byref(size)) or 0


def _check(result: int, what: str) -> None:
    if result < 0:
        raise library().failure(what, -result)


class BpfObject:
    """An object file: open, adjust, load, use, close. Closing leaves pinned things alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = library()
        self._c = self._library.c
        self._library.lines.clear()
        self._handle: int | None = self._c.bpf_object__open_file(str(path).encode(), None)
        if not self._handle:
            code = ctypes.get_errno() or errno.ENOENT
            raise self._library.failure(f"open of BPF object {path}", code)
        self.maps = {m.name: m for m in self._all_maps()}

    def __enter__(self) -> "BpfObject":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all_maps(self) -> list[ObjectMap]:
        found: list[ObjectMap] = []
        handle = self._c.bpf_object__next_map(self._handle, None)
        while handle:
            found.append(ObjectMap(handle))
            handle = self._c.bpf_object__next_map(self._handle, handle)
        return found

    def _constants(self) -> dict[str, tuple[int, int]]:
        """Offset and size by name, from the BTF of the section of constants."""
        btf = self._c.bpf_object__btf(self._handle)
        section = self._c.btf__find_by_name_kind(btf, b".rodata", _KIND_DATASEC) if btf else -1
        if section < 0:
            return {}
        at = self._c.btf__type_by_id(btf, section)
        count = struct.unpack("=I", ctypes.string_at(at + 4, 4))[0] & 0xFFFF
        rows = struct.iter_unpack("=III", ctypes.string_at(at + 12, 12 * count))
        found: dict[str, tuple[int, int]] = {}
        for variable, offset, size in rows:
            kind = self._c.btf__type_by_id(btf, variable)
            (name,) = struct.unpack("=I", ctypes.string_at(kind, 4))
            found[self._c.btf__name_by_offset(btf, name).decode()] = (offset, size)
        return found

    def set_constants(self, values: Mapping[str, int | bytes]) -> None:
        """Set `const volatile` globals before loading. ``KeyError`` names what is not there."""
        known = self._constants()
        section = next((m for n, m in self.maps.items() if n.endswith(".rodata")), None)
        memory = section.initial_value() if section else 0
        for name, value in values.items():
            if name not in known or not memory:
                raise KeyError(f"{self.path.name} has no constant {name}; it has {sorted(known)}")
            offset, size = known[name]
            data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
            if len(data) != size:
                raise ValueError(f"constant {name} of {self.path.name} takes {size} bytes")
            ctypes.memmove(memory + offset, data, size)

    def constants(self) -> frozenset[str]:
        """Names that ``set_constants`` takes."""
        return frozenset(self._constants())

    def load(self) -> None:
        """Create the maps that are not re-used, and load every program."""
        self._library.lines.clear()
        result = self._c.bpf_object__load(self._handle)
        if result < 0:
            raise self._library.failure(f"load of BPF object {self.path}", -result)

    def programs(self) -> dict[str, int]:
        """Descriptors of the loaded programs by name; owned by the object."""
        found: dict[str, int] = {}
        handle = self._c.bpf_object__next_program(self._handle, None)
        while handle:
            name = self._c.bpf_program__name(handle).decode()
            found[name] = int(self._c.bpf_program__fd(handle))
            handle = self._c.bpf_object__next_program(self._handle, handle)
        return found

    def program(self, name: str) -> int:
        """The descriptor of one program."""
        return self.programs()[name]

    def close(self) -> None:
        """Release descriptors and memory; what is pinned or attached stays."""
        if self._handle:
            self._c.bpf_object__close(self._handle)
            self._handle = None
            self.maps = {}
