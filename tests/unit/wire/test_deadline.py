"""A request that nobody waits for any more."""

import pytest

from wire import deadline


def test_as_written() -> None:
    """Without one, somebody waits."""
    (text,) = deadline.header(1000.25).values()
    assert not deadline.is_past(text, 1000.2)
    assert deadline.is_past(text, 1000.3)
    assert not deadline.is_past(None, 1000.3)


def test_another_text_is_refused() -> None:
    """Named with what it says."""
    with pytest.raises(ValueError, match="Isthmus-Deadline: 'soon' is no time in Unix seconds"):
        deadline.is_past("soon", 1.0)
