"""Converts Stripe's integer amounts to micros and back, exactly or not at all.

ISO 4217's exponents alone would be wrong. Stripe counts Icelandic kronur and Ugandan shillings in
hundredths, and accepts only multiples of 100. It counts the ariary in whole units.
"""

from __future__ import annotations

from typing import NamedTuple

from base.money import InvalidAmount, exponent_of, micros_from_minor, minor_from_micros


class Unit(NamedTuple):
    """A currency's minor unit at Stripe: its decimals, and the step of its amounts."""

    exponent: int
    step: int = 1


_WHOLE_UNITS = Unit(0)
#: The API uses two decimals, which must be 00, to stay compatible with old integrations.
_HUNDREDTHS_OF_WHOLE = Unit(2, 100)
#: The API uses three decimals. The last one must be 0, because card networks use only two.
_THOUSANDTHS_BY_TEN = Unit(3, 10)

#: Every currency that does not have two decimals both at Stripe and in ISO 4217. All other
#: currencies do.
#: HUF and TWD are listed because they have two decimals in charges, refunds and disputes. Stripe
#: wants whole units only in payouts, which Holdfast never makes.
#: Source: docs.stripe.com/currencies (zero-decimal, three-decimal, special cases);
#: support.stripe.com/questions/deprecation-of-fractional-isk-charges-and-refunds.
UNITS: dict[str, Unit] = {
    "BHD": _THOUSANDTHS_BY_TEN,
    "BIF": _WHOLE_UNITS,
    "CLP": _WHOLE_UNITS,
    "DJF": _WHOLE_UNITS,
    "GNF": _WHOLE_UNITS,
    "HUF": Unit(2),
    "ISK": _HUNDREDTHS_OF_WHOLE,
    "JOD": _THOUSANDTHS_BY_TEN,
    "JPY": _WHOLE_UNITS,
    "KMF": _WHOLE_UNITS,
    "KRW": _WHOLE_UNITS,
    "KWD": _THOUSANDTHS_BY_TEN,
    "MGA": _WHOLE_UNITS,
    "OMR": _THOUSANDTHS_BY_TEN,
    "PYG": _WHOLE_UNITS,
    "RWF": _WHOLE_UNITS,
    "TND": _THOUSANDTHS_BY_TEN,
    "TWD": Unit(2),
    "UGX": _HUNDREDTHS_OF_WHOLE,
    "VND": _WHOLE_UNITS,
    "VUV": _WHOLE_UNITS,
    "XAF": _WHOLE_UNITS,
    "XOF": _WHOLE_UNITS,
    "XPF": _WHOLE_UNITS,
}


def unit_of(currency: str) -> Unit:
    """Return a currency's minor unit at Stripe, for a code in upper or lower case.

    Raises: InvalidAmount for a code that is no currency. Also for a currency that is not listed
    here and has other than two decimals in ISO 4217.
    """
    if not isinstance(currency, str):
        raise InvalidAmount("not a known Stripe currency")
    # Stripe writes its codes in lower case.
    code = currency.upper() if currency.islower() else currency
    unit = UNITS.get(code)
    if unit is None:
        if exponent_of(code) != 2:
            raise InvalidAmount(f"{code} is not a known Stripe currency")
        unit = Unit(2)
    return unit


def micros_from_stripe(amount: int, currency: str) -> int:
    """Convert Stripe's integer to micros, exactly.

    Units: 1000 "usd" is 10_000_000, 500 "jpy" 500_000_000, 500 "isk" 5_000_000. The sign is kept.
    Raises: InvalidAmount for a currency that unit_of refuses, a value that is no int, an amount off
    the currency's step, or an amount out of bounds.
    """
    unit = unit_of(currency)
    return micros_from_minor(amount, unit.exponent, unit.step)


def stripe_from_micros(micros: int, currency: str) -> int:
    """Convert micros to Stripe's integer, exactly.

    Raises: InvalidAmount if the micros are finer than Stripe's step, and as micros_from_stripe.
    """
    unit = unit_of(currency)
    return minor_from_micros(micros, unit.exponent, unit.step)
