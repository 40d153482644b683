"""bpf(2) without a library: what libbpf 1.1 lacks, and batch access to maps. Adapter.

Every function takes file descriptors and bytes and raises ``OSError`` with the name of the command
and the object. Structures are those of ``union bpf_attr`` in ``include/uapi/linux/bpf.h``.
docs/adr/0020.
"""

import ctypes
import errno
import os
import platform
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

from telemetry.metrics import Histogram

# How long the calls of this process took, seconds.
TIMES = Histogram(("operation", "outcome"), (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0))
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_ATTR_BYTES = 144  # larger than any attribute used here; the kernel wants the tail to be zero
_NAME_LIMIT = 15  # BPF_OBJ_NAME_LEN without the terminator
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]


class Command(IntEnum):
    """``enum bpf_cmd``."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class MapType(IntEnum):
    """``enum bpf_map_type``, those in use."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    RINGBUF = 27


PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})


class AttachType(IntEnum):
    """``enum bpf_attach_type``, those in use."""

    TCX_INGRESS = 46
    TCX_EGRESS = 47


PROG_TYPE_SCHED_CLS = 3
NO_PREALLOC = 1  # BPF_F_NO_PREALLOC
NOEXIST = 1  # BPF_NOEXIST
EXIST = 2  # BPF_EXIST
LINK_TYPE_TCX = 11


def _number() -> int:
    machine = platform.machine()
    try:
        return _NUMBERS[machine]
    except KeyError:
        raise OSError(errno.ENOSYS, f"no bpf(2) number known for machine {machine}") from None


_SYSCALL = _number()


def _operation(command: Command) -> str:
    """As metrics name it: ``MAP_UPDATE_BATCH`` is ``updateBatch``, ``OBJ_GET`` is ``objGet``."""
    words = command.name.removeprefix("MAP_").removesuffix("_ELEM").split("_")
    return words[0].lower() + "".join(word.capitalize() for word in words[1:])


_OPERATIONS = {command: _operation(command) for command in Command}


def bpf(command: Command, attr: bytes, what: str) -> tuple[int, bytes]:
    """Make the call. Returns the result and the attribute as the kernel left it."""
    buffer = ctypes.create_string_buffer(attr.ljust(_ATTR_BYTES, b"\0"), _ATTR_BYTES)
    begun_s = time.monotonic()
    result = _libc.syscall(_SYSCALL, command, buffer, _ATTR_BYTES)
    code = ctypes.get_errno() if result < 0 else 0
    outcome = "fail" if result < 0 else "success"
    TIMES.observe(time.monotonic() - begun_s, _OPERATIONS[command], outcome)
    if result < 0:
        raise OSError(code, f"bpf({command.name}) {what}: {os.strerror(code)}")
    return result, buffer.raw


def _address(data: "ctypes.Array[ctypes.c_char] | None") -> int:
    return ctypes.addressof(data) if data is not None else 0


def _buffer(data: bytes, size: int | None = None) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(data, len(data) if size is None else size)


def _name(text: str) -> bytes:
    return text.encode()[:_NAME_LIMIT]


# Objects: pins and facts


def pin(fd: int, path: str) -> None:
    """Give a map, program or link a name in a bpffs. ``FileExistsError`` when it is taken."""
    name = _buffer(path.encode() + b"\0")
    bpf(Command.OBJ_PIN, struct.pack("=QII", _address(name), fd, 0), path)


def get_pinned(path: str) -> int:
    """A new descriptor of what is pinned there. ``FileNotFoundError`` when nothing is."""
    name = _buffer(path.encode() + b"\0")
    return bpf(Command.OBJ_GET, struct.pack("=QII", _address(name), 0, 0), path)[0]


def _info(fd: int, size: int, what: str) -> bytes:
    info = _buffer(b"", size)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, _address(info)), what)
    return info.raw


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: int) -> MapInfo:
    """Facts of an open map."""
    raw = _info(fd, 80, f"map fd {fd}")
    kind, number, key, value, entries, flags = struct.unpack_from("=6I", raw)
    name = raw[24:40].rstrip(b"\0").decode(errors="replace")
    return MapInfo(kind, number, key, value, entries, flags, name)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says of a program."""

    type: int
    id: int
    tag: str
    name: str


def program_info(fd: int) -> ProgramInfo:
    """Facts of an open program."""
    raw = _info(fd, 224, f"program fd {fd}")
    kind, number, tag = struct.unpack_from("=II8s", raw)
    name = raw[64:80].rstrip(b"\0").decode(errors="replace")
    return ProgramInfo(kind, number, tag.hex(), name)


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says of a tcx link. ``ifindex`` is 0 when its device is gone."""

    id: int
    program_id: int
    ifindex: int
    attach_type: int


