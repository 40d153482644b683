#!/usr/bin/env python3
"""Write `wire/bpf/layouts.py` from the types in `bpf/lib/abi/*.h`.

The types are read from the BTF that clang makes of `bpf/layouts.c`, so offsets, sizes and padding
are the compiler's own. ``--check`` compares instead of writing.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "wire" / "bpf" / "layouts.py"
SOURCE = ROOT / "bpf" / "layouts.c"
PREFIX = "layout_"
OPAQUE = {"address": 16, "mac": 6, "event_header": 16}  # structs that stay bytes
RENAMED = {"bytes": "size", "count": "slots"}  # names that a tuple or its annotations need
SIGNS = {1: "B", 2: "H", 4: "I", 8: "Q"}

HEAD = '''"""Rows of the kernel maps and the numbers shared with the programs. Pure.

Generated from `bpf/lib/abi/*.h` by tools/gen_layouts.py (`make layouts`): do not edit.
"""

import struct
import sys
from enum import IntEnum
from typing import NamedTuple


def _be16(value: int) -> int:
    return value if sys.byteorder == "big" else (value & 0xFF) << 8 | value >> 8
'''


def compile_types() -> list[dict[str, Any]]:
    """Every BTF type of ``SOURCE``; a type's number is its place in the list plus one."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "layouts.o"
        include = f"/usr/include/{platform.machine()}-linux-gnu"
        options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Ibpf", "-Ibpf/lib"]
        command = ["clang", *options, "-isystem", include, "-c", str(SOURCE), "-o", str(target)]
        subprocess.run(command, check=True, cwd=ROOT)
        dump = ["bpftool", "-j", "btf", "dump", "file", str(target)]
        done = subprocess.run(dump, check=True, capture_output=True, text=True)
    types: list[dict[str, Any]] = json.loads(done.stdout)["types"]
    return types


class Generator:
    """Text for each type."""

    def __init__(self, types: list[dict[str, Any]]) -> None:
        self._types = {t["id"]: t for t in types}

    def roots(self) -> list[dict[str, Any]]:
        """The types of the variables in ``SOURCE``, in its order."""
        order = SOURCE.read_text()
        names = {
            t["name"].removeprefix(PREFIX): self._types[t["type_id"]]
            for t in self._types.values()
            if t["kind"] == "VAR" and t["name"].startswith(PREFIX)
        }
        return sorted(names.values(), key=lambda t: order.index(f", {t['name']})"))

    def text(self) -> str:
        """The whole module."""
        roots = self.roots()
        parts = [HEAD]
        parts += [self._enum(t) for t in roots if t["kind"] == "ENUM"]
        parts += [self._struct(t) for t in roots if t["kind"] == "STRUCT"]
        return "\n\n".join(parts)

    def _enum(self, kind: dict[str, Any]) -> str:
        lines = [
            f"class {_class(kind['name'])}(IntEnum):",
            f'    """``enum {kind["name"]}``."""',
            "",
        ]
        lines += [f"    {v['name']} = {v['val']}" for v in kind["values"]]
        return "\n".join(lines) + "\n"

    def _struct(self, kind: dict[str, Any]) -> str:
        name, fields, layout, at = _class(kind["name"]), [], "=", 0
        for member in kind["members"]:
            offset = member["bits_offset"] // 8
            if offset != at:
                where = f"struct {kind['name']} has a hole before {member['name']}"
                raise SystemExit(f"{where}: pad it")
            code, size, big = self._field(member["type_id"])
            at += size
            if member["name"].startswith("pad"):
                layout += f"{size}x"
            else:
                layout += code
                field = RENAMED.get(member["name"], member["name"])
                fields.append((field, "bytes" if code.endswith("s") else "int", big))
        if at != kind["size"]:
            raise SystemExit(f"struct {kind['name']} ends with a hole: pad it")
        codec = kind["name"].upper()
        lines = [f'{codec} = struct.Struct("{layout}")', "", ""]
        lines += [f"class {name}(NamedTuple):", f'    """``struct {kind["name"]}``."""', ""]
        lines += [f"    {field}: {hint}" for field, hint, _ in fields]
        lines += ["", *_pack(codec, fields), "", *_parse(codec, name, fields)]
        return "\n".join(lines) + "\n"

    def _field(self, number: int) -> tuple[str, int, bool]:
        """Code, size, and whether the bytes are in network order."""
        big = False
        while True:
            kind = self._types[number]
            if kind["kind"] == "STRUCT":
                size = OPAQUE[kind["name"]]
                assert size == kind["size"]
                return f"{size}s", size, False
            if kind["kind"] == "ARRAY":
                _, size, _ = self._field(kind["type_id"])
                return f"{size * kind['nr_elems']}s", size * kind["nr_elems"], False
            if kind["kind"] == "INT":
                code = SIGNS[kind["size"]]
                return code.lower() if kind["encoding"] == "SIGNED" else code, kind["size"], big
            big = big or kind.get("name") == "__be16"
            number = kind["type_id"]


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _pack(codec: str, fields: list[tuple[str, str, bool]]) -> list[str]:
    lines = ["    def pack(self) -> bytes:", '        """The bytes."""']
    if not any(big for _, _, big in fields):
        return [*lines, f"        return {codec}.pack(*self)"]
    lines.append(f"        return {codec}.pack(")
    lines += [
        f"            _be16(self.{field})," if big else f"            self.{field},"
        for field, _, big in fields
    ]
    return [*lines, "        )"]


def _parse(codec: str, name: str, fields: list[tuple[str, str, bool]]) -> list[str]:
    lines = [
        "    @classmethod",
        f'    def parse(cls, data: bytes) -> "{name}":',
        '        """From the bytes."""',
    ]
    if not any(big for _, _, big in fields):
        return [*lines, f"        return cls(*{codec}.unpack(data))"]
    names = ", ".join(field for field, _, _ in fields)
    lines.append(f"        {names} = {codec}.unpack(data)")
    lines.append("        return cls(")
    lines += [
        f"            _be16({field})," if big else f"            {field},"
        for field, _, big in fields
    ]
    return [*lines, "        )"]


def main() -> int:
    """Write or compare; 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    wanted = Generator(compile_types()).text()
    if not parser.parse_args().check:
        OUTPUT.write_text(wanted)
        return 0
    if OUTPUT.read_text() != wanted:
        print(f"{OUTPUT} is not what bpf/lib/abi says: run `make layouts`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
