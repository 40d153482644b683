"""``isthmus hubble config``, ``version`` and ``completion``; what counts before what."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cli import hubble_connect, hubble_settings
from tests.support.cli import isthmus
from tests.support.hubble import MemorySource, observing


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for key in hubble_settings.DEFAULTS:
        monkeypatch.delenv(hubble_settings.variable(key), raising=False)
    return tmp_path


def test_settings_are_kept_shown_and_forgotten(home: Path) -> None:
    """Into the usual place, readable by its owner only; the environment counts more."""
    assert isthmus("hubble", "config", "get", "server").out == "\n"
    assert isthmus("hubble", "config", "set", "server", "tls://relay:443").code == 0
    assert isthmus("hubble", "config", "set", "tls-ca-cert-files", "a.crt,b.crt").code == 0
    assert isthmus("hubble", "config", "set", "tls", "true").code == 0
    file = home / ".config/hubble/config.yaml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == (
        "server: tls://relay:443\ntls: true\ntls-ca-cert-files:\n- a.crt\n- b.crt\n"
    )
    assert isthmus("hubble", "config", "get", "tls-ca-cert-files").out == "a.crt\nb.crt\n"
    assert "server: tls://relay:443\n" in isthmus("hubble", "config", "view").out
    assert isthmus("hubble", "config", "reset", "server").code == 0
    assert isthmus("hubble", "config", "get", "server").out == "\n"
    assert isthmus("hubble", "config", "set", "tls").code == 0
    assert isthmus("hubble", "config", "get", "tls").out == "false\n"
    assert isthmus("hubble", "config", "reset").code == 0
    assert file.read_text() == "{}\n"


def test_a_password_is_not_shown_by_the_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only to who asks for it by name; the environment counts more than the file."""
    isthmus("hubble", "config", "set", "basic-auth-password", "secret")
    for words in (("view",), ("get",)):
        assert "secret" not in isthmus("hubble", "config", *words).out
    assert isthmus("hubble", "config", "get", "basic-auth-password").out == "secret\n"
    monkeypatch.setenv("HUBBLE_BASIC_AUTH_PASSWORD", "other")
    assert isthmus("hubble", "config", "get", "basic-auth-password").out == "other\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("get", "nothing"), "no setting nothing: there are allowlist"),
        (("set", "nothing", "1"), "no setting nothing"),
        (("reset", "nothing"), "no setting nothing"),
        (("set", "tls", "perhaps"), "setting tls: 'perhaps' is not like False"),
        (("set", "port-forward-port", "x"), "setting port-forward-port: 'x' is not like 0"),
        (("view", "--config", "/nowhere"), "--config: there is no file /nowhere"),
    ],
)
def test_what_is_no_setting_is_refused(home: Path, words: tuple[str, ...], reason: str) -> None:
    said = isthmus("hubble", "config", *words)
    assert said.code == 2
    assert reason in said.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "not a list of settings"),
        ("a: [", "cannot be read"),
        ("tls: 7", "setting tls: 7 is not like False"),
        ("allowlist: {}", "setting allowlist: {} is not like []"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(home: Path, content: str, reason: str) -> None:
    """Whatever the command; what we do not know in it is no harm."""
    file = home / "c.yaml"
    file.write_text(content)
    said = isthmus("hubble", "status", "--config", file)
    assert said.code == 2
    assert f"{file}: " in said.err
    assert reason in said.err
    file.write_text("colour: blue\nconfig: x\n")
    assert isthmus("hubble", "config", "view", "--config", file).code == 0


async def test_what_counts_before_what(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag before the environment, that before the file, that before the default."""
    source = MemorySource()
    source.add_flows(1)
    (home / ".hubble").mkdir()
    elder = home / ".hubble/config.yaml"
    monkeypatch.setattr(hubble_connect, "SOCKET", home / "none.sock")
    async with observing(source, home / "h.sock"):
        good, bad = f"unix://{home}/h.sock", f"unix://{home}/bad.sock"

        async def code(*words: str) -> int:
            import asyncio

            return (await asyncio.to_thread(isthmus, "hubble", *words)).code

        assert await code("status") == 1
        elder.write_text(f"server: {good}\n")
        assert await code("status") == 0
        other = home / "other.yaml"
        other.write_text(f"server: {bad}\n")
        assert await code("--config", str(other), "status") == 1
        assert await code("status", "--config", str(other)) == 1
        monkeypatch.setenv("HUBBLE_CONFIG", str(other))
        assert await code("status") == 1
        monkeypatch.setenv("HUBBLE_SERVER", good)
        assert await code("status") == 0
        assert await code("status", "--server", bad) == 1


async def test_debug_says_who_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the command and after it, in the environment and in the file."""
    import asyncio

    where = f"unix://{home}/h.sock"
    async with observing(MemorySource(), home / "h.sock"):

        async def said(*words: str) -> str:
            found = await asyncio.to_thread(isthmus, "hubble", *words, "--server", where)
            assert found.code == 0
            return found.err

        told = f"asking {where}\n"
        assert await said("list", "namespaces") == ""
        assert await said("list", "namespaces", "-D") == await said("-D", "status") == told
        assert await said("--debug", "observe") == told
        (home / "c.yaml").write_text("debug: true\n")
        assert await said("status", "--config", str(home / "c.yaml")) == told
        monkeypatch.setenv("HUBBLE_DEBUG", "true")
        assert await said("list", "namespaces") == told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell: str) -> None:
    """The script names the program; bash takes it."""
    said = isthmus("hubble", "completion", shell)
    assert said.code == 0
    assert "_ISTHMUS_COMPLETE" in said.out
    if shell == "bash":
        assert shutil.which("bash")
        subprocess.run(["bash", "-n"], input=said.out, text=True, check=True)
    assert isthmus("hubble", "completion", "tcsh").code == 2


def test_the_version_is_told() -> None:
    """As the other command has it: name, version, how it was made."""
    words = isthmus("hubble", "version").out.split()
    assert words[0] == "hubble"
    assert words[1].endswith("@isthmus")
    assert words[2] == "with"