def link_info(fd: int) -> LinkInfo:
    """Facts of an open tcx link."""
    raw = _info(fd, 32, f"link fd {fd}")
    _, number, program, ifindex, attach = struct.unpack_from("=III4xII", raw)
    return LinkInfo(number, program, ifindex, attach)


# Links


def link_create(program: int, ifindex: int, attach: AttachType) -> int:
    """Attach at a device's tcx hook, behind what is there. Lives as long as fd or pin."""
    attr = struct.pack("=IIII", program, ifindex, attach, 0)
    return bpf(Command.LINK_CREATE, attr, f"{attach.name} on ifindex {ifindex}")[0]


def link_update(link: int, program: int) -> None:
    """Replace the program without a gap. ``ENOLINK`` when the device is gone."""
    bpf(Command.LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0), f"link fd {link}")


def link_detach(link: int) -> None:
    """Detach at once, whoever else still holds the link."""
    bpf(Command.LINK_DETACH, struct.pack("=I", link), f"link fd {link}")


def query_programs(ifindex: int, attach: AttachType) -> list[int]:
    """Ids of the programs at a tcx hook of a device, in the order they run."""
    ids = (ctypes.c_uint32 * 64)()
    attr = struct.pack("=IIIIQI4x", ifindex, attach, 0, 0, ctypes.addressof(ids), 64)
    _, out = bpf(Command.PROG_QUERY, attr, f"{attach.name} on ifindex {ifindex}")
    (count,) = struct.unpack_from("=I", out, 24)
    return list(ids[:count])


def map_by_id(number: int) -> int:
    """A new descriptor of a map. ``FileNotFoundError`` when it is gone."""
    return bpf(Command.MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, 0), f"map id {number}")[0]


# Programs


@dataclass(frozen=True, slots=True)
class TestRun:
    """Outcome of ``BPF_PROG_TEST_RUN``."""

    __test__ = False  # not a test class, whatever its name

    verdict: int
    data: bytes
    context: bytes
    duration_ns: int  # mean of the repeats


def prog_test_run(
    program: int, data: bytes, context: bytes = b"", *, repeat: int = 1, room: int = 256
) -> TestRun:
    """Run a program on a packet. ``context`` is a ``struct __sk_buff`` or a prefix of one.

    ``room`` is how many bytes the packet may grow. Runs in the network namespace of the caller.
    """
    packet = _buffer(data)
    size = len(data) + room
    out = _buffer(b"", size)
    ctx_in = _buffer(context) if context else None
    ctx_out = _buffer(b"", len(context)) if context else None
    attr = struct.pack(
        "=IIIIQQIIIIQQIIII",
        *(program, 0, len(data), size, _address(packet), _address(out), repeat, 0),
        *(len(context), len(context), _address(ctx_in), _address(ctx_out), 0, 0, 0, 0),
    )
    _, raw = bpf(Command.PROG_TEST_RUN, attr, f"program fd {program}")
    verdict, _, data_size = struct.unpack_from("=III", raw, 4)
    (duration,) = struct.unpack_from("=I", raw, 36)
    (context_size,) = struct.unpack_from("=I", raw, 44)
    return TestRun(
        verdict,
        out.raw[:data_size],
        ctx_out.raw[:context_size] if ctx_out is not None else b"",
        duration,
    )


