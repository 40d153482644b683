"""What ``isthmus encrypt migrate`` makes of settings and answers, before it changes anything."""

from typing import Any

import pytest

from cli import encrypt_mesh
from cli.encrypt_mesh import ANNOTATION, Member, Route
from encryption.migration import Kind, Stance

OFF, W, I = Kind.OFF, Kind.WIREGUARD, Kind.IPSEC  # noqa: E741


def member(name: str = "one", route: str = "", **config: str) -> Member:
    data = {key.replace("_", "-"): value for key, value in config.items()}
    return Member(name, name, data, {ANNOTATION: route} if route else {})


@pytest.mark.parametrize(
    "stance", [Stance(OFF), Stance(W), Stance(I), Stance(OFF, W), Stance(W, I), Stance(I, W)]
)
def test_settings_say_a_stance_and_are_read_as_it(stance: Stance) -> None:
    """Also when a key is left out because it is the default."""
    kept = {k: v for k, v in encrypt_mesh.settings(stance).items() if v is not None}
    assert Member("c", "c", kept, {}).stance == stance
    without = {k: v for k, v in kept.items() if v != "false"}
    assert Member("c", "c", without, {}).stance == stance


def test_a_call_begins_goes_on_and_goes_back() -> None:
    """What is under way is remembered by every cluster, or by the first that was told."""
    assert encrypt_mesh.route([member()], W, abort=False) == Route(OFF, W)
    half = [member("one", "off wireguard"), member("two")]
    assert encrypt_mesh.route(half, None, abort=False) == Route(OFF, W)
    assert encrypt_mesh.route(half, None, abort=True) == Route(OFF, W, aborting=True)
    back = [member("one", "off wireguard aborting"), member("two", "off wireguard")]
    for abort in (False, True):
        found = encrypt_mesh.route(back, None, abort)
        assert (found.goal, found.text()) == (OFF, "off wireguard aborting")


@pytest.mark.parametrize(
    ("routes", "to", "abort", "says"),
    [
        ([""], None, False, "say where to with --to"),
        ([""], None, True, "nothing to abort"),
        (["off wireguard"], I, False, "go on|let it end with --to wireguard"),
        (["off wireguard aborting"], W, False, "being taken back"),
        (["off wireguard", "wireguard ipsec"], W, False, "different migrations"),
        (["off"], W, False, "remove it"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    routes: list[str], to: Kind | None, abort: bool, says: str
) -> None:
    """With what to do instead."""
    members = [member(f"c{n}", route) for n, route in enumerate(routes)]
    with pytest.raises(ValueError, match=says):
        encrypt_mesh.route(members, to, abort)


def test_two_kinds_at_once_are_no_stance() -> None:
    """As every agent would say."""
    with pytest.raises(ValueError, match="both on"):
        _ = member(enable_wireguard="true", enable_ipsec="true").stance


def _obstacles(target: Kind, *members: Member) -> str:
    return "\n".join(encrypt_mesh.obstacles(members, target))


def test_what_stands_in_the_way_is_told_before_anything_changes() -> None:
    """Strict mode, nodes' own traffic, secrets, a rotation: each with the remedy."""
    strict = member(enable_wireguard="true", enable_encryption_strict_mode="true")
    assert "set it to false" in _obstacles(OFF, strict)
    assert _obstacles(W, strict) == ""
    assert "encrypts what pods send only" in _obstacles(I, member(encrypt_node="true"))
    assert "has no secret cilium-ipsec-keys" in _obstacles(I, member())
    one, two = member("one"), member("two")
    one.secret, two.secret = b"3+ a", b"3+ b"
    assert "secrets cilium-ipsec-keys differ" in _obstacles(I, one, two)
    two.secret = b"3+ a"
    assert _obstacles(I, one, two) == ""
    one.answers["n1"] = {"rotation": {"phase": "turning"}}
    assert "node one/n1 changes its key (turning)" in _obstacles(I, one, two)


def test_answers_of_agents_become_reports() -> None:
    """An agent that says nothing of stances is as good as silent."""
    said: dict[str, Any] = {
        "sends": "wireguard",
        "accepts": "ipsec",
        "nodes": {"two/b": {"sends": "wireguard", "unready": {"ipsec": "no answer"}}},
    }
    one = member()
    one.answers = {"a": {"mode": "Wireguard", "migration": said}, "old": {"mode": "Disabled"}}
    (found,) = encrypt_mesh.reports([one]).items()
    assert found[0] == "one/a"
    assert found[1].stance == Stance(W, I)
    assert found[1].sends == {"two/b": W}
    assert found[1].unready == {I: {"two/b": "no answer"}}


def test_pods_get_what_userspace_wireguard_needs_when_it_is_next() -> None:
    """And not for IPsec."""
    one = member()
    one.unkept = ("a",)
    assert list(encrypt_mesh.unkept([one], Stance(OFF, W))) == [one]
    assert list(encrypt_mesh.unkept([one], Stance(OFF, I))) == []
