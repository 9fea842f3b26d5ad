"""A refusal for want of funds is logged once, with its reason."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from db.debits.batch import Debit
from db.engine import clock
from domain.wallet import operations as wallets
from domain.wallet.debits import debit_many, debit_now
from domain.wallet.ledger import log_refusal
from tests.domain.support import credit
from tests.domain.wallet.support import freeze


def alone(database, org):
    return database.run(
        lambda s: wallets.debit(
            s, org, key="k", amount_micros=100, currency="USD", note="secret", now=clock(s)
        )
    )


def among_many(database, org):
    debit = Debit(org, "k", 100, "USD", "messages")
    return database.run(lambda s: debit_many(s, [debit], clock(s)))[0]


def combined(database, org):
    return debit_now(database, Debit(org, "k", 100, "USD", "messages"))


@pytest.mark.parametrize("spend", [alone, among_many, combined])
def test_refused_debit_is_logged_with_its_reason(shared, org, spend):
    credit(shared, org, 99)
    with capture_logs() as logs:
        assert spend(shared, org).outcome == "INSUFFICIENT_FUNDS"
    assert logs == [
        {
            "event": "spending_refused",
            "organization": org,
            "reason": "INSUFFICIENT_FUNDS",
            "what": "debit",
            "log_level": "info",
        }
    ]


@pytest.mark.parametrize("spend", [alone, among_many, combined])
def test_debit_of_a_frozen_wallet_is_logged_with_its_reason(shared, org, spend):
    credit(shared, org, 1_000)
    freeze(shared, org)
    with capture_logs() as logs:
        spend(shared, org)
    reasons = [one["reason"] for one in logs if one["event"] == "spending_refused"]
    assert reasons == ["FROZEN_WALLET"]


def test_debit_that_succeeds_or_is_invalid_logs_no_refusal(shared, org):
    credit(shared, org, 1_000)
    with capture_logs() as logs:
        assert combined(shared, org).ok
        assert debit_now(shared, Debit(org, "", 1, "USD", "messages")).outcome == "INVALID_KEY"
        assert not log_refusal(org, None)
    assert logs == []
