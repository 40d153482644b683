"""How old data are, and when they are too old."""

from kvstore.staleness import KEEP, Age


def test_kept_for_ever_by_default() -> None:
    age = Age(KEEP, since_s=100.0)
    age.update(False, 100.0)
    assert age.left_s(1e9) is None
    assert not age.expire(1e9)
    assert age.age_s(400.0) == 300.0


def test_fresh_data_have_no_age() -> None:
    age = Age(60.0, since_s=0.0)
    age.update(True, 1000.0)
    assert age.age_s(5000.0) == 0.0
    assert age.left_s(5000.0) is None


def test_revoked_once_and_back_when_fresh() -> None:
    age = Age(60.0, since_s=0.0)
    age.update(True, 1000.0)
    age.update(False, 1100.0)  # lost
    age.update(False, 1130.0)  # another attempt failed: this does not make them younger
    assert age.left_s(1130.0) == 30.0
    assert not age.expire(1159.0)
    assert age.expire(1160.0)
    assert age.revoked
    assert not age.expire(1170.0)
    assert age.left_s(1170.0) is None
    assert age.age_s(1170.0) == 70.0
    age.update(True, 1200.0)
    assert not age.revoked
    age.update(False, 1300.0)
    assert age.expire(1360.0)


def test_never_heard_since_start_ages_from_the_start() -> None:
    age = Age(60.0, since_s=500.0)
    age.update(False, 501.0)
    assert age.left_s(510.0) == 50.0


def test_a_copy_tells_how_old_it_is() -> None:
    """The agent has just started; the copy it reads was cut off an hour ago."""
    age = Age(600.0, since_s=10_000.0)
    age.update(False, 10_001.0, heard_s=6_400.0)
    assert age.age_s(10_000.0) == 3600.0
    assert age.expire(10_001.0)


def test_a_clock_ahead_of_ours_is_no_future() -> None:
    age = Age(60.0, since_s=0.0)
    age.update(False, 100.0, heard_s=5_000.0)
    assert age.age_s(100.0) == 0.0
