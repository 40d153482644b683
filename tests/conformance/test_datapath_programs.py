"""Object files, maps and programs against the real kernel, with small programs made here."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath import doctor, libbpf, programs, syscall
from datapath.syscall import NO_PREALLOC, MapType
from tests.support.datapath import new_table, private_pins

pytestmark = pytest.mark.root

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
const volatile unsigned int config_verdict;
const volatile unsigned char config_mac[6];
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, unsigned int);
	__type(value, unsigned long long);
} ist_t_seen SEC(".maps");
SEC("tc") int NAME(struct __sk_buff *skb)
{
	unsigned int key = config_mac[5];
	unsigned long long value = skb->len;
	BODY
	bpf_map_update_elem(&ist_t_seen, &key, &value, 0);
	skb->mark = 0x1234;
	return config_verdict;
}
char _license[] SEC("license") = "GPL";
"""
CONSTANTS = {"config_verdict": 2, "config_mac": bytes([0, 0, 0, 0, 0, 9])}


def compile_object(directory: Path, name: str, body: str = "") -> Path:
    source, target = directory / f"{name}.bpf.c", directory / f"{name}.bpf.o"
    source.write_text(SOURCE.replace("NAME", name).replace("BODY", body), encoding="ascii")
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-isystem", include]
    subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True, timeout=60)
    return target


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("objects")
    for name in programs.PROGRAMS:
        compile_object(directory, name)
    return directory


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    with private_pins() as path:
        yield path


def test_packet_runs_through_a_loaded_program(objects: Path) -> None:
    """Constants reach the program; verdict, packet, context and maps come back from a test run."""
    with libbpf.BpfObject(objects / "from_container.bpf.o") as opened:
        opened.set_constants(CONSTANTS)
        opened.load()
        run = syscall.prog_test_run(opened.program("from_container"), b"x" * 64, bytes(192))
        assert run.verdict == 2
        assert run.data == b"x" * 64
        assert struct.unpack_from("=I", run.context, 8) == (0x1234,)
        seen = syscall.map_lookup(opened.maps["ist_t_seen"].fd, struct.pack("=I", 9), 8)
        assert seen == struct.pack("=Q", 64)


def test_verifier_says_why(tmp_path: Path) -> None:
    """A program that the kernel refuses is an OSError with the object and the verifier's words."""
    body = "return *(unsigned int *)(unsigned long)skb->data;"
    bad = compile_object(tmp_path, "bad", body)
    with (
        libbpf.BpfObject(bad) as opened,
        pytest.raises(OSError, match=r"(?s)bad\.bpf\.o.*invalid access to packet"),
    ):
        opened.load()


def test_missing_object_is_named(tmp_path: Path) -> None:
    """An object that is not there is FileNotFoundError with its path."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.bpf\.o"):
        libbpf.BpfObject(tmp_path / "nothing.bpf.o")


def test_unknown_constant_is_named(objects: Path) -> None:
    """Setting a constant that the object does not have says which ones it has."""
    with (
        libbpf.BpfObject(objects / "from_host.bpf.o") as opened,
        pytest.raises(KeyError, match="config_verdict"),
    ):
        opened.set_constants({"config_nothing": 1})


def test_forgotten_constant_is_refused(objects: Path, pin_dir: Path) -> None:
    """A constant without a value would be zero unnoticed, so loading refuses it."""
    with pytest.raises(KeyError, match="config_mac"):
        programs.load_programs(objects, pin_dir, {"config_verdict": 1}, {})


def test_pinned_map_is_taken_over(objects: Path, pin_dir: Path) -> None:
    """A second load uses the same map with its contents; programs share it."""
    first = programs.load_programs(objects, pin_dir, CONSTANTS, {})
    first.commit()
    table = first.tables["ist_t_seen"]
    table.write([(struct.pack("=I", 1), struct.pack("=Q", 7))])
    number = syscall.map_info(table.fd).id
    first.close()
    second = programs.load_programs(objects, pin_dir, CONSTANTS, {})
    try:
        assert second.messages == ()
        assert syscall.map_info(second.tables["ist_t_seen"].fd).id == number
        assert second.tables["ist_t_seen"].get(struct.pack("=I", 1)) == struct.pack("=Q", 7)
        for fd in second.fds.values():
            syscall.prog_test_run(fd, bytes(60), bytes(192))
        assert second.tables["ist_t_seen"].get(struct.pack("=I", 9)) == struct.pack("=Q", 60)
    finally:
        second.close()


def test_map_of_another_shape_keeps_its_name_until_the_end(objects: Path, pin_dir: Path) -> None:
    """A changed map starts empty, is told to the operator, and takes the name only on commit."""
    first = programs.load_programs(objects, pin_dir, CONSTANTS, {})
    first.commit()
    path = str(pin_dir / "maps" / "ist_t_seen")
    second = programs.load_programs(objects, pin_dir, CONSTANTS, {"ist_t_seen": 32})
    try:
        (message,) = second.messages
        assert "ist_t_seen" in message
        assert pinned_entries(path) == 16
        second.commit()
        assert pinned_entries(path) == 32
    finally:
        first.close()
        second.close()


def pinned_entries(path: str) -> int:
    fd = syscall.get_pinned(path)
    try:
        return syscall.map_info(fd).max_entries
    finally:
        os.close(fd)


SHAPES = {
    "hash": (MapType.HASH, 0),
    "lru": (MapType.LRU_HASH, 0),
    "trie": (MapType.LPM_TRIE, NO_PREALLOC),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batches", [True, False])
def test_many_rows_in_and_out(shape: str, batches: bool) -> None:
    """Thousands of rows go in and come out, in batches and, where there are none, one by one."""
    kind, flags = SHAPES[shape]
    table = new_table(kind, 8, 8, 20000, flags)
    table._batches = batches
    rows = {struct.pack("<I", 32) + struct.pack(">I", n): struct.pack("<Q", n) for n in range(9000)}
    assert table.write(list(rows.items())) == {}
    assert dict(table.rows()) == rows
    gone = list(rows)[::2]
    missing = [struct.pack("<I", 32) + struct.pack(">I", n) for n in range(50000, 50010)]
    assert table.remove([*missing, *gone, *missing]) == {}
    assert dict(table.rows()) == {k: v for k, v in rows.items() if k not in set(gone)}
    table.close()


def test_full_map_says_its_size() -> None:
    """A row that does not fit is reported with the map's size; the others are written."""
    table = new_table(MapType.HASH, 4, 4, 8)
    rows = [(struct.pack("=I", n), b"abcd") for n in range(10)]
    errors = table.write(rows)
    assert len(errors) == 2
    assert all("full at 8 entries" in str(error) for error in errors.values())
    table.close()


def test_doctor_finds_this_machine_fit() -> None:
    """Where these tests run, every blocking fact holds, and each has a name and a detail."""
    found = doctor.facts()
    assert [f.name for f in found if f.blocking and not f.ok] == []
    assert all(f.detail and (f.ok or f.remedy) for f in found)


def test_doctor_without_capabilities_says_so() -> None:
    """Where the kernel refuses us, the facts say what to do instead of failing."""
    code = "from datapath import doctor\nfor f in doctor.facts(): print(f.name, f.ok, f.remedy)"
    run = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = run.stdout.splitlines()
    assert "bpf programs False run as root, with all capabilities" in lines
    assert "vxlan False run as root, with all capabilities" in lines
    assert any(line.startswith("kernel True") for line in lines)
