"""Money: whole micros of one currency. Exact, or refused; never a float.

Conversion from a provider's amounts belongs to that provider, which brings its own exponents;
this module knows ISO 4217 and the arithmetic.
"""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation

from iso4217 import Currency

from base.outcomes import Refused

#: Micros in one major unit of any currency (a dollar, a yen, a dinar).
MICROS_PER_UNIT = 1_000_000
#: The smallest and the largest amount of one operation, in micros; the database checks the same.
AMOUNT_MICROS_MIN = 1
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
    micros = int(scaled)
    if abs(micros) > AMOUNT_MICROS_MAX:
        raise InvalidAmount(f"{text!r} is out of bounds")
    return micros


def text_from_micros(micros: int, currency: str) -> str:
    """This function will write micros as a decimal text with at least the currency's decimals.

    Nothing is rounded: decimals beyond the currency's own are shown when they are not zero.
    """
    sign = "-" if micros < 0 else ""
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    decimals = f"{rest:06d}".rstrip("0").ljust(exponent_of(currency), "0")
    return f"{sign}{units}.{decimals}" if decimals else f"{sign}{units}"
