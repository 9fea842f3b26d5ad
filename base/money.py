"""Money: whole micros of one currency. Inexact amounts and floats are refused.

This module contains ISO 4217's exponents and the arithmetic. Amounts of a provider are converted
by that provider's package, with the provider's own exponents.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Self

from iso4217 import Currency

from base.outcomes import Refused
from base.problems.wallet import INVALID_AMOUNT

#: Micros in one major unit of any currency (a dollar, a yen, a dinar).
MICROS_PER_UNIT = 1_000_000
#: The largest amount of one operation, in micros. The database enforces the same limit.
AMOUNT_MICROS_MAX = 10**15
#: A decimal text longer than this is not an amount of money.
_TEXT_LENGTH_MAX = 32
#: Decimal arithmetic with enough digits for any accepted text in micros. The default of 28 digits
#: would round the longest texts.
_EXACT_CONTEXT = Context(prec=2 * _TEXT_LENGTH_MAX)


class InvalidAmount(Refused):
    """The text or number is not an exact amount of micros within the bounds."""

    def __init__(self, detail: str) -> None:
        super().__init__(INVALID_AMOUNT, detail)


def exponent_of(currency: str) -> int:
    """Return the number of decimals that ISO 4217 defines for a currency.

    Raises: InvalidAmount if the code is unknown or has no minor unit. Source: ISO 4217.
    """
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        raise InvalidAmount(f"unknown currency {currency!r}") from None
    if exponent is None:
        raise InvalidAmount(f"{currency} has no minor unit")
    return exponent


def micros_from_minor(minor: int, exponent: int, step: int = 1) -> int:
    """Convert whole minor units, such as cents, to micros exactly.

    `exponent` is the number of decimals of the minor unit (0 to 6). `minor` must be a multiple of
    `step`. The sign is kept. Bounds: plus or minus AMOUNT_MICROS_MAX.
    Raises: InvalidAmount if `minor` is not an int (a bool is refused too), is not a multiple of
    `step`, or is out of bounds.
    """
    if type(minor) is not int:
        raise InvalidAmount(f"minor units are an int, not {type(minor).__name__}")
    micros: int = _check_bounds(minor * 10 ** (6 - exponent))
    if minor % step:
        raise InvalidAmount(f"{minor} minor units are not a multiple of {step}")
    return micros


def minor_from_micros(micros: int, exponent: int, step: int = 1) -> int:
    """Convert micros to whole minor units exactly.

    Units and bounds are those of `micros_from_minor`. Raises: InvalidAmount for the same reasons,
    or if the micros are finer than the minor unit.
    """
    if type(micros) is not int:
        raise InvalidAmount(f"micros are an int, not {type(micros).__name__}")
    scale: int = 10 ** (6 - exponent)
    minor, remainder = divmod(_check_bounds(micros), scale)
    if remainder:
        raise InvalidAmount(f"{micros} micros have more than {exponent} decimals")
    if minor % step:
        raise InvalidAmount(f"{minor} minor units are not a multiple of {step}")
    return minor


def micros_from_text(text: str, exponent: int = 6) -> int:
    """Convert a decimal text such as "12.34" to micros exactly.

    The text may have at most `exponent` decimals (0 to 6), not counting zeros after them. The sign
    is kept, so that a provider's negative refund stays visible. Bounds: plus or minus
    AMOUNT_MICROS_MAX. Raises: InvalidAmount if the text is not a plain decimal, has too many
    decimals, or is out of bounds.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _TEXT_LENGTH_MAX or not text.isascii():
        raise InvalidAmount("not a decimal text")
    digits = text[1:] if text[0] in "+-" else text
    if not digits.replace(".", "", 1).isdigit():
        raise InvalidAmount(f"{text!r} is not a plain decimal")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidAmount(f"{text!r} is not a plain decimal") from None
    scaled = _EXACT_CONTEXT.multiply(value, Decimal(MICROS_PER_UNIT))
    step = Decimal(10 ** (6 - exponent))
    if _EXACT_CONTEXT.remainder(scaled, step):
        raise InvalidAmount(f"{text!r} has more than {exponent} decimals")
    return _check_bounds(int(scaled))


def text_from_micros(micros: int, currency: str) -> str:
    """Format micros as a decimal text with at least the currency's decimals.

    Nothing is rounded. Decimals beyond the currency's own are shown if they are not zero.
    """
    sign = "-" if micros < 0 else ""
    units, fraction = divmod(abs(micros), MICROS_PER_UNIT)
    decimals = f"{fraction:06d}".rstrip("0").ljust(exponent_of(currency), "0")
    return f"{sign}{units}.{decimals}" if decimals else f"{sign}{units}"


@dataclass(frozen=True, slots=True)
class Amount:
    """An exact amount in micros of one ISO 4217 currency.

    Bounds: plus or minus AMOUNT_MICROS_MAX. The sign is kept. A whole Decimal is accepted.
    Raises: InvalidAmount for a float, a bool, a Decimal with a fraction, an unknown currency, or
    an amount out of bounds.
    """

    micros: int
    currency: str

    def __post_init__(self) -> None:
        exponent_of(self.currency)
        object.__setattr__(self, "micros", _whole_micros(self.micros))

    @classmethod
    def from_text(cls, text: str, currency: str) -> Self:
        """Make an amount from a decimal text of at most six decimals.

        Raises: InvalidAmount, as `micros_from_text` does.
        """
        return cls(micros_from_text(text), currency)

    def __str__(self) -> str:
        return f"{text_from_micros(self.micros, self.currency)} {self.currency}"


def _whole_micros(micros: object) -> int:
    if type(micros) is int:
        return _check_bounds(micros)
    if isinstance(micros, Decimal) and micros.is_finite():
        # The bound is checked before the conversion, because a large exponent would make an
        # enormous int.
        if micros.copy_abs() > AMOUNT_MICROS_MAX:
            raise InvalidAmount("out of bounds")
        if micros == int(micros):
            return int(micros)
    raise InvalidAmount(f"micros are a whole number, not this {type(micros).__name__}")


def _check_bounds(micros: int) -> int:
    """Return the micros unchanged. Raises: InvalidAmount if they are out of bounds."""
    if abs(micros) > AMOUNT_MICROS_MAX:
        raise InvalidAmount("out of bounds")
    return micros
