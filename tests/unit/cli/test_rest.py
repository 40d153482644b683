"""The client of the agent's socket, against real sockets."""

import json
import socket
from pathlib import Path

import pytest

from cli import rest
from tests.support.cli import agent_socket, isthmus


def test_get_decodes_what_the_agent_says(tmp_path: Path) -> None:
    """Path and query arrive as given, the answer is decoded; `unix://` is understood."""
    with agent_socket(tmp_path / "s") as agent:
        agent.say("ip?cidr=10.0.0.0%2F8", (200, b'[{"cidr": "10.0.0.1/32"}]'))
        found = rest.get(f"unix://{agent.path}", "ip", {"cidr": "10.0.0.0/8"})
    assert found == [{"cidr": "10.0.0.1/32"}]


def test_names_with_a_slash_are_one_segment(tmp_path: Path) -> None:
    """`pod-name:NAMESPACE/POD` is one part of the path."""
    with agent_socket(tmp_path / "s") as agent:
        agent.say("endpoint/pod-name:default%2Fweb", (200, b"{}"))
        rest.get(str(agent.path), f"endpoint/{rest.segment('pod-name:default/web')}")
        assert agent.asked == ["/v1/endpoint/pod-name:default%2Fweb"]


def test_a_refusal_is_told_in_the_agents_words(tmp_path: Path) -> None:
    """The JSON string of an error answer is the message; the status is kept."""
    with agent_socket(tmp_path / "s") as agent:
        agent.say("endpoint/7", (404, b'"endpoint 7 not found"'))
        with pytest.raises(rest.AgentRefusedError, match="endpoint 7 not found") as refused:
            rest.get(str(agent.path), "endpoint/7")
    assert refused.value.status == 404


def test_a_refusal_without_words_names_the_status(tmp_path: Path) -> None:
    """An error answer that is not JSON, or empty, still gives a message."""
    with agent_socket(tmp_path / "s") as agent:
        agent.say("ip", (500, b""))
        with pytest.raises(rest.AgentRefusedError, match="500"):
            rest.get(str(agent.path), "ip")
        agent.say("ip", (502, b"<html>bad gateway"))
        with pytest.raises(rest.AgentRefusedError, match="bad gateway"):
            rest.get(str(agent.path), "ip")


def test_nobody_listens(tmp_path: Path) -> None:
    """An absent socket and one that a dead agent left behind are named, each in one line."""
    absent = isthmus("endpoint", "list", "--host", tmp_path / "absent")
    assert (absent.code, absent.out) == (1, "")
    assert absent.err.startswith(f"Error: the agent does not answer at {tmp_path}/absent: No such")
    assert "--host" in absent.err
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    refused = isthmus("ip", "list", "--host", left)
    assert refused.code == 1
    assert "Connection refused" in refused.err
    assert all(r.err.count("\n") == 1 for r in (absent, refused))


def test_an_agent_that_hangs(tmp_path: Path) -> None:
    """A socket that accepts and never answers ends with the timeout, and says so."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen(1)
        result = isthmus("status", "--host", tmp_path / "mute", "--timeout", "200ms")
    assert result.code == 1
    assert "did not answer GET /v1/healthz within 0.2 s" in result.err


def test_what_listens_is_no_agent(tmp_path: Path) -> None:
    """HTTP without JSON, and no HTTP at all, are told apart from an agent."""
    with agent_socket(tmp_path / "s") as agent:
        agent.say("identity", (200, b"hello"))
        result = isthmus("identity", "list", "--host", agent.path)
        assert result.code == 1
        assert "does not answer JSON" in result.err
        agent.say("healthz", (200, b"[]"))
        assert "does not answer with a status" in isthmus("status", "--host", agent.path).err


def test_the_environment_names_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CILIUM_SOCK is used where no --host is given, and --host wins."""
    with agent_socket(tmp_path / "a") as one, agent_socket(tmp_path / "b") as two:
        one.say("identity/5", (200, json.dumps({"id": 5, "labels": ["one"]}).encode()))
        two.say("identity/5", (200, json.dumps({"id": 5, "labels": ["two"]}).encode()))
        monkeypatch.setenv("CILIUM_SOCK", str(one.path))
        assert "one" in isthmus("identity", "get", 5).out
        assert "two" in isthmus("identity", "get", 5, "-H", two.path).out
