"""Money: conversions lose nothing, or are refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from iso4217 import Currency

from base.money import (
    AMOUNT_MICROS_MAX,
    Amount,
    InvalidAmount,
    exponent_of,
    micros_from_minor,
    micros_from_text,
    minor_from_micros,
    text_from_micros,
)

CURRENCIES = {"JPY": 0, "USD": 2, "BHD": 3}


@given(st.sampled_from(sorted(CURRENCIES)), st.integers(-AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX))
def test_micros_survive_both_conversions(currency, micros):
    assert micros_from_text(text_from_micros(micros, currency)) == micros


@pytest.mark.parametrize("exponent", [0, 2, 3, 6])
@given(data=st.data())
def test_text_with_as_many_decimals_as_allowed_is_exact(exponent, data):
    bound = 10 ** (9 + exponent)
    minor = data.draw(st.integers(-bound, bound))
    text = f"{Decimal(minor).scaleb(-exponent):f}"
    assert micros_from_text(text, exponent) == minor * 10 ** (6 - exponent)


@pytest.mark.parametrize("exponent", [0, 2, 3, 6])
@given(data=st.data())
def test_text_with_too_many_decimals_is_refused(exponent, data):
    units = data.draw(st.integers(0, 10**9))
    zeros = data.draw(st.integers(exponent, 20))
    digit = data.draw(st.integers(1, 9))
    with pytest.raises(InvalidAmount):
        micros_from_text(f"{units}.{'0' * zeros}{digit}", exponent)


@given(st.text(alphabet="0123456789.+-eE_ \u0661NaInf,", max_size=40))
@example("9" * 32)
@example("1." + "0" * 29 + "1")
@example("0." + "9" * 30)
def test_any_text_is_exact_or_refused(text):
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
def test_text_that_is_no_plain_decimal_within_bounds_is_refused(text):
    with pytest.raises(InvalidAmount) as caught:
        micros_from_text(text)
    assert caught.value.code == "INVALID_AMOUNT"


@pytest.mark.parametrize("value", [1, 1.0, None, b"1", Decimal(1)])
def test_amount_is_parsed_from_text_only(value):
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
def test_amount_is_formatted_for_a_provider(text, exponent, micros):
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
def test_amount_is_formatted_for_a_person(micros, currency, text):
    assert text_from_micros(micros, currency) == text


@pytest.mark.parametrize(("currency", "exponent"), CURRENCIES.items())
def test_decimals_are_those_of_iso_4217(currency, exponent):
    assert exponent_of(currency) == exponent


@pytest.mark.parametrize("currency", ["", "usd", "XYZ", "840", "XAU"])
def test_unusable_currency_is_refused(currency):
    with pytest.raises(InvalidAmount):
        exponent_of(currency)


ISO = {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}


def test_iso_4217_has_currencies_of_0_2_3_and_4_decimals():
    assert set(ISO.values()) == {0, 2, 3, 4}
    assert len(ISO) > 150


@pytest.mark.parametrize(("currency", "exponent"), ISO.items())
@settings(max_examples=15)
@given(data=st.data())
def test_minor_units_of_every_currency_survive_both_conversions(currency, exponent, data):
    bound = AMOUNT_MICROS_MAX // 10 ** (6 - exponent)
    minor = data.draw(st.integers(-bound, bound))
    amount = Amount(micros_from_minor(minor, exponent), currency)
    assert minor_from_micros(amount.micros, exponent) == minor
    assert amount.micros * 10**exponent == minor * 10**6
    assert Amount.from_text(text_from_micros(amount.micros, currency), currency) == amount


@pytest.mark.parametrize("exponent", [0, 2, 3])
@given(data=st.data())
def test_minor_units_become_micros_exactly_and_finer_micros_are_refused(exponent, data):
    minor = data.draw(st.integers(-(10**9), 10**9))
    micros = micros_from_minor(minor, exponent)
    assert Decimal(micros).scaleb(-6) == Decimal(minor).scaleb(-exponent)
    assert minor_from_micros(micros, exponent) == minor
    finer = data.draw(st.integers(1, 10 ** (6 - exponent) - 1))
    with pytest.raises(InvalidAmount):
        minor_from_micros(micros + finer, exponent)


@given(st.integers(-(10**6), 10**6), st.sampled_from([1, 10, 100]))
def test_minor_units_off_the_step_are_refused_both_ways(minor, step):
    if minor % step == 0:
        assert minor_from_micros(micros_from_minor(minor, 2, step), 2, step) == minor
        return
    with pytest.raises(InvalidAmount):
        micros_from_minor(minor, 2, step)
    with pytest.raises(InvalidAmount):
        minor_from_micros(micros_from_minor(minor, 2), 2, step)


@pytest.mark.parametrize(
    "value",
    [
        *(1.0, 0.5, float("nan"), float("inf"), True, False, None, "1", b"1", 1 + 0j, Fraction(1)),
        *(Decimal("0.5"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")),
        *(Decimal("1e999999"), Decimal("1e-999999"), Decimal("1e99999999999")),
        *(AMOUNT_MICROS_MAX + 1, -AMOUNT_MICROS_MAX - 1, Decimal(AMOUNT_MICROS_MAX) + 1),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_amount_is_never_made_from_an_inexact_or_unbounded_value(value):
    with pytest.raises(InvalidAmount):
        Amount(value, "USD")


@pytest.mark.parametrize("value", [1.0, True, None, "1", Decimal(1), 10**16])
def test_minor_units_are_an_int_within_bounds(value):
    with pytest.raises(InvalidAmount):
        micros_from_minor(value, 2)
    with pytest.raises(InvalidAmount):
        minor_from_micros(value, 2)


def test_number_too_long_to_print_is_out_of_bounds():
    number = 10**10_000 + 1
    for make in (lambda: Amount(number, "USD"), lambda: micros_from_minor(number, 2)):
        with pytest.raises(InvalidAmount, match="out of bounds"):
            make()
    with pytest.raises(InvalidAmount, match="out of bounds"):
        minor_from_micros(number, 2, 100)


@given(st.floats())
def test_no_float_is_an_amount(value):
    with pytest.raises(InvalidAmount):
        Amount(value, "USD")


@given(st.decimals())
def test_decimal_of_whole_micros_within_bounds_is_an_amount(value):
    whole = value.is_finite() and value.copy_abs() <= AMOUNT_MICROS_MAX and value % 1 == 0
    try:
        amount = Amount(value, "USD")
    except InvalidAmount:
        assert not whole
        return
    assert whole
    assert type(amount.micros) is int
    assert amount.micros == value


@pytest.mark.parametrize("currency", ["usd", "XYZ", "", "XAU", None, 840, []])
def test_amount_has_a_currency(currency):
    with pytest.raises(InvalidAmount):
        Amount(1, currency)


def test_amount_is_immutable():
    amount = Amount.from_text("0.0079", "USD")
    assert amount == Amount(7_900, "USD")
    assert amount != Amount(7_900, "EUR")
    assert str(amount) == "0.0079 USD"
    with pytest.raises(FrozenInstanceError):
        amount.micros = 1
