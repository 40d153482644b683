"""Programs on devices: pinned links and filters, in namespaces that end with the test."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from datapath import pins, syscall
from datapath.attach import Attacher, Attachment, AttachMode
from datapath.syscall import AttachType
from tests.support.datapath import kernel_thread, private_pins

pytestmark = pytest.mark.root

DEVICE = "ist-t-a"
WANTED = Attachment("from_container", AttachType.TCX_INGRESS, DEVICE)
PASS, DROP = -1, 2  # TCX_NEXT / TC_ACT_UNSPEC, TC_ACT_SHOT


def program(verdict: int) -> int:
    move = bytes([0xB7, 0, 0, 0]) + verdict.to_bytes(4, "little", signed=True)
    code = move + bytes([0x95, 0, 0, 0, 0, 0, 0, 0])
    return syscall.program_load(syscall.PROG_TYPE_SCHED_CLS, code, name="ist_t")


Run = Callable[..., Any]


@pytest.fixture
def run() -> Iterator[Run]:
    """Call a function in a namespace with a pair of devices, one end answering to 10.9.0.1."""
    with kernel_thread(own_network=True) as thread:

        def call(function: Callable[..., Any], *args: object) -> Any:
            future: Future[Any] = thread.submit(function, *args)
            return future.result(timeout=30)

        call(sh, f"ip link set lo up; ip link add {DEVICE} type veth peer name ist-t-b")
        call(sh, f"ip link set {DEVICE} up; ip link set ist-t-b up")
        yield call


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    with private_pins() as path:
        yield path


def sh(command: str) -> str:
    done = subprocess.run(
        ["bash", "-ec", command], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def ids(*fds: int) -> list[int]:
    return [syscall.program_info(fd).id for fd in fds]


def attached() -> list[int]:

    return syscall.query_programs(socket.if_nametoindex(DEVICE), AttachType.TCX_INGRESS)


def test_attach_replaces_in_place(run: Run, pin_dir: Path) -> None:
    """A second attach puts the new program into the same link; nothing is stacked."""
    attacher = Attacher(pin_dir, AttachMode.TCX)
    first, second = program(PASS), program(PASS)
    run(attacher.attach, WANTED, first)
    assert run(attached) == ids(first)
    link = syscall.link_info(syscall.get_pinned(str(next((pin_dir / "links").iterdir()))))
    run(attacher.attach, WANTED, second)
    assert run(attached) == ids(second)
    after = syscall.link_info(syscall.get_pinned(str(next((pin_dir / "links").iterdir()))))
    assert after.id == link.id
    assert attacher.attached() == [WANTED]


def test_program_outlives_its_process(run: Run, pin_dir: Path) -> None:
    """Closing every descriptor leaves the program attached; the pin holds it."""
    first = program(PASS)
    number = ids(first)
    run(Attacher(pin_dir, AttachMode.TCX).attach, WANTED, first)
    os.close(first)
    assert run(attached) == number


def test_new_device_of_an_old_name(run: Run, pin_dir: Path) -> None:
    """When a device was made anew under its name, the program is attached to the new one."""
    attacher = Attacher(pin_dir, AttachMode.TCX)
    first = program(PASS)
    run(attacher.attach, WANTED, first)
    run(sh, f"ip link del {DEVICE}; ip link add {DEVICE} type veth peer name ist-t-b")
    assert not run(attacher.is_live, WANTED)
    run(attacher.attach, WANTED, first)
    assert run(attached) == ids(first)
    assert run(attacher.is_live, WANTED)


def test_dead_links_are_unpinned(run: Run, pin_dir: Path) -> None:
    """A link whose device is gone loses its pin; a live one keeps it."""
    attacher = Attacher(pin_dir, AttachMode.TCX)
    first = program(PASS)
    other = Attachment("from_container", AttachType.TCX_INGRESS, "ist-t-b")
    run(sh, "ip link add ist-t-c type veth peer name ist-t-d")
    gone = Attachment("from_container", AttachType.TCX_INGRESS, "ist-t-c")
    for wanted in (other, gone):
        run(attacher.attach, wanted, first)
    run(sh, "ip link del ist-t-c")
    assert run(attacher.drop_dead) == [gone]
    assert attacher.attached() == [other]


def test_detach_is_repeatable(run: Run, pin_dir: Path) -> None:
    """Detaching what is not attached, or whose device is gone, is no error."""
    attacher = Attacher(pin_dir, AttachMode.TCX)
    run(attacher.attach, WANTED, program(PASS))
    for _ in range(2):
        run(attacher.detach, WANTED)
        assert run(attached) == []
    run(sh, f"ip link del {DEVICE}")
    run(attacher.detach, WANTED)


def test_filters_are_found_again(run: Run, pin_dir: Path) -> None:
    """Without links the filters themselves tell what is attached; one that lives is no dead one."""
    first = program(PASS)
    run(Attacher(pin_dir, AttachMode.CLSACT).attach, WANTED, first)
    os.close(first)
    again = Attacher(pin_dir, AttachMode.CLSACT)
    assert run(again.attached) == [WANTED]
    assert run(again.is_live, WANTED)
    assert run(again.drop_dead) == []
    run(again.detach, WANTED)
    assert run(again.attached) == []
    assert not run(again.is_live, WANTED)


def test_no_device_is_named(run: Run, pin_dir: Path) -> None:
    """Attaching to a device that does not exist says which one."""
    missing = Attachment("from_container", AttachType.TCX_INGRESS, "ist-t-none")
    with pytest.raises(OSError, match="ist-t-none"):
        run(Attacher(pin_dir, AttachMode.TCX).attach, missing, program(PASS))


@pytest.mark.parametrize("mode", list(AttachMode))
def test_replacing_never_lets_a_packet_by(run: Run, pin_dir: Path, mode: AttachMode) -> None:
    """While a program that drops is replaced 300 times under a flood, no packet gets past it."""
    attacher = Attacher(pin_dir, mode)
    run(
        sh,
        "ip addr add 10.9.0.1/24 dev ist-t-b; ip neigh add 10.9.0.2 dev ist-t-b"
        f" lladdr 02:00:00:00:00:01; ip link set {DEVICE} address 02:00:00:00:00:01;"
        f" ip addr add 10.9.0.2/32 dev {DEVICE}",
    )
    run(attacher.attach, WANTED, program(DROP))
    sender = run(_flood)
    try:
        turns = 0
        while turns < 300 or run(_sent_packets) <= 1000:
            turns += 1
            new = program(DROP)
            run(attacher.attach, WANTED, new)
            os.close(new)
    finally:
        sender.kill()
        sender.communicate()
    counters = run(sh, "cat /proc/net/snmp | grep ^Udp:")
    received, no_ports = map(int, counters.splitlines()[1].split()[1:3])
    assert run(_sent_packets) > 1000
    assert received + no_ports == 0


def _flood() -> "subprocess.Popen[bytes]":
    code = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'ist-t-b')\n"
        "print('ready', flush=True)\n"
        "while True: s.sendto(b'x', ('10.9.0.2', 7))\n"
    )
    child = subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def _sent_packets() -> int:
    path = Path("/proc/thread-self/net/dev").read_text(encoding="ascii")
    line = next(row for row in path.splitlines() if "ist-t-b:" in row)
    return int(line.split(":")[1].split()[9])


def test_strangers_filters_stay(run: Run, pin_dir: Path) -> None:
    """Another owner's filter on the device lives through attach and detach, in both modes."""
    run(sh, f"tc qdisc add dev {DEVICE} clsact")
    path = pin_dir / "foreign"
    syscall.pin(program(PASS), str(path))
    run(sh, f"tc filter add dev {DEVICE} ingress prio 7 bpf da pinned {path}")
    path.unlink()
    before = run(sh, f"tc filter show dev {DEVICE} ingress")
    for mode in AttachMode:
        attacher = Attacher(pin_dir, mode)
        run(attacher.attach, WANTED, program(PASS))
        assert before.strip() in run(sh, f"tc filter show dev {DEVICE} ingress")
        run(attacher.detach, WANTED)
        assert run(sh, f"tc filter show dev {DEVICE} ingress") == before


def test_foreign_filter_in_our_place_is_an_error(run: Run, pin_dir: Path, tmp_path: Path) -> None:
    """A filter of another owner where ours would go is reported and not replaced."""
    foreign = program(PASS)
    path = pin_dir / "foreign"
    syscall.pin(foreign, str(path))
    run(
        sh,
        f"tc qdisc add dev {DEVICE} clsact; "
        f"tc filter add dev {DEVICE} ingress prio 1 handle 1 bpf da pinned {path}",
    )
    with pytest.raises(FileExistsError, match="another owner"):
        run(Attacher(pin_dir, AttachMode.CLSACT).attach, WANTED, program(PASS))
    path.unlink()
    assert "handle 0x1" in run(sh, f"tc filter show dev {DEVICE} ingress")


def test_pin_directory_must_be_a_bpffs(tmp_path: Path) -> None:
    """A pin directory on another file system is refused with the command that helps."""
    with pytest.raises(OSError, match="mount -t bpf"):
        pins.prepare(tmp_path / "isthmus")
