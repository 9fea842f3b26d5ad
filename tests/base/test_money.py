"""Money: there and back without losing anything, or refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from base.money import (
    AMOUNT_MICROS_MAX,
    InvalidAmount,
    exponent_of,
    micros_from_text,
    text_from_micros,
)

CURRENCIES = {"JPY": 0, "USD": 2, "BHD": 3}


@given(st.sampled_from(sorted(CURRENCIES)), st.integers(-AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX))
def test_micros_there_and_back_are_the_same(currency, micros):
    assert micros_from_text(text_from_micros(micros, currency)) == micros


@pytest.mark.parametrize("exponent", [0, 2, 3, 6])
@given(data=st.data())
def test_a_text_with_as_many_decimals_as_allowed_is_exact(exponent, data):
    bound = 10 ** (9 + exponent)
    minor = data.draw(st.integers(-bound, bound))
    text = f"{Decimal(minor).scaleb(-exponent):f}"
    assert micros_from_text(text, exponent) == minor * 10 ** (6 - exponent)


@pytest.mark.parametrize("exponent", [0, 2, 3, 6])
@given(data=st.data())
def test_a_text_that_is_finer_than_allowed_is_refused_however_fine(exponent, data):
    units = data.draw(st.integers(0, 10**9))
    zeros = data.draw(st.integers(exponent, 20))
    digit = data.draw(st.integers(1, 9))
    with pytest.raises(InvalidAmount):
        micros_from_text(f"{units}.{'0' * zeros}{digit}", exponent)


@given(st.text(alphabet="0123456789.+-eE_ \u0661NaInf,", max_size=40))
@example("9" * 32)
@example("1." + "0" * 29 + "1")
@example("0." + "9" * 30)
def test_whatever_the_text_it_is_exact_or_refused_and_nothing_else(text):
    try:
        micros = micros_from_text(text)
    except InvalidAmount:
        return
    assert Decimal(micros).scaleb(-6).compare(Decimal(text)) == 0
    assert abs(micros) <= AMOUNT_MICROS_MAX


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1 ", "1e3", "0x1", "NaN", "Infinity", "1_000", "1,00"),
        *("--1", "+-1", ".", "-", "1.2.3", "\u0661", "\uff11", "1" * 33, "9" * 32),
        *("0.0000001", "1000000000.000001", "-1000000001"),
    ],
)
def test_what_is_not_a_plain_decimal_within_bounds_is_refused(text):
    with pytest.raises(InvalidAmount) as caught:
        micros_from_text(text)
    assert caught.value.code == "INVALID_AMOUNT"


@pytest.mark.parametrize("value", [1, 1.0, None, b"1", Decimal(1)])
def test_only_text_is_an_amount_never_a_number(value):
    with pytest.raises(InvalidAmount):
        micros_from_text(value)


@pytest.mark.parametrize(
    ("text", "exponent", "micros"),
    [
        ("0", 6, 0),
        ("-0", 2, 0),
        ("12.34", 2, 12_340_000),
        ("12.340", 2, 12_340_000),
        ("+1", 0, 1_000_000),
        ("-0.01", 2, -10_000),
        ("0.0079", 6, 7_900),
        ("1000000000", 0, AMOUNT_MICROS_MAX),
        ("1000000000.000000", 2, AMOUNT_MICROS_MAX),
    ],
)
def test_amounts_as_a_provider_writes_them(text, exponent, micros):
    assert micros_from_text(text, exponent) == micros


@pytest.mark.parametrize(
    ("micros", "currency", "text"),
    [
        (0, "USD", "0.00"),
        (12_340_000, "USD", "12.34"),
        (7_900, "USD", "0.0079"),
        (-1, "USD", "-0.000001"),
        (5_000_000, "JPY", "5"),
        (5_500_000, "JPY", "5.5"),
        (1_000_000, "BHD", "1.000"),
        (-10_000, "USD", "-0.01"),
    ],
)
def test_amounts_as_a_person_reads_them(micros, currency, text):
    assert text_from_micros(micros, currency) == text


@pytest.mark.parametrize(("currency", "exponent"), CURRENCIES.items())
def test_decimals_are_those_of_iso_4217(currency, exponent):
    assert exponent_of(currency) == exponent


@pytest.mark.parametrize("currency", ["", "usd", "XYZ", "840", "XAU"])
def test_a_currency_without_money_is_refused(currency):
    with pytest.raises(InvalidAmount):
        exponent_of(currency)
