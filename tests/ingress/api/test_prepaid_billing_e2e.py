"""Prepaid billing over HTTP: the scenarios of the seed, and its manual test flow.

The product cannot buy phone numbers yet. The domain charges their price, so the tests call the
domain for it.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from db.models import WalletEntry
from domain.wallet.assets import deduct_asset_cost
from tests.ingress.api.backend import COMMIT, Backend
from tests.ingress.calls.callers import send
from tests.support.world import fund

STATUS_CHECK = "/api/vapi/webhook/status-check"
#: The price of a phone number for a month, in micros.
NUMBER_MICROS = 1_150_000


def pay_for_number(backend: Backend, key: str, micros: int = NUMBER_MICROS):
    """Charge the price of a phone number, without buying the number."""
    return backend.caller.world.do(
        lambda session, now: deduct_asset_cost(
            session,
            backend.caller.id,
            key=key,
            amount_micros=micros,
            currency="USD",
            asset="+15005550006",
            now=now,
        )
    )


def entries(backend: Backend, kind: str) -> int:
    return len(backend.caller.world.read(WalletEntry, organization_id=backend.caller.id, kind=kind))


def check(backend: Backend, call_id: str, seconds: int):
    body = {"call": {"id": call_id}, "message": {"durationSeconds": seconds}}
    return backend.client.post(STATUS_CHECK, json=body, headers=backend.headers).json()


def test_price_of_a_number_is_refused_without_enough_balance(backend):
    assert pay_for_number(backend, "number-1").outcome == "INSUFFICIENT_FUNDS"
    result = backend.get("/api/billing/wallet").json()
    assert (result["balanceMicros"], result["heldMicros"]) == (1_000_000, 0)
    assert entries(backend, "asset") == 0


def test_price_of_a_number_is_taken_with_an_entry_that_names_it(backend):
    assert pay_for_number(backend, "number-1", 900_000).outcome == "OK"
    result = backend.get("/api/billing/wallet").json()
    assert (result["balanceMicros"], result["heldMicros"]) == (100_000, 0)
    (entry,) = backend.caller.world.read(
        WalletEntry, organization_id=backend.caller.id, kind="asset"
    )
    assert (entry.direction, entry.amount_micros, entry.operation_key, entry.note) == (
        "debit",
        900_000,
        "number-1",
        "+15005550006",
    )


def test_price_of_a_number_is_taken_once_under_one_key(backend):
    first, again = (pay_for_number(backend, "number-1", 400_000) for _ in range(2))
    assert (first.replayed, again.replayed, entries(backend, "asset")) == (False, True, 1)
    assert pay_for_number(backend, "number-1", 400_001).outcome == "IDEMPOTENCY_CONFLICT"
    assert backend.get("/api/billing/wallet").json()["balanceMicros"] == 600_000


def test_of_1000_numbers_at_once_only_the_one_that_is_covered_is_paid(backend):
    # Given money for one number, and one micro too little for two
    fund(backend.caller.world.database, backend.caller.id, 2 * NUMBER_MICROS - 1 - 1_000_000)
    # When a thousand numbers are paid for at once
    with ThreadPoolExecutor(40) as pool:
        answers = pool.map(lambda n: pay_for_number(backend, f"number-{n}"), range(1_000))
    # Then one is paid, and the others are refused and leave no trace
    outcomes = Counter(one.outcome for one in answers)
    assert outcomes == {"OK": 1, "INSUFFICIENT_FUNDS": 999}
    result = backend.get("/api/billing/wallet").json()
    assert (result["balanceMicros"], result["heldMicros"]) == (NUMBER_MICROS - 1, 0)
    assert entries(backend, "asset") == 1


def test_call_reservation_lifecycle(backend, ingress):
    # An incoming call is admitted with a hold, talks, and is charged by its end-of-call report
    message = backend.caller.message("assistant-request")
    assert "assistantId" in send(ingress, message).json()
    assert backend.get("/api/billing/wallet").json()["heldMicros"] == 600_000
    call = message["call"]
    report = {
        **message,
        "type": "end-of-call-report",
        "endedReason": "customer-ended-call",
        "startedAt": "2026-05-04T10:00:05.000Z",
        "endedAt": "2026-05-04T10:00:17.250Z",
        "call": call,
    }
    assert send(ingress, report).status_code == 200
    backend.caller.world.run_due()
    wallet = backend.get("/api/billing/wallet").json()
    assert (wallet["balanceMicros"], wallet["heldMicros"]) == (870_000, 0)


def test_call_commit_with_credit_release(backend):
    backend.reserve("test-1")
    result = backend.post(COMMIT, callId="test-1", durationSeconds=30).json()
    assert (result["chargedMicros"], result["releasedMicros"]) == (300_000, 300_000)
    assert backend.get("/api/wallet/balance").json()["availableMicros"] == 700_000


def test_duplicate_commit_detection(backend):
    backend.reserve("test-1")
    first, again = (
        backend.post(COMMIT, callId="test-1", durationSeconds=30).json() for _ in range(2)
    )
    assert (first["alreadyCommitted"], again["alreadyCommitted"]) == (False, True)
    assert (first["balanceMicros"], again["balanceMicros"], entries(backend, "call")) == (
        700_000,
        700_000,
        1,
    )


def test_kill_switch_activation_balance_depletion(backend):
    backend.reserve("test-1")
    result = check(backend, "test-1", 100)
    assert (result["endCall"], result["reason"]) == (True, "INSUFFICIENT_FUNDS")
    assert result["message"]


def test_kill_switch_inhibition_sufficient_balance(backend):
    backend.reserve("test-1")
    assert check(backend, "test-1", 30) == {"endCall": False, "remainingSeconds": 70}


def test_wallet_balance_retrieval(backend):
    result = backend.get("/api/billing/wallet").json()
    assert (result["balance"], result["balanceCents"], result["currency"]) == ("1.00", 100, "USD")


def test_transaction_history_retrieval(backend):
    pay_for_number(backend, "number-1", 400_000)
    page = backend.get("/api/billing/wallet/transactions", limit=20).json()["transactions"]
    newest = page[0]
    assert (newest["type"], newest["direction"], newest["amountCents"]) == ("asset", "debit", 40)
    assert newest["referenceId"] == "number-1"


def test_manual_test_flow(backend, ingress):
    # The three requests exactly as the document gives them: curl's default content type, and
    # X-Org-Id
    def curl(path: str, body: dict, **headers: str):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return ingress.client.post(
            path, content=json.dumps(body), headers={**backend.headers, **kind, **headers}
        ).json()

    asked = {"callId": "test-1", "vapiCallId": "vapi-1", "estimatedMinutes": 1.5}
    assert curl("/api/billing/reserve-credits", asked)["success"] is True
    status = curl(
        STATUS_CHECK,
        {"call": {"id": "test-1"}, "message": {"durationSeconds": 30}},
        **{"X-Org-Id": backend.caller.id},
    )
    assert status["endCall"] is False
    result = curl(COMMIT, {"callId": "test-1", "durationSeconds": 90})
    assert (result["success"], result["chargedMicros"], result["balanceMicros"]) == (
        True,
        900_000,
        100_000,
    )
