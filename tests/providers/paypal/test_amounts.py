from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iso4217 import Currency

from base.money import AMOUNT_MICROS_MAX, InvalidAmount
from providers.paypal.amounts import DECIMALS, micros_from_paypal, paypal_from_micros


@pytest.mark.parametrize(
    ("value", "currency", "micros"),
    [
        ("10.00", "USD", 10_000_000),
        ("0.01", "EUR", 10_000),
        ("-0.49", "USD", -490_000),
        ("500", "JPY", 500_000_000),
        ("500.00", "JPY", 500_000_000),
        ("1200", "HUF", 1_200_000_000),
        ("1000000000.00", "USD", 10**15),
    ],
)
def test_amount_is_exact(value, currency, micros):
    assert micros_from_paypal(value, currency) == micros


@pytest.mark.parametrize(
    ("value", "currency"),
    [
        ("0.50", "HUF"),
        ("0.50", "TWD"),
        ("0.5", "JPY"),
        ("0.001", "USD"),
        ("1000000000.01", "USD"),
        ("1e3", "USD"),
        ("NaN", "USD"),
        (" 1.00", "USD"),
        ("1,00", "USD"),
        ("", "USD"),
        (10.0, "USD"),
        (None, "USD"),
        ("1.000", "KWD"),
        ("1", "ISK"),
        ("1.00", "usd"),
        ("1.00", None),
        ("1.00", ["USD"]),
    ],
)
def test_inexact_or_unsupported_amount_is_refused(value, currency):
    with pytest.raises(InvalidAmount):
        micros_from_paypal(value, currency)


def test_forints_and_taiwan_dollars_have_no_decimals_at_paypal():
    assert {code for code, decimals in DECIMALS.items() if decimals == 0} == {"HUF", "JPY", "TWD"}


@pytest.mark.parametrize("currency", DECIMALS)
@settings(max_examples=25)
@given(data=st.data())
def test_every_amount_survives_both_conversions(currency, data):
    bound = AMOUNT_MICROS_MAX // 10 ** (6 - DECIMALS[currency])
    micros = data.draw(st.integers(-bound, bound)) * 10 ** (6 - DECIMALS[currency])
    text = paypal_from_micros(micros, currency)
    assert len(text.partition(".")[2]) == DECIMALS[currency]
    assert micros_from_paypal(text, currency) == micros


@pytest.mark.parametrize(
    ("micros", "currency", "text"),
    [(5_000_000, "USD", "5.00"), (-10_000, "EUR", "-0.01"), (500_000_000, "JPY", "500")],
)
def test_micros_are_written_as_paypal_writes_them(micros, currency, text):
    assert paypal_from_micros(micros, currency) == text


@pytest.mark.parametrize(
    ("micros", "currency"),
    [(7_900, "USD"), (500_000, "HUF"), (1_000_000, "ISK"), (1.0, "USD"), (10**16, "USD")],
)
def test_micros_that_paypal_cannot_take_are_refused(micros, currency):
    with pytest.raises(InvalidAmount):
        paypal_from_micros(micros, currency)


def test_decimals_differ_from_iso_4217_only_as_documented():
    differing = {code for code, decimals in DECIMALS.items() if Currency(code).exponent != decimals}
    assert differing == {"HUF", "TWD"}
