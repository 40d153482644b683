"""Delays between attempts."""

from kvstore.backoff import Backoff


def test_delays_double_to_the_cap() -> None:
    backoff = Backoff(0.2, 10.0, 30.0)
    delays = [backoff.next_s(0.0, 0.5) for _ in range(9)]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == 10.0


def test_a_flapping_link_is_a_failing_one() -> None:
    """Only a connection that stood for a while has worked."""
    backoff = Backoff(0.2, 10.0, 30.0)
    assert [backoff.next_s(5.0, 0.5) for _ in range(3)] == [0.2, 0.4, 0.8]
    assert backoff.next_s(31.0, 0.5) == 0.2


def test_thousands_do_not_come_at_once() -> None:
    """After the same loss the attempts spread over as long as the delay itself."""
    delays = []
    for index in range(1000):
        backoff = Backoff(0.2, 10.0, 30.0, failures=6)
        delays.append(backoff.next_s(0.0, index / 1000))
    assert min(delays) == 5.0
    assert max(delays) > 14.9


def test_what_was_mended_is_tried_soon() -> None:
    backoff = Backoff()
    for _ in range(20):
        backoff.next_s(0.0, 0.5)
    backoff.reset()
    assert backoff.next_s(0.0, 0.5) < 1
