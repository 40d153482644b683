"""What ``isthmus encrypt rotate`` writes into the secrets of IPsec, and for whom it waits."""

from typing import Any

import pytest

from cli import encrypt_keys
from cli.encrypt_mesh import Member
from encryption.ipsec_keys import parse_secret

LINE = f"3+ rfc4106(gcm(aes)) {'11' * 20} 128\n"
NEXT = f"4+ rfc4106(gcm(aes)) {'07' * 20} 128\n"


def sevens(count: int) -> bytes:
    return b"\x07" * count


def answer(key_id: int, **peers: tuple[int, int]) -> dict[str, Any]:
    """A node's own key; of peers their key, and the one that it sends with."""
    rows = [
        {"node": name.replace("_", "/"), "key-id": key, "sends-with": used}
        for name, (key, used) in peers.items()
    ]
    return {"mode": "IPsec", "ipsec": {"current-key-id": key_id, "peers": rows}}


def member(name: str, secret: str | None = LINE, *, key_id: int = 3, mode: str = "ipsec") -> Member:
    found = Member(f"ctx-{name}", name, {f"enable-{mode}": "true"}, {}, nodes=("n",))
    found.secret = secret.encode() if secret is not None else None
    found.answers = {"n": answer(key_id, one_n=(key_id, key_id), two_n=(key_id, key_id))}
    return found


def mesh(**changes: Any) -> list[Member]:
    return [member("one", **changes), member("two")]


def test_the_next_key_goes_behind_the_current_one_in_every_cluster() -> None:
    """A node that boots in between can still hear who has not heard of the new one."""
    members = mesh()
    plan = encrypt_keys.plan(members, sevens)
    assert (plan.secret, plan.key_id, plan.lacking) == (LINE + NEXT, 4, tuple(members))
    assert [key.id for key in parse_secret(plan.secret)] == [3, 4]


def test_a_call_that_was_killed_between_two_clusters_is_gone_on_with() -> None:
    """With the key that it made; whatever the first cluster's nodes do with it meanwhile."""
    members = [member("one", LINE + NEXT, key_id=4), member("two")]
    plan = encrypt_keys.plan(members, lambda _: pytest.fail("another key"))
    assert (plan.secret, plan.lacking) == (LINE + NEXT, (members[1],))


def _refused(members: list[Member]) -> str:
    with pytest.raises(ValueError, match="nothing was begun") as refused:
        encrypt_keys.plan(members, sevens)
    assert "1111" not in str(refused.value)
    return str(refused.value)


def test_what_stands_in_the_way_is_told_before_anything_is_written() -> None:
    """With the remedy, and without a key."""
    assert "cluster two encrypts by this key, too: name its context" in _refused([member("one")])
    silent = member("one")
    silent.answers, silent.silent = {}, {"n": "no answer"}
    assert "node one/n is away (no answer)" in _refused([silent, member("two")])
    assert "does not encrypt by IPsec" in _refused(mesh(mode="wireguard"))
    assert "has no secret" in _refused(mesh(secret=None))
    assert "one: line 1 of the IPsec key file" in _refused(mesh(secret="3 x\n"))
    other = LINE.replace("11", "22")
    assert "secrets cilium-ipsec-keys differ" in _refused(mesh(secret=other))
    assert "secrets cilium-ipsec-keys differ" in _refused(mesh(secret=other + NEXT))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (answer(2), "node one/n has key 2"),
        (answer(3, two_n=(2, 2)), "sends to two/n with key 2"),
        (answer(3, two_n=(3, 2)), "sends to two/n with key 2"),
        ({"mode": "Disabled"}, "node one/n has not begun with IPsec"),
    ],
)
def test_a_rotation_that_is_under_way_ends_first(found: dict[str, Any], says: str) -> None:
    """Nobody is overtaken: a node that is two keys behind would hear nobody."""
    members = mesh()
    members[0].answers = {"n": found}
    assert says in _refused(members)


def test_it_is_done_when_everybody_sends_with_the_new_key() -> None:
    """Whoever does not encrypt by IPsec at all is not waited for."""
    members = [member("one", key_id=4), member("two", key_id=3)]
    assert [text.split()[1] for text in encrypt_keys.unsettled(members, 4)] == ["two/n"] * 3
    members[1].answers = {"n": answer(4, one_n=(4, 4), three_n=(0, 0))}
    assert list(encrypt_keys.unsettled(members, 4)) == []
    members[1].silent = {"m": "no answer"}
    assert "two/m does not answer" in next(encrypt_keys.unsettled(members, 4))
