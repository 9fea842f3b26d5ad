"""Disputes are read as PayPal shows them; an unknown outcome is never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from base.enums import DisputeState, Provider
from base.facts import DisputeFacts
from base.money import InvalidAmount
from base.outcomes import ProviderUnavailable, Refused
from providers.paypal.api import PayPalApi
from tests.providers.support import Asked, Loopback, Reply, json_reply

DISPUTE, CAPTURE = "PP-D-4012", "5LK72275CG489890D"
OPENED = datetime(2026, 5, 4, 11, 0, tzinfo=UTC)
UPDATED = datetime(2026, 5, 5, 12, 30, 0, 250_000, tzinfo=UTC)


@pytest.fixture
def api(loopback: Loopback) -> Iterator[PayPalApi]:
    built = PayPalApi(loopback.url, "client", "secret", window_seconds=2)
    yield built
    built.close()


BITCOIN = {"asset_symbol": "BTC", "quantity": "0.001"}


def usd(value: str, currency: str = "USD") -> dict[str, str]:
    return {"value": value, "currency_code": currency}


def holds(loopback: Loopback, **changed: Any) -> None:
    shown = {
        "dispute_id": DISPUTE,
        "create_time": "2026-05-04T11:00:00.000Z",
        "update_time": "2026-05-05T12:30:00.250Z",
        "status": "OPEN",
        "dispute_amount": usd("7.50"),
        "disputed_transactions": [{"seller_transaction_id": CAPTURE}],
        **changed,
    }

    def answer(asked: Asked) -> Reply:
        if asked.path == "/v1/oauth2/token":
            return json_reply({"access_token": "T", "expires_in": 32400})
        assert asked.path == f"/v1/customer/disputes/{DISPUTE}"
        return json_reply({name: value for name, value in shown.items() if value is not None})

    loopback.answer = answer


def facts(state: DisputeState, micros: int = 7_500_000, stated_at=UPDATED) -> DisputeFacts:
    return DisputeFacts(Provider.PAYPAL, DISPUTE, CAPTURE, "USD", micros, state, OPENED, stated_at)


@pytest.mark.parametrize(
    "status",
    ["OPEN", "WAITING_FOR_BUYER_RESPONSE", "WAITING_FOR_SELLER_RESPONSE", "UNDER_REVIEW", "OTHER"],
)
def test_dispute_that_is_not_resolved_is_open(api, loopback, status):
    # While a dispute is open, the outcome of an earlier stage is ignored
    holds(loopback, status=status, dispute_outcome={"outcome_code": "RESOLVED_SELLER_FAVOUR"})
    assert api.get_dispute(DISPUTE) == facts(DisputeState.OPEN)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("RESOLVED_BUYER_FAVOUR", DisputeState.LOST),
        ("ACCEPTED", DisputeState.LOST),
        ("RESOLVED_SELLER_FAVOUR", DisputeState.WON),
        ("RESOLVED_WITH_PAYOUT", DisputeState.WON),
        ("CANCELED_BY_BUYER", DisputeState.WON),
        ("DENIED", DisputeState.WON),
        ("NONE", DisputeState.WON),
    ],
)
def test_resolved_dispute_is_lost_when_the_seller_bears_it(api, loopback, code, state):
    holds(loopback, status="RESOLVED", dispute_outcome={"outcome_code": code})
    assert api.get_dispute(DISPUTE) == facts(state)


def test_lost_dispute_has_the_refunded_amount(api, loopback):
    outcome = {"outcome_code": "RESOLVED_BUYER_FAVOUR", "amount_refunded": usd("2.00")}
    holds(loopback, status="RESOLVED", dispute_outcome=outcome)
    assert api.get_dispute(DISPUTE) == facts(DisputeState.LOST, 2_000_000)


def moved(party: str, kind: str, value: str, reason: str = "DISPUTE_SETTLEMENT", **more: Any):
    return {
        "affected_party": party,
        "type": kind,
        "amount": usd(value),
        "reason": reason,
        "initiated_time": "2026-05-05T12:00:00.000Z",
        **more,
    }


def lost(*movements: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": "RESOLVED",
        "dispute_outcome": {
            "outcome_code": "RESOLVED_BUYER_FAVOUR",
            "amount_refunded": usd("7.50"),
        },
        "money_movements": list(movements),
    }


BUYERS = moved("BUYER", "CREDIT", "7.50")
SELLERS = moved("SELLER", "DEBIT", "2.25")


@pytest.mark.parametrize(
    ("movements", "micros"),
    [
        ([BUYERS, SELLERS, moved("PAYMENT_PROCESSOR", "DEBIT", "5.25")], 2_250_000),
        ([BUYERS, moved("PAYMENT_PROCESSOR", "DEBIT", "7.50")], 0),
        ([BUYERS, moved("SELLER", "DEBIT", "7.50"), moved("SELLER", "CREDIT", "0.01")], 7_490_000),
        ([SELLERS, moved("SELLER", "DEBIT", "15.00", "DISPUTE_FEE")], 2_250_000),
        ([SELLERS, moved("SELLER", "DEBIT", "20.00", "CHARGEBACK_FEE")], 2_250_000),
        ([SELLERS, moved("SELLER", "DEBIT", "0.50", "DISPUTE_SETTLEMENT_FEE")], 2_250_000),
        ([], 7_500_000),
        ([BUYERS], 7_500_000),
        ([moved("SELLER", "DEBIT", "20.00", "CHARGEBACK_FEE")], 7_500_000),
    ],
)
def test_lost_dispute_has_only_the_sellers_part(api, loopback, movements, micros):
    holds(loopback, **lost(*movements))
    assert api.get_dispute(DISPUTE) == facts(DisputeState.LOST, micros)


def test_movements_are_ignored_while_a_dispute_is_open_or_won(api, loopback):
    holds(loopback, money_movements=[SELLERS])
    assert api.get_dispute(DISPUTE) == facts(DisputeState.OPEN)


@pytest.mark.parametrize(
    ("movement", "code"),
    [
        (moved("SELLER", "DEBIT", "1.00", amount=usd("1.00", "EUR")), "CURRENCY_MISMATCH"),
        (moved("SELLER", "DEBIT", "1.00", amount=None, asset=BITCOIN), "NO_AMOUNT"),
        (moved("SELLER", "DEBIT", "1.00", amount=None), "INVALID_AMOUNT"),
        (moved("SELLER", "DEBIT", "-1.00"), "INVALID_AMOUNT"),
        (moved("SELLER", "MOVED", "1.00"), "UNKNOWN_MOVEMENT"),
        (moved("SELLER", "CREDIT", "9.00"), "UNKNOWN_MOVEMENT"),
        (moved("SELLER", "DEBIT", "1.00", "GIFT"), "UNKNOWN_MOVEMENT"),
        (moved("SELLER", "DEBIT", "1.00", reason=None), "UNKNOWN_MOVEMENT"),
        (moved("PARTNER", "DEBIT", "1.00"), "UNKNOWN_MOVEMENT"),
    ],
)
def test_lost_dispute_is_refused_when_a_movement_is_invalid(api, loopback, movement, code):
    holds(loopback, **lost(SELLERS, movement))
    with pytest.raises(Refused) as caught:
        api.get_dispute(DISPUTE)
    assert caught.value.code == code


def test_lost_dispute_is_refused_when_an_asset_was_refunded(api, loopback):
    outcome = {"outcome_code": "ACCEPTED", "asset_refunded": BITCOIN}
    holds(loopback, status="RESOLVED", dispute_outcome=outcome)
    with pytest.raises(Refused) as caught:
        api.get_dispute(DISPUTE)
    assert caught.value.code == "NO_AMOUNT"


def test_dispute_is_read_when_it_lists_one_payment_twice(api, loopback):
    holds(loopback, disputed_transactions=[{"seller_transaction_id": CAPTURE}] * 2)
    assert api.get_dispute(DISPUTE) == facts(DisputeState.OPEN)


def test_dispute_without_an_update_has_the_time_of_its_opening(api, loopback):
    holds(loopback, update_time=None)
    assert api.get_dispute(DISPUTE) == facts(DisputeState.OPEN, stated_at=OPENED)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"status": "WON"}, "UNKNOWN_STATUS"),
        ({"status": None}, "UNKNOWN_STATUS"),
        ({"status": "RESOLVED"}, "UNKNOWN_OUTCOME"),
        ({"status": "RESOLVED", "dispute_outcome": {"outcome_code": "TIE"}}, "UNKNOWN_OUTCOME"),
        ({"status": "RESOLVED", "dispute_outcome": []}, "UNKNOWN_OUTCOME"),
        ({"disputed_transactions": None}, "NO_CAPTURE"),
        ({"disputed_transactions": []}, "NO_CAPTURE"),
        ({"disputed_transactions": ["x"]}, "NO_CAPTURE"),
        ({"disputed_transactions": [{"seller_transaction_id": "../x"}]}, "NO_CAPTURE"),
        (
            {
                "disputed_transactions": [
                    {"seller_transaction_id": CAPTURE},
                    {"seller_transaction_id": "3C1"},
                ]
            },
            "SEVERAL_PAYMENTS",
        ),
        (
            {"disputed_transactions": [{"seller_transaction_id": CAPTURE}, {}]},
            "SEVERAL_PAYMENTS",
        ),
        ({"dispute_amount": None, "dispute_asset": BITCOIN}, "NO_AMOUNT"),
        (
            {
                "status": "RESOLVED",
                "dispute_outcome": {
                    "outcome_code": "ACCEPTED",
                    "amount_refunded": usd("1.00", "EUR"),
                },
            },
            "CURRENCY_MISMATCH",
        ),
    ],
)
def test_dispute_is_refused_when_a_field_is_unknown(api, loopback, changed, code):
    holds(loopback, **changed)
    with pytest.raises(Refused) as caught:
        api.get_dispute(DISPUTE)
    assert caught.value.code == code


@pytest.mark.parametrize("amount", [None, {}, usd("-1.00"), usd("1.50", "JPY"), usd("1.001")])
def test_amount_that_is_not_exact_is_refused(api, loopback, amount):
    holds(loopback, dispute_amount=amount)
    with pytest.raises(InvalidAmount):
        api.get_dispute(DISPUTE)


def test_answer_about_another_dispute_is_an_outage(api, loopback):
    holds(loopback, dispute_id="PP-D-1")
    with pytest.raises(ProviderUnavailable):
        api.get_dispute(DISPUTE)


def test_invalid_id_is_refused_without_a_request(api, loopback):
    with pytest.raises(Refused) as caught:
        api.get_dispute("../x")
    assert caught.value.code == "INVALID_ID"
    assert loopback.asked == []
