"""kind.images: what runs for an image name."""

import pytest

from kind.images import table


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx", "nginx"),
        ("docker.io/nginx:1.15.8", "nginx"),
        ("quay.io/cilium/json-mock:v1.3.8@sha256:abc", "json-mock"),
        ("registry:5000/team/app", "app"),
        ("localhost:5000/etcd@sha256:0", "etcd"),
    ],
)
def test_short_name(image: str, expected: str) -> None:
    """Registry, tag and digest do not matter."""
    assert table.short_name(image) == expected


def test_entry_points() -> None:
    """A known workload has an entry point, our own image needs a command, a strange one too."""
    known = table.entry_point("docker.io/nginx:1.15.8", False, "/py", "/src")
    assert known is not None
    assert known[0][0] == "/py"
    assert known[0][-1] == "/src/kind/images/static.py"
    assert table.entry_point("quay.io/cilium/cilium:v1", False, "/py", "/src") is None
    assert table.entry_point("quay.io/cilium/cilium:v1", True, "/py", "/src") == ([], [])
    assert table.entry_point("example.com/unknown", False, "/py", "/src") is None
    assert table.entry_point("example.com/unknown", True, "/py", "/src") == ((), ())


def test_unknown_image_says_what_to_do() -> None:
    """The message names the image and the remedy."""
    text = table.unknown_message("example.com/unknown")
    assert "example.com/unknown" in text
    assert "command" in text
