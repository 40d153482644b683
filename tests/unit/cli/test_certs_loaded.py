"""What several processes say of their certificates, put together."""

from typing import Any

from certs.profiles import LOCAL_SECRET, REMOTE_SECRET
from certs.rotation import Loaded, Stored
from cli.certs_loaded import combined, through_copies

SECRETS = {
    REMOTE_SECRET: Stored(trust=frozenset({"own", "next", "peer"})),
    LOCAL_SECRET: Stored(trust=frozenset({"own", "next"})),
}


def says(issuer: str, *authorities: str, ready: bool = True) -> dict[str, Any]:
    """One process that reads cluster b."""
    certificate = {"issuer": issuer, "authorities": list(authorities)}
    return {"b": {"ready": ready, "certificate": certificate}}


def test_all_accept_what_each_accepts() -> None:
    """What one has not loaded counts as unknown; whatever one shows may be met."""
    answers = [says("own", "own", "peer"), says("next", "own", "next", "peer")]
    found = combined(answers, ["b"], SECRETS, True)
    assert found == Loaded(frozenset({"own", "peer"}), frozenset({"own", "next"}))


def test_one_that_does_not_say() -> None:
    """Nothing is safe then."""
    good = says("own", "own")
    for bad in ({}, {"b": {"ready": True}}, says("own", "own", ready=False)):
        assert combined([good, bad], ["b"], SECRETS, False) is None
    assert combined(None, ["b"], SECRETS, True) is None


def test_nobody_reads() -> None:
    """Then what is stored is all there is to know."""
    assert combined([], ["b"], SECRETS, True) == Loaded(SECRETS[REMOTE_SECRET].trust, frozenset())


def test_mirror_and_agents_must_both_know_an_authority_of_their_own() -> None:
    """One of another cluster is met by the mirror alone."""
    own = frozenset({"own", "next"})
    mirrors = Loaded(frozenset({"own", "next", "peer"}), frozenset({"own"}))
    agents = Loaded(frozenset({"own"}), frozenset({"former"}))
    found = through_copies(mirrors, agents, own)
    assert found == Loaded(frozenset({"own", "peer"}), frozenset({"own", "former"}))
    knowing = Loaded(own, frozenset())
    assert through_copies(mirrors, knowing, own).trust == mirrors.trust
