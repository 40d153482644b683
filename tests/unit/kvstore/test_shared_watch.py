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
