from __future__ import annotations

import pytest

from base.money import InvalidAmount
from providers.paypal.amounts import DECIMALS, micros_from_paypal


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
def test_an_amount_is_exact(value, currency, micros):
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
def test_an_amount_that_is_not_exact_or_not_paypals_is_refused(value, currency):
    with pytest.raises(InvalidAmount):
        micros_from_paypal(value, currency)


def test_forints_and_taiwan_dollars_have_no_decimals_at_paypal():
    assert {code for code, decimals in DECIMALS.items() if decimals == 0} == {"HUF", "JPY", "TWD"}
