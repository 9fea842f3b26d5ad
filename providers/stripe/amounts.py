"""Stripe's amounts: integers in Stripe's own minor units and steps, exact or refused.

Never ISO 4217's exponents alone: Stripe counts krónur and Ugandan shillings in hundredths that must
be whole, and the ariary in whole ones.
"""

from __future__ import annotations

from typing import NamedTuple

from base.money import InvalidAmount, exponent_of, micros_from_minor, minor_from_micros


class Unit(NamedTuple):
    """A currency's minor unit at Stripe: its decimals, and what an amount must be a multiple of."""

    exponent: int
    step: int = 1


_WHOLE = Unit(0)
#: Two decimals in the API, which must be 00: kept so for integrations older than the rule.
_HUNDREDTHS_OF_WHOLE = Unit(2, 100)
#: Three decimals in the API, of which the card networks take two.
_THOUSANDTHS_BY_TEN = Unit(3, 10)

#: Every currency that has not two decimals at Stripe or in ISO 4217. Any other has two, in both.
#: HUF and TWD stand here to say that they have two decimals in charges, refunds and disputes: it is
#: payouts alone, which we never make, that Stripe wants in whole ones.
#: Source: docs.stripe.com/currencies (zero-decimal, three-decimal, special cases);
#: support.stripe.com/questions/deprecation-of-fractional-isk-charges-and-refunds.
UNITS: dict[str, Unit] = {
    "BHD": _THOUSANDTHS_BY_TEN,
    "BIF": _WHOLE,
    "CLP": _WHOLE,
    "DJF": _WHOLE,
    "GNF": _WHOLE,
    "HUF": Unit(2),
    "ISK": _HUNDREDTHS_OF_WHOLE,
    "JOD": _THOUSANDTHS_BY_TEN,
    "JPY": _WHOLE,
    "KMF": _WHOLE,
    "KRW": _WHOLE,
    "KWD": _THOUSANDTHS_BY_TEN,
    "MGA": _WHOLE,
    "OMR": _THOUSANDTHS_BY_TEN,
    "PYG": _WHOLE,
    "RWF": _WHOLE,
    "TND": _THOUSANDTHS_BY_TEN,
    "TWD": Unit(2),
    "UGX": _HUNDREDTHS_OF_WHOLE,
    "VND": _WHOLE,
    "VUV": _WHOLE,
    "XAF": _WHOLE,
    "XOF": _WHOLE,
    "XPF": _WHOLE,
}


def unit_of(currency: str) -> Unit:
    """This function will give a currency's minor unit at Stripe; the code in either case.

    Raises: InvalidAmount for a code that is no currency, and for one of other than two decimals of
    which Stripe says nothing.
    """
    if not isinstance(currency, str):
        raise InvalidAmount("not a currency of Stripe's")
    # Stripe writes its codes in lower case.
    code = currency.upper() if currency.islower() else currency
    unit = UNITS.get(code)
    if unit is None:
        if exponent_of(code) != 2:
            raise InvalidAmount(f"{code} is not a currency of Stripe's")
        unit = Unit(2)
    return unit


def micros_from_stripe(amount: int, currency: str) -> int:
    """This function will turn Stripe's integer into micros, exactly.

    Units: 1000 "usd" is 10_000_000, 500 "jpy" 500_000_000, 500 "isk" 5_000_000; the sign is kept.
    Raises: InvalidAmount for a currency that unit_of refuses, for anything but an int, off the
    currency's step, or out of bounds.
    """
    unit = unit_of(currency)
    return micros_from_minor(amount, unit.exponent, unit.step)


def stripe_from_micros(micros: int, currency: str) -> int:
    """This function will turn micros into Stripe's integer, exactly.

    Raises: InvalidAmount when they are finer than Stripe takes, and as micros_from_stripe.
    """
    unit = unit_of(currency)
    return minor_from_micros(micros, unit.exponent, unit.step)
