"""Every instant that RFC 3339 allows is read exactly; everything else is None."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.instants import instant_of

AT = datetime(2026, 5, 4, 11, 0, 30, tzinfo=UTC)
OFFSETS = st.none() | st.integers(-(24 * 60 - 1), 24 * 60 - 1)


def written(at: datetime, decimals: str, letters: str, offset: int | None) -> str:
    """Write an instant in RFC 3339 form.

    `letters` replaces T and Z; `offset` is in minutes.
    """
    t, z = letters
    local = at if offset is None else at.astimezone(timezone(timedelta(minutes=offset)))
    text = f"{local:%Y-%m-%d}{t}{local:%H:%M:%S}{'.' if decimals else ''}{decimals}"
    if offset is None:
        return text + z
    return f"{text}{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"


@given(
    at=st.datetimes(
        datetime(1000, 1, 2),  # noqa: DTZ001  # hypothesis adds the zone
        datetime(9999, 12, 30),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    decimals=st.text("0123456789", max_size=80),
    letters=st.sampled_from(["TZ", "tz", "Tz", "tZ"]),
    offset=OFFSETS,
)
def test_instant_is_read_to_the_microsecond(at, decimals, letters, offset):
    expected = at.replace(microsecond=int(decimals[:6].ljust(6, "0")))
    assert instant_of(written(at, decimals, letters, offset)) == expected


@given(st.text(max_size=40) | st.none() | st.integers() | st.lists(st.text(max_size=3)))
def test_instant_never_raises_when_the_text_is_invalid(value):
    assert instant_of(value) is None


@given(st.from_regex(r"\A\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z"))
def test_instant_never_raises_on_impossible_figures(text):
    found = instant_of(text)
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-04t11:00:30z", AT),
        ("2026-05-04T11:00:30.1234567891234567Z", AT + timedelta(microseconds=123_456)),
        ("2026-05-04T11:00:30.0000009Z", AT),
        ("2026-05-04T11:00:60Z", AT + timedelta(seconds=30)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T15:59:60.5-08:00", datetime(2017, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_instant_reads_what_the_schema_allows(text, expected):
    assert instant_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-04T11:00:61Z",
        "2026-13-04T11:00:00Z",
        "2026-05-04T24:00:00Z",
        "2026-05-04T11:60:00Z",
        "2026-05-04 11:00:00Z",
        "2026-05-04T11:00:00",
        "2026-05-04T11:00:00.Z",
        "2026-05-04T11:00:00+24:00",
        "2026-05-04T11:00:00+01:60",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:60Z",
        "٢٠٢٦-05-04T11:00:00Z",
        "2026-05-04T11:00:00Z\n",
    ],
)
def test_instant_is_none_where_the_figures_are_impossible(text):
    assert instant_of(text) is None
