"""How long to wait after failures. Pure: chance comes in as a number."""

FIRST_S = 0.05
LAST_S = 30.0
_DOUBLINGS = 16  # more would overflow nothing but say nothing either


def delay_s(failures: int, draw: float) -> float:
    """Seconds to wait after the n-th failure in a row (from 1); ``draw`` is in [0, 1).

    Doubles up to a cap and is spread over its upper half, so that rows that failed together do not
    come back together.
    """
    longest = min(LAST_S, FIRST_S * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS))
    return longest * (0.5 + draw / 2)


def jittered_s(period_s: float, draw: float) -> float:
    """A period spread by a fifth to both sides."""
    return period_s * (0.8 + 0.4 * draw)
