"""The table of a connection, all of it."""

import random

import pytest

from kvstore.connection import TABLE, Action, Happening, State

UP = {State.SILENT, State.CONNECTED, State.CONFIGURED, State.READY}
ALIVE = set(State) - {State.REMOVED}
CLOSING = {Action.RETRY, Action.RETRY_NOW, Action.KEEP}


def test_every_pair_has_an_answer() -> None:
    assert set(TABLE) == {(s, h) for s in State for h in Happening}


@pytest.mark.parametrize(("state", "happening"), TABLE, ids=lambda found: found.name)
def test_rules_of_every_pair(state: State, happening: Happening) -> None:
    """What may never be otherwise, asked of each cell."""
    then, action = TABLE[state, happening]
    # Data go in three cases only, and never because a connection was lost.
    if action is Action.WITHDRAW:
        assert happening in (Happening.REMOVED, Happening.NUMBER_CHANGED)
    if action is Action.REVOKE:
        assert happening is Happening.AGED
        assert then is state
    # What closes leads to where an attempt starts; nothing else leads there.
    assert (action in CLOSING and then is State.DISCONNECTED) == (
        action in CLOSING or (then is State.DISCONNECTED and then is not state)
    )
    # Readiness has one door, and so has each step before it.
    if then is not state and then in UP | {State.CONNECTING}:
        assert (state, happening) in {
            (State.DISCONNECTED, Happening.START),
            (State.CONNECTING, Happening.ANSWERED),
            (State.CONNECTED, Happening.MUTE),
            (State.SILENT, Happening.BEAT),
            (State.CONNECTED, Happening.CONFIG_ACCEPTED),
            (State.CONFIGURED, Happening.ALL_LISTED),
        }
    # The end is the end.
    if state is State.REMOVED:
        assert (then, action) == (State.REMOVED, Action.NOTHING)
    if happening is Happening.REMOVED and state in ALIVE:
        assert (then, action) == (State.REMOVED, Action.WITHDRAW)
    # Every standing connection can be lost in every way, and is tried again.
    if state in UP and happening in (Happening.LOST, Happening.OTHER_STORE, Happening.SILENCE):
        assert (then, action) == (State.DISCONNECTED, Action.RETRY)
    # Somebody's hand is acted on at once.
    if state in ALIVE and happening is Happening.EDITED:
        assert (then, action) == (State.DISCONNECTED, Action.RETRY_NOW)
    # Types are listed or repaired only where they are followed.
    if action in (Action.LIST, Action.REPAIR, Action.FOLLOW):
        assert then in (State.CONFIGURED, State.READY)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_readiness_can_be_reached_again(seed: int) -> None:
    """From wherever chance has led, short of removal, the ordinary course leads to READY."""
    rng = random.Random(seed)
    state = State.DISCONNECTED
    for _ in range(200):
        happening = rng.choice([h for h in Happening if h is not Happening.REMOVED])
        state = TABLE[state, happening][0]
    assert state in ALIVE
    for happening in (
        Happening.LOST,
        Happening.START,
        Happening.ANSWERED,
        Happening.CONFIG_ACCEPTED,
        Happening.ALL_LISTED,
    ):
        state = TABLE[state, happening][0]
    assert state is State.READY
