"""`isthmus doctor`: what it finds, and when it says no."""

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cli import doctor, doctor_checks, doctor_text
from datapath.doctor import Fact
from tests.support.cli import agent_socket, isthmus

GOOD = Fact("kernel", True, "Linux 6.18", "", True)
WORSE = Fact("tcx", False, "no tcx", "boot Linux 6.6", False)
BAD = Fact("bpffs", False, "no bpffs", "mount -t bpf bpf /sys/fs/bpf", True)


def test_only_a_blocking_check_stops() -> None:
    """What works less well is a warning; the summary names what must be mended."""
    assert [doctor_text.result(fact) for fact in (GOOD, WORSE, BAD)] == ["ok", "warning", "failed"]
    assert not doctor_text.blocked([GOOD, WORSE])
    assert doctor_text.blocked([GOOD, WORSE, BAD])
    assert doctor_text.summary([GOOD, WORSE]).endswith("(2 checks, 1 warnings)")
    assert doctor_text.summary([GOOD, BAD]) == "This machine cannot run Isthmus yet: bpffs"


def test_report_prints_the_remedy_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 on a blocking check, with its remedy in the table and in JSON; else nothing stops."""
    doctor.report(lambda: [GOOD, WORSE], "table")
    assert "boot Linux 6.6" in capsys.readouterr().out
    for how in ("table", "json"):
        with pytest.raises(SystemExit) as left:
            doctor.report(lambda: [GOOD, BAD], how)
        assert left.value.code == 1
        assert "mount -t bpf bpf /sys/fs/bpf" in capsys.readouterr().out


def test_a_terminal_gets_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the findings stand in a drawn table, whole: nothing is cut off."""
    monkeypatch.setenv("COLUMNS", "60")
    long = Fact("eBPF objects", False, "missing: " + "/a/long/path" * 9, "make build", True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        doctor.report(lambda: [GOOD, long], "table")
    out = capsys.readouterr().out
    assert "isthmus doctor" in out
    assert "…" not in out
    cells = [line.split("│")[3].strip() for line in out.splitlines() if line.count("│") == 5]
    assert "/a/long/path" * 9 in "".join(cells)


def test_programs(tmp_path: Path) -> None:
    """A program is found where the path leads, by name and executable; else its remedy is told."""
    there = tmp_path / "etcd"
    there.write_text("#!/bin/sh\n")
    assert not doctor_checks.program("etcd", "install it", True, str(tmp_path)).ok
    there.chmod(0o755)
    found = doctor_checks.program("etcd", "install it", True, str(tmp_path))
    assert (found.ok, found.detail, found.remedy) == (True, str(there), "")
    absent = doctor_checks.program("kubectl", "install it", False, str(tmp_path))
    assert (absent.ok, absent.remedy, absent.blocking) == (False, "install it", False)


def test_built_files(tmp_path: Path) -> None:
    """Every file must be there; a plugin that cannot be executed is as good as none."""
    one, two = tmp_path / "one.bpf.o", tmp_path / "two.bpf.o"
    one.write_bytes(b"")
    partly = doctor_checks.built("eBPF objects", [one, two])
    assert (partly.ok, partly.remedy, partly.blocking) == (False, "make build", True)
    assert str(two) in partly.detail
    assert str(one) not in partly.detail
    two.write_bytes(b"")
    assert doctor_checks.built("eBPF objects", [one, two]).ok
    assert not doctor_checks.built("CNI plugin", [one], executable=True).ok
    one.chmod(0o755)
    assert doctor_checks.built("CNI plugin", [one], executable=True).ok


def test_python_packages() -> None:
    """Other versions warn, absent packages stop; packages of extras are nobody's business."""

    def installed(name: str) -> str:
        if name == "gone":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    def look(*requirements: str) -> Fact:
        return doctor_checks.packages(requirements, installed)

    assert look("a==1.0", 'tool==9; extra == "dev"').detail == "1 at their pinned versions"
    other = look("a==1.0", "b==2.0")
    assert (other.ok, other.blocking) == (False, False)
    assert "b 1.0 (pinned 2.0)" in other.detail
    absent = look("a==1.0", "gone==3.0")
    assert (absent.ok, absent.blocking, absent.remedy) == (False, True, "make setup")
    assert "missing: gone 3.0" in absent.detail
    assert look().blocking, "no pins at all: the distribution is not there"


@pytest.mark.root
def test_this_machine_and_what_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that runs these tests passes; without its programs and objects it does not."""
    good = isthmus("doctor", "-o", "json")
    assert good.code == 0
    names = [fact["name"] for fact in good.json]
    assert len(names) == len(set(names))
    for wanted in ("kernel", "root", "bpffs", "cgroup v2", "etcd", "eBPF objects", "CNI plugin"):
        assert wanted in names
    monkeypatch.setenv("ISTHMUS_BPF_DIR", str(tmp_path))
    bad = isthmus("doctor")
    assert bad.code == 1
    assert "cannot run Isthmus yet: eBPF objects" in bad.out
    assert f"missing: {tmp_path}/from_container.bpf.o" in bad.out


def test_version(tmp_path: Path) -> None:
    """The command's and the agent's version; an agent that does not answer is no failure."""
    with agent_socket(tmp_path / "s", {"healthz": {"cilium": {"msg": "9.9 (v9.9)"}}}) as agent:
        found = isthmus("version", "-H", agent.path)
        assert found.out.splitlines()[:2] == [
            f"Client: {metadata.version('isthmus')}",
            "Daemon: 9.9 (v9.9)",
        ]
    alone = isthmus("version", "-H", tmp_path / "s", "-o", "json")
    assert alone.code == 0
    assert alone.json["daemon"] == f"does not answer at {tmp_path}/s"
    assert os.uname().release in alone.json["kernel"]
