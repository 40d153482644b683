"""The life of a connection to a remote cluster: states × happenings → state, action. Pure.

Whoever holds the connection reports what happened and does what the table answers. Nothing learnt
is taken back but by ``WITHDRAW`` (the cluster is no member any more, or is another one) and
``REVOKE`` (its data are older than they may be).
"""

from enum import Enum
from types import MappingProxyType


class State(Enum):
    """Where a session stands."""

    DISCONNECTED = "disconnected"  # the next attempt has its time
    CONNECTING = "connecting"
    SILENT = "silent"  # connected; the cluster's writer does not beat, nothing is read
    CONNECTED = "connected"  # it beats; its announcement is awaited
    CONFIGURED = "configured"  # the announcement was accepted; types are being listed
    READY = "ready"  # all required types are listed and followed
    REMOVED = "removed"  # no member any more; the end


class Happening(Enum):
    """What moves a session. The value is what people read."""

    START = "attempt"
    ANSWERED = "heartbeat listed"
    MUTE = "no beat since the last silence"
    BEAT = "heartbeat"
    CONFIG_ACCEPTED = "configuration accepted"
    CONFIG_REFUSED = "configuration refused"
    CONFIG_CHANGED = "configuration changed"
    NUMBER_CHANGED = "cluster ID changed"
    ALL_LISTED = "all types listed"
    DISORDER = "events told twice or out of order"
    COMPACTED = "history compacted"
    DIFFERENT = "compare found differences"
    ASTRAY = "compare found too many differences"
    ROOM = "room for rows again"
    RETURNED = "copy is followed again"
    SILENCE = "heartbeat lost"
    LOST = "connection lost"
    OTHER_STORE = "etcd cluster ID changed"
    AGED = "data too old"
    MENDED = "certificates changed"
    EDITED = "configuration file changed"
    REMOVED = "configuration file removed"
    STOPPED = "stopped"


class Action(Enum):
    """What follows."""

    NOTHING = "nothing"
    CONNECT = "connect"
    READ_CONFIG = "read the announcement"
    AWAIT_BEAT = "wait for a heartbeat"
    FOLLOW = "list and watch every type"
    LIST = "list the type again"
    REPAIR = "take over what was missed"
    RETRY = "close, keep all data, try again after a while"
    RETRY_NOW = "close, keep all data, try again at once"
    WITHDRAW = "take back everything learnt"
    REVOKE = "take back what new connections would be sent to"
    KEEP = "close, keep all data"


Row = dict[State, tuple[State, Action]]
_D, _C, _S, _A, _F, _R, _X = State
_UP = (_S, _A, _F, _R)
_ALIVE = (_D, _C, *_UP)


def _to(state: State, action: Action, *froms: State) -> Row:
    return dict.fromkeys(froms, (state, action))


def _stay(action: Action, *states: State) -> Row:
    return {state: (state, action) for state in states}


_ROWS: dict[Happening, Row] = {
    Happening.START: _to(_C, Action.CONNECT, _D),
    Happening.ANSWERED: _to(_A, Action.READ_CONFIG, _C),
    Happening.MUTE: _to(_S, Action.AWAIT_BEAT, _A),
    Happening.BEAT: _to(_A, Action.READ_CONFIG, _S),
    Happening.CONFIG_ACCEPTED: _to(_F, Action.FOLLOW, _A),
    Happening.CONFIG_REFUSED: _to(_D, Action.RETRY, _A),
    Happening.CONFIG_CHANGED: _to(_D, Action.RETRY, _F, _R),
    Happening.NUMBER_CHANGED: _stay(Action.WITHDRAW, _A),
    Happening.ALL_LISTED: _to(_R, Action.NOTHING, _F),
    **dict.fromkeys(
        (Happening.DISORDER, Happening.COMPACTED, Happening.ROOM), _stay(Action.LIST, _F, _R)
    ),
    Happening.DIFFERENT: _stay(Action.REPAIR, _F, _R),
    **dict.fromkeys((Happening.ASTRAY, Happening.RETURNED), _to(_D, Action.RETRY_NOW, _F, _R)),
    Happening.SILENCE: _to(_D, Action.RETRY, *_UP),
    Happening.LOST: _to(_D, Action.RETRY, _C, *_UP),
    Happening.OTHER_STORE: _to(_D, Action.RETRY, _C, *_UP),
    # Not while types are being listed: what is taken back could not be told from what is new.
    # READY, because a copy can be complete and its cluster be cut off from it.
    Happening.AGED: _stay(Action.REVOKE, _D, _C, _S, _A, _R),
    Happening.MENDED: _stay(Action.RETRY_NOW, _D),
    Happening.EDITED: _to(_D, Action.RETRY_NOW, *_ALIVE),
    Happening.REMOVED: _to(_X, Action.WITHDRAW, *_ALIVE),
    Happening.STOPPED: _to(_D, Action.KEEP, *_ALIVE),
}

TABLE = MappingProxyType(
    {
        (state, happening): _ROWS[happening].get(state, (state, Action.NOTHING))
        for state in State
        for happening in Happening
    }
)
