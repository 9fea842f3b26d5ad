"""Money: whole micros of one currency. Exact, or refused; never a float.

Conversion from a provider's amounts belongs to that provider, which brings its own exponents;
this module knows ISO 4217 and the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Self

from iso4217 import Currency

from base.outcomes import Refused

#: Micros in one major unit of any currency (a dollar, a yen, a dinar).
MICROS_PER_UNIT = 1_000_000
#: The largest amount of one operation, in micros; the database checks the same.
AMOUNT_MICROS_MAX = 10**15
#: A decimal text longer than this is not an amount of money.
_TEXT_LENGTH_MAX = 32
#: Digits enough for any such text in micros: the default context of 28 would round the longest.
_EXACT = Context(prec=2 * _TEXT_LENGTH_MAX)


class InvalidAmount(Refused):
    """The text or number is not an amount that can be held exactly within bounds."""

    def __init__(self, detail: str) -> None:
        super().__init__("INVALID_AMOUNT", detail)


def exponent_of(currency: str) -> int:
    """This function will give the number of decimals ISO 4217 sets for a currency.

    Raises: InvalidAmount for a code that is unknown or has no minor unit. Source: ISO 4217.
    """
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        raise InvalidAmount(f"unknown currency {currency!r}") from None
    if exponent is None:
        raise InvalidAmount(f"{currency} has no minor unit")
    return exponent


def micros_from_minor(minor: int, exponent: int, step: int = 1) -> int:
    """This function will turn whole minor units, such as cents, into micros, exactly.

    Units: `exponent` is the decimals of the minor unit (0 to 6); `step` is what the minor units
    must be a multiple of. The sign is kept. Bounds: AMOUNT_MICROS_MAX in size.
    Raises: InvalidAmount when it is no int (a bool and a float are none), is off the step, or is
    out of bounds.
    """
    if type(minor) is not int:
        raise InvalidAmount(f"minor units are an int, not {type(minor).__name__}")
    micros: int = _bounded(minor * 10 ** (6 - exponent))
    if minor % step:
        raise InvalidAmount(f"{minor} minor units are not a multiple of {step}")
    return micros


def minor_from_micros(micros: int, exponent: int, step: int = 1) -> int:
    """This function will turn micros into whole minor units, exactly; else as micros_from_minor.

    Raises: InvalidAmount also when micros are finer than the minor unit.
    """
    if type(micros) is not int:
        raise InvalidAmount(f"micros are an int, not {type(micros).__name__}")
    scale: int = 10 ** (6 - exponent)
    minor, finer = divmod(_bounded(micros), scale)
    if finer:
        raise InvalidAmount(f"{micros} micros have more than {exponent} decimals")
    if minor % step:
        raise InvalidAmount(f"{minor} minor units are not a multiple of {step}")
    return minor


def micros_from_text(text: str, exponent: int = 6) -> int:
    """This function will turn a decimal text such as "12.34" into micros, exactly.

    Units: at most `exponent` decimals that are not zero (0 to 6); the sign is kept, so that a
    provider's negative refund stays visible. Bounds: AMOUNT_MICROS_MAX in size.
    Raises: InvalidAmount when the text is not a plain decimal, is finer than the exponent allows,
    or is out of bounds.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _TEXT_LENGTH_MAX or not text.isascii():
        raise InvalidAmount("not a decimal text")
    body = text[1:] if text[0] in "+-" else text
    if not body.replace(".", "", 1).isdigit():
        raise InvalidAmount(f"{text!r} is not a plain decimal")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidAmount(f"{text!r} is not a plain decimal") from None
    scaled = _EXACT.multiply(value, Decimal(MICROS_PER_UNIT))
    step = Decimal(10 ** (6 - exponent))
    if _EXACT.remainder(scaled, step):
        raise InvalidAmount(f"{text!r} has more than {exponent} decimals")
    return _bounded(int(scaled))


def text_from_micros(micros: int, currency: str) -> str:
    """This function will write micros as a decimal text with at least the currency's decimals.

    Nothing is rounded: decimals beyond the currency's own are shown when they are not zero.
    """
    sign = "-" if micros < 0 else ""
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    decimals = f"{rest:06d}".rstrip("0").ljust(exponent_of(currency), "0")
    return f"{sign}{units}.{decimals}" if decimals else f"{sign}{units}"


@dataclass(frozen=True, slots=True)
class Amount:
    """So many micros of one ISO 4217 currency; it cannot be made from anything inexact.

    Bounds: AMOUNT_MICROS_MAX in size; the sign is kept. A Decimal is taken where it is whole.
    Raises: InvalidAmount for a float, a bool, a Decimal with a fraction, an unknown currency, and
    what is out of bounds.
    """

    micros: int
    currency: str

    def __post_init__(self) -> None:
        exponent_of(self.currency)
        object.__setattr__(self, "micros", _whole(self.micros))

    @classmethod
    def from_text(cls, text: str, currency: str) -> Self:
        """This function will make an amount of a decimal text, as fine as micros are.

        Raises: InvalidAmount as micros_from_text does.
        """
        return cls(micros_from_text(text), currency)

    @classmethod
    def from_minor(cls, minor: int, currency: str) -> Self:
        """This function will make an amount of ISO 4217's minor units; providers' are their own.

        Raises: InvalidAmount as micros_from_minor does.
        """
        return cls(micros_from_minor(minor, exponent_of(currency)), currency)

    @property
    def minor(self) -> int:
        """ISO 4217's minor units. Raises: InvalidAmount when it is finer than those."""
        return minor_from_micros(self.micros, exponent_of(self.currency))

    def __str__(self) -> str:
        return f"{text_from_micros(self.micros, self.currency)} {self.currency}"


def _whole(micros: object) -> int:
    if type(micros) is int:
        return _bounded(micros)
    if isinstance(micros, Decimal) and micros.is_finite():
        # Bounded before it is an int, which a large exponent would make enormous.
        if micros.copy_abs() > AMOUNT_MICROS_MAX:
            raise InvalidAmount("out of bounds")
        if micros == int(micros):
            return int(micros)
    raise InvalidAmount(f"micros are a whole number, not this {type(micros).__name__}")


def _bounded(micros: int) -> int:
    if abs(micros) > AMOUNT_MICROS_MAX:
        raise InvalidAmount("out of bounds")
    return micros
