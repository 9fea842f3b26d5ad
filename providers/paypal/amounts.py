"""Converts PayPal's decimal amounts to micros and back, exactly or not at all.

ISO 4217's exponents would be wrong: PayPal accepts forints and Taiwan dollars only without
decimals.
"""

from __future__ import annotations

from base.money import InvalidAmount, micros_from_text, minor_from_micros

#: The decimals of every currency that PayPal supports. HUF and TWD have two in ISO 4217, but none
#: at PayPal.
#: Source: developer.paypal.com/api/rest/reference/currency-codes (RUB from its earlier edition).
DECIMALS: dict[str, int] = {
    "AUD": 2,
    "BRL": 2,
    "CAD": 2,
    "CHF": 2,
    "CNY": 2,
    "CZK": 2,
    "DKK": 2,
    "EUR": 2,
    "GBP": 2,
    "HKD": 2,
    "HUF": 0,
    "ILS": 2,
    "INR": 2,
    "JPY": 0,
    "MXN": 2,
    "MYR": 2,
    "NOK": 2,
    "NZD": 2,
    "PHP": 2,
    "PLN": 2,
    "RUB": 2,
    "SEK": 2,
    "SGD": 2,
    "THB": 2,
    "TWD": 0,
    "USD": 2,
}


def micros_from_paypal(value: str, currency: str) -> int:
    """Convert PayPal's decimal text to micros, exactly.

    Units: "5.00" is 5_000_000 in any currency, and "500.00" yen are 500 yen. The sign is kept.
    Raises: InvalidAmount for a currency that PayPal does not support, a text that is no plain
    decimal, or decimals that the currency does not have.
    """
    return micros_from_text(value, _decimals_of(currency))


def paypal_from_micros(micros: int, currency: str) -> str:
    """Convert micros to PayPal's decimal text, exactly.

    Raises: InvalidAmount if the amount has more decimals than PayPal allows for the currency, or if
    PayPal does not support the currency.
    """
    decimals = _decimals_of(currency)
    minor_units = minor_from_micros(micros, decimals)
    units, fraction = divmod(abs(minor_units), 10**decimals)
    sign = "-" if minor_units < 0 else ""
    return f"{sign}{units}.{fraction:0{decimals}d}" if decimals else f"{sign}{units}"


def _decimals_of(currency: str) -> int:
    decimals = DECIMALS.get(currency) if isinstance(currency, str) else None
    if decimals is None:
        raise InvalidAmount("not a known PayPal currency")
    return decimals
