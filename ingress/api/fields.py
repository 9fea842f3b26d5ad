"""Takes a request's fields by name, type and bounds, and refuses unknown fields.

Numbers are parsed as Decimal, never as float, so that no digit is lost.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from base.problems.requests import MALFORMED_REQUEST
from ingress.http.responses import HttpRefusal

#: A number in a query, where every value is text. A JSON body has real numbers.
_NUMBER_AS_TEXT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
#: Earliest year of a day that a request may name.
_FIRST_YEAR = 2000


class Fields:
    """The fields not taken yet. With `is_text`, every value is text, as in a query."""

    def __init__(self, given: dict[str, Any], *, is_text: bool = False) -> None:
        self._given = dict(given)
        self._is_text = is_text

    def text(self, name: str, *, length_max: int = 64) -> str:
        """Take a required text. Raises: HttpRefusal 400."""
        value = self.optional_text(name, length_max=length_max)
        if value is None:
            raise _bad(name, "is missing")
        return value

    def optional_text(self, name: str, *, length_max: int = 64) -> str | None:
        """Take an optional text. Raises: HttpRefusal 400."""
        value = self._given.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= length_max:
            raise _bad(name, f"must be a text of 1 to {length_max} characters")
        if not value.isprintable() or value != value.strip():
            raise _bad(name, "must not start or end with a blank, or have control characters")
        return value

    def number(
        self, name: str, *, lowest: int, highest: int, default: int | None = None
    ) -> Decimal:
        """Take a number within bounds, both inclusive. Raises: HttpRefusal 400."""
        value = self._given.pop(name, default)
        if value is None:
            raise _bad(name, "is missing")
        if self._is_text and isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value):
            value = Decimal(value)
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise _bad(name, "must be a number")
        number = Decimal(value)
        if not number.is_finite() or not lowest <= number <= highest:
            raise _bad(name, f"must be from {lowest} to {highest}")
        return number

    def whole(self, name: str, *, lowest: int, highest: int, default: int | None = None) -> int:
        """Take a whole number within bounds, both inclusive. Raises: HttpRefusal 400."""
        number = self.number(name, lowest=lowest, highest=highest, default=default)
        if number != number.to_integral_value():
            raise _bad(name, "must be a whole number")
        return int(number)

    def day(self, name: str) -> date | None:
        """Take a day, such as 2026-05-04; None if it is absent. Raises: HttpRefusal 400."""
        value = self._given.pop(name, None)
        if value is None:
            return None
        try:
            day = date.fromisoformat(str(value))
        except ValueError:
            raise _bad(name, "must be a day, such as 2026-05-04") from None
        if day.year < _FIRST_YEAR:
            raise _bad(name, f"must be a day from {_FIRST_YEAR}-01-01 on")
        return day

    def nothing_else(self) -> None:
        """Refuse fields that were not taken. Raises: HttpRefusal 400."""
        if self._given:
            raise _bad(sorted(self._given)[0][:64], "is not known here")


def milliseconds_of(seconds: Decimal) -> int:
    """Convert seconds to whole milliseconds, half a millisecond rounded up."""
    return int((seconds * 1000).to_integral_value(ROUND_HALF_UP))


def _bad(name: str, why: str) -> HttpRefusal:
    return HttpRefusal(MALFORMED_REQUEST, f"{name} {why}.")
