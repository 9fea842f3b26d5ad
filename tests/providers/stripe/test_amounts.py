from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iso4217 import Currency

from base.money import AMOUNT_MICROS_MAX, InvalidAmount
from providers.stripe.amounts import UNITS, micros_from_stripe, stripe_from_micros, unit_of

#: The currencies that Stripe may send: those in its table, and all of ISO 4217 with two decimals.
CURRENCIES = sorted({c.code for c in Currency if c.exponent == 2} | set(UNITS))


@pytest.mark.parametrize(
    ("amount", "currency", "micros"),
    [
        (1000, "usd", 10_000_000),
        (1, "eur", 10_000),
        (-49, "usd", -490_000),
        (0, "usd", 0),
        (500, "jpy", 500_000_000),
        (5120, "kwd", 5_120_000),
        (500, "isk", 5_000_000),
        (500, "ugx", 5_000_000),
        (500, "mga", 500_000_000),
        (1045, "huf", 10_450_000),
        (80045, "twd", 800_450_000),
        (1000, "USD", 10_000_000),
        (10**11, "usd", AMOUNT_MICROS_MAX),
    ],
)
def test_amount_is_exact_both_ways(amount, currency, micros):
    assert micros_from_stripe(amount, currency) == micros
    assert stripe_from_micros(micros, currency) == amount


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (5124, "kwd"),
        (1, "bhd"),
        (4010, "isk"),
        (550, "ugx"),
        (10**11 + 1, "usd"),
        (10.0, "usd"),
        (True, "usd"),
        ("10", "usd"),
        (None, "usd"),
        (1, "Usd"),
        (1, ""),
        (1, None),
        (1, ["usd"]),
        (1, "xyz"),
        (1, "xau"),
        (10, "iqd"),
        (10, "lyd"),
        (1, "clf"),
        (1, "uyi"),
    ],
)
def test_inexact_or_unsupported_amount_is_refused(amount, currency):
    with pytest.raises(InvalidAmount):
        micros_from_stripe(amount, currency)


@pytest.mark.parametrize(
    ("micros", "currency"),
    [
        (7_900, "usd"),
        (1, "eur"),
        (500_000, "jpy"),
        (500_000, "isk"),
        (500_000, "ugx"),
        (5_124_000, "kwd"),
        (AMOUNT_MICROS_MAX + 1, "usd"),
        (1.0, "usd"),
        (True, "usd"),
    ],
)
def test_micros_that_stripe_cannot_take_are_refused(micros, currency):
    with pytest.raises(InvalidAmount):
        stripe_from_micros(micros, currency)


@pytest.mark.parametrize("currency", CURRENCIES)
@settings(max_examples=15)
@given(data=st.data())
def test_every_amount_survives_both_conversions(currency, data):
    unit = unit_of(currency)
    bound = AMOUNT_MICROS_MAX // 10 ** (6 - unit.exponent) // unit.step
    amount = data.draw(st.integers(-bound, bound)) * unit.step
    micros = micros_from_stripe(amount, currency.lower())
    assert micros == amount * 10**6 // 10**unit.exponent
    assert stripe_from_micros(micros, currency) == amount


@given(st.sampled_from(CURRENCIES), st.integers(-AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX))
def test_any_micros_become_exactly_that_amount_or_are_refused(currency, micros):
    try:
        amount = stripe_from_micros(micros, currency)
    except InvalidAmount:
        return
    assert micros_from_stripe(amount, currency) == micros


def test_currencies_of_zero_and_three_decimals_match_stripes_list():
    zero = {code for code, unit in UNITS.items() if unit == (0, 1)}
    three = {code for code, unit in UNITS.items() if unit == (3, 10)}
    whole = {code for code, unit in UNITS.items() if unit == (2, 100)}
    assert zero == {
        *("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA"),
        *("PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"),
    }
    assert three == {"BHD", "JOD", "KWD", "OMR", "TND"}
    assert whole == {"ISK", "UGX"}
    assert UNITS["HUF"] == UNITS["TWD"] == (2, 1)


def test_decimals_differ_from_iso_4217_only_as_documented():
    differing = {code for code, unit in UNITS.items() if Currency(code).exponent != unit.exponent}
    assert differing == {"ISK", "MGA", "UGX"}
