"""Only the last digits of a phone number are kept."""

from __future__ import annotations

import pytest

from base.masking import last_digits


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+15005550006", "…0006"),
        ("sip:4471@pbx.example", "…4471"),
        ("+1 (500) 555-00 06", "…0006"),
        ("911", "…911"),
        ("alice", None),
        ("", None),
        ("٤٤٧١", None),
        (5005550006, None),
        (None, None),
    ],
)
def test_number_keeps_its_last_four_digits(number, shown):
    assert last_digits(number) == shown
