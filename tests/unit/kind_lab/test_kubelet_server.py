"""kind.kubelet.server: small pure parts."""

import pytest

from kind.kubelet import probes, server


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\n", 5, b"a\n"),
        (b"a\n", 0, b""),
        (b"", 3, b""),
    ],
)
def test_tail(text: bytes, lines: int, expected: bytes) -> None:
    """The last lines, with or without a newline at the end."""
    assert server.tail(text, lines) == expected


def test_probe_defaults() -> None:
    """The defaults of the API reference."""
    probe = probes.parse({"tcpSocket": {"port": 1}})
    assert (probe.period_s, probe.timeout_s, probe.failure_threshold) == (10, 1, 3)
    assert (probe.initial_delay_s, probe.success_threshold) == (0, 1)


def test_named_port() -> None:
    """A port may be named; an unknown name is an error that names it."""
    container = {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}
    assert probes.port_number("web", container) == 8080
    assert probes.port_number("80", container) == 80
    assert probes.port_number(81, container) == 81
    with pytest.raises(ValueError, match="health"):
        probes.port_number("health", container)