def program_load(kind: int, instructions: bytes, licence: str = "GPL", name: str = "") -> int:
    """Load raw instructions; for probes. Programs proper come out of object files."""
    code = _buffer(instructions)
    terms = _buffer(licence.encode() + b"\0")
    attr = struct.pack(
        "=IIQQIIQII16s",
        *(kind, len(instructions) // 8, _address(code), _address(terms), 0, 0, 0, 0, 0),
        _name(name),
    )
    return bpf(Command.PROG_LOAD, attr, f"program {name or kind}")[0]


# Maps


def map_create(
    kind: MapType,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    inner_fd: int = 0,
    name: str = "",
) -> int:
    """A new map; ``inner_fd`` names the model of the inner maps of a map of maps."""
    attr = struct.pack(
        "=7I16s", kind, key_size, value_size, max_entries, flags, inner_fd, 0, _name(name)
    )
    return bpf(Command.MAP_CREATE, attr, f"map {name or kind.name}")[0]


def _element(
    command: Command,
    fd: int,
    key: bytes | None,
    value: "ctypes.Array[ctypes.c_char] | None",
    flags: int,
) -> None:
    name = _buffer(key) if key is not None else None
    attr = struct.pack("=I4xQQQ", fd, _address(name), _address(value), flags)
    bpf(command, attr, f"map fd {fd}")


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value, or ``None``. ``value_size`` counts all CPUs for a per-CPU map."""
    value = _buffer(b"", value_size)
    try:
        _element(Command.MAP_LOOKUP_ELEM, fd, key, value, 0)
    except FileNotFoundError:
        return None
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Create or replace an element. ``E2BIG`` when the map is full."""
    _element(Command.MAP_UPDATE_ELEM, fd, key, _buffer(value), flags)


def map_delete(fd: int, key: bytes) -> bool:
    """Remove an element. False when there was none."""
    try:
        _element(Command.MAP_DELETE_ELEM, fd, key, None, 0)
    except FileNotFoundError:
        return False
    return True


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """The key behind ``key`` (``None``: the first), or ``None`` at the end."""
    following = _buffer(b"", key_size)
    try:
        _element(Command.MAP_GET_NEXT_KEY, fd, key, following, 0)
    except FileNotFoundError:
        return None
    return following.raw


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys and values of one batch call, joined, and where the next one begins."""

    keys: bytes
    values: bytes
    cursor: bytes | None  # None: the end was reached


def map_lookup_batch(
    fd: int, cursor: bytes | None, count: int, key_size: int, value_size: int
) -> Batch:
    """Up to ``count`` elements from ``cursor`` on (``None``: from the start).

    ``OSError(ENOSPC)`` means that one hash bucket alone holds more than ``count``.
    """
    keys, values = _buffer(b"", count * key_size), _buffer(b"", count * value_size)
    start = _buffer(cursor) if cursor is not None else None
    # The cursor of a hash is a 4-byte bucket number, of a trie a whole key.
    following = _buffer(b"", max(key_size, 4))
    attr = ctypes.create_string_buffer(
        struct.pack(
            "=QQQQIIQQ",
            *(_address(start), _address(following), _address(keys), _address(values)),
            *(count, fd, 0, 0),
        ).ljust(_ATTR_BYTES, b"\0"),
        _ATTR_BYTES,
    )
    result = _libc.syscall(_SYSCALL, Command.MAP_LOOKUP_BATCH, attr, _ATTR_BYTES)
    code = ctypes.get_errno() if result < 0 else 0
    if code not in (0, errno.ENOENT):
        raise OSError(code, f"bpf(MAP_LOOKUP_BATCH) map fd {fd}: {os.strerror(code)}")
    (done,) = struct.unpack_from("=I", attr.raw, 32)
    return Batch(
        keys.raw[: done * key_size],
        values.raw[: done * value_size],
        None if code == errno.ENOENT else following.raw,
    )


def _write_batch(
    command: Command, fd: int, keys: bytes, values: bytes, count: int
) -> tuple[int, int]:
    names, contents = _buffer(keys), _buffer(values) if values else None
    attr = ctypes.create_string_buffer(
        struct.pack("=QQQQIIQQ", 0, 0, _address(names), _address(contents), count, fd, 0, 0).ljust(
            _ATTR_BYTES, b"\0"
        ),
        _ATTR_BYTES,
    )
    result = _libc.syscall(_SYSCALL, command, attr, _ATTR_BYTES)
    code = ctypes.get_errno() if result < 0 else 0
    (done,) = struct.unpack_from("=I", attr.raw, 32)
    return (count, 0) if not code else (done, code)


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> tuple[int, int]:
    """Write joined elements in order. Returns how many were written, and what errno ended it."""
    return _write_batch(Command.MAP_UPDATE_BATCH, fd, keys, values, count)


def map_delete_batch(fd: int, keys: bytes, count: int) -> tuple[int, int]:
    """Remove joined keys in order. Returns how many were removed, and what errno ended it."""
    return _write_batch(Command.MAP_DELETE_BATCH, fd, keys, b"", count)
