"""When changes are awaited together."""

from kvstore import shared_watch


def test_what_is_fast() -> None:
    """Twelve messages in a tenth of a second; then what has gathered tells."""
    pace = shared_watch.Pace()
    assert not any(pace.is_fast(1, n * 0.05) for n in range(40))
    answers = [pace.is_fast(1, 10 + n * 0.005) for n in range(40)]
    first = answers.index(True)
    assert not any(answers[:first])
    pace = shared_watch.Pace()
    while not pace.is_fast(1, 10.0):
        pass
    assert pace.is_fast(30, 11.0)
    assert pace.is_fast(30, 11.1)
    assert not pace.is_fast(3, 11.2)
    assert not pace.is_fast(1, 11.3)


def test_what_comes_just_behind_a_gathering() -> None:
    """It is the first of the next gathering, and no sign of quiet."""
    pace = shared_watch.Pace()
    while not pace.is_fast(1, 10.0):
        pass
    for n in range(1, 5):
        assert pace.is_fast(30, 10.0 + n * 0.11)
        assert pace.is_fast(1, 10.005 + n * 0.11)
    assert pace.is_fast(10, 10.55)  # eleven, with the one before
    assert not pace.is_fast(9, 10.66)
