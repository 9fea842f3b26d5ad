"""The status check: whether a call must end, and why, for Vapi and the backend."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from base.enums import FreezeReason
from base.operators import Operator
from domain import operator_actions
from domain.calls import ending, reservations
from domain.calls.settings import Terms
from domain.calls.settlement import settle_by_api
from domain.wallet import freezes as wallet_freezes
from domain.wallet.ledger import call_ledger
from tests.ingress.calls.callers import Caller, send, vapi_headers

PATHS = ["/webhooks/vapi/status-check", "/api/vapi/webhook/status-check"]


@pytest.fixture
def caller(world):
    made = Caller(world, micros=3_000_000)
    reserve(made, "test-1", "vapi-1", seconds=100)
    return made


def reserve(caller: Caller, call_id: str, vapi_id: str, *, seconds: int) -> None:
    reserved = caller.world.do(
        lambda session, now: reservations.reserve_for_call(
            session,
            caller.id,
            call_id=call_id,
            provider_call_id=vapi_id,
            estimated_seconds=seconds,
            now=now,
        )
    )
    assert reserved.outcome.ok


def ask(ingress, call_id: str, headers: dict[str, str], path: str = PATHS[1], seconds=30):
    body = {"call": {"id": call_id}, "message": {"durationSeconds": seconds}}
    return ingress.client.post(path, json=body, headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_call_with_credit_continues_for_its_hold_and_the_available(caller, ingress, path):
    # 100 s held and 200 s available, of which 30 s are already used
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox), path)
    assert answer.json() == {"endCall": False, "remainingSeconds": 270}


def test_backend_may_use_either_id_with_its_token(caller, ingress, signer):
    for call_id in ("test-1", "vapi-1"):
        answer = ask(ingress, call_id, signer.headers(caller.id))
        assert answer.json() == {"endCall": False, "remainingSeconds": 270}


def test_vapi_may_use_our_id_when_one_call_alone_has_it(caller, world, ingress):
    headers = vapi_headers(ingress.sandbox)
    goes_on = {"endCall": False, "remainingSeconds": 270}
    assert ask(ingress, "test-1", headers).json() == goes_on
    # Given another organization's call with the same id, and one whose own id is this call's Vapi
    # id
    other = Caller(world)
    for call_id, vapi_id in (("test-1", "vapi-2"), ("vapi-1", "vapi-3")):
        reserve(other, call_id, vapi_id, seconds=10)
    # Then an ambiguous id finds no call, and a match of Vapi's own id takes precedence
    assert ask(ingress, "test-1", headers).status_code == 404
    assert ask(ingress, "vapi-1", headers).json() == goes_on
    assert ask(ingress, "vapi-2", headers).json() == {"endCall": False, "remainingSeconds": 60}


def test_request_without_credential_or_scope_is_refused(caller, ingress, signer):
    assert ask(ingress, "vapi-1", {}).status_code == 401
    assert ask(ingress, "vapi-1", {"X-Org-Id": caller.id}).status_code == 401
    assert ask(ingress, "vapi-1", signer.headers(caller.id, "wallet:read")).status_code == 403


def test_call_of_another_organization_is_not_found(caller, world, ingress, signer):
    other = Caller(world)
    assert ask(ingress, "vapi-1", signer.headers(other.id)).status_code == 404
    lying = {**signer.headers(other.id), "X-Org-Id": caller.id}
    assert ask(ingress, "vapi-1", lying).status_code == 403


def test_call_that_has_talked_for_all_its_credit_must_end(caller, ingress):
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox), seconds=300).json()
    assert (answer["endCall"], answer["reason"]) == (True, "INSUFFICIENT_FUNDS")
    assert answer["message"]
    left = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox), seconds=299).json()
    assert left == {"endCall": False, "remainingSeconds": 1}


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        ("insufficient_funds", "INSUFFICIENT_FUNDS"),
        ("frozen_wallet", "FROZEN_WALLET"),
        # The codes that the previous version stores while both versions run
        ("credit_gone", "INSUFFICIENT_FUNDS"),
        ("wallet_frozen", "FROZEN_WALLET"),
    ],
)
def test_reason_for_which_a_call_is_ended_has_one_code(caller, ingress, signer, stored, code):
    caller.world.do(
        lambda session, now: session.execute(
            text("UPDATE calls SET end_decided_at = :now, end_cause = :stored"),
            {"now": now, "stored": stored},
        )
    )
    headers = signer.headers(caller.id)
    assert ask(ingress, "vapi-1", headers).json()["reason"] == code
    shown = ingress.client.get("/api/calls/test-1", headers=headers).json()
    assert shown["endCause"] == code


def test_refused_call_must_end_for_its_reason(caller, ingress, signer):
    caller.world.do(
        lambda session, now: wallet_freezes.freeze(
            session, caller.id, FreezeReason.MANUAL, operator=Operator("me", "test"), now=now
        )
    )
    message = caller.message("assistant-request", "vapi-9")
    assert set(send(ingress, message).json()) == {"error"}
    answer = ask(ingress, "vapi-9", vapi_headers(ingress.sandbox)).json()
    assert (answer["endCall"], answer["reason"]) == (True, "FROZEN_WALLET")
    shown = ingress.client.get("/api/calls/vapi-9", headers=signer.headers(caller.id)).json()
    assert (shown["status"], shown["refusal"]) == ("refused", "FROZEN_WALLET")


def test_approved_debt_limit_counts(caller, ingress):
    caller.world.do(
        lambda session, now: call_ledger(
            session,
            "wallet_set_debt_limit(:org, 500000, 'me', 'test', :now)",
            org=caller.id,
            now=now,
        )
    )
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox), seconds=300).json()
    assert answer == {"endCall": False, "remainingSeconds": 50}


def test_frozen_or_settled_call_must_end_with_its_reason(caller, ingress):
    headers = vapi_headers(ingress.sandbox)
    caller.world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, caller.id, operator=Operator("me", "test"), now=now
        )
    )
    expected = {"endCall": True, "message": Terms().ending_text}
    assert ask(ingress, "vapi-1", headers).json() == {**expected, "reason": "FROZEN_WALLET"}
    caller.world.do(lambda session, now: settle_by_api(session, caller.id, "test-1", 1_000, now))
    assert ask(ingress, "vapi-1", headers).json() == {**expected, "reason": "CALL_ENDED"}


def test_call_that_continues_after_its_settlement_must_end(caller, ingress):
    # Given a call that the company settled before it was connected
    caller.world.do(lambda session, now: settle_by_api(session, caller.id, "test-1", 1_000, now))
    # When Vapi reports it in progress
    message = caller.message("status-update", call_id="vapi-1", status="in-progress")
    assert send(ingress, message).status_code == 200
    caller.world.run_due()
    # Then the reason is its settlement: it is not over yet
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox)).json()
    assert (answer["endCall"], answer["reason"]) == (True, "SETTLED")


def test_call_that_an_operator_ends_must_end(caller, ingress):
    caller.world.do(
        lambda session, now: ending.end_manually(
            session, caller.id, "test-1", operator=Operator("me", "test"), now=now
        )
    )
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox)).json()
    expected = {"endCall": True, "reason": "OPERATOR", "message": Terms().ending_text}
    assert answer == expected


def test_frozen_call_must_end_unless_the_freeze_is_only_reported(caller, ingress):
    def freeze(reason: FreezeReason) -> None:
        caller.world.do(
            lambda session, now: wallet_freezes.freeze(
                session, caller.id, reason, operator=Operator("me", "test"), now=now
            )
        )

    # Given a subscription whose end is only reported: the call may use up its hold, but no more
    freeze(FreezeReason.SUBSCRIPTION_INACTIVE)
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox)).json()
    assert answer == {"endCall": False, "remainingSeconds": 70}
    # And given a freeze of any other kind, which enforcement has not acted on yet
    freeze(FreezeReason.DISPUTE)
    answer = ask(ingress, "vapi-1", vapi_headers(ingress.sandbox)).json()
    assert (answer["endCall"], answer["reason"]) == (True, "FROZEN_WALLET")


NOT_UNDERSTOOD = [
    b"",
    b"[]",
    b"{}",
    b'{"call":"x"}',
    b'{"call":{}}',
    b'{"call":{"id":7}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":"many"}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":"30"}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":-1}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":43200.001}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":1e-99999999999999999999}}',
    b'{"call":{"id":"vapi\\u00001"}}',
    b"[" * 50_000,
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":1e999}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":NaN}}',
    b'{"call":{"id":"vapi-1"},"message":{"durationSeconds":true}}',
]


def test_invalid_request_is_answered_400(caller, ingress):
    for body in NOT_UNDERSTOOD:
        answer = ingress.client.post(PATHS[0], content=body, headers=vapi_headers(ingress.sandbox))
        assert answer.status_code == 400, body[:80]
        assert answer.headers["content-type"] == "application/problem+json", body[:80]


def test_unknown_call_is_not_found(caller, ingress):
    assert ask(ingress, "vapi-2", vapi_headers(ingress.sandbox)).status_code == 404


def test_forged_request_is_refused_while_the_api_is_closed(caller, start_ingress, settings):
    closed = start_ingress(settings)
    answer = ask(closed, "vapi-1", {"Authorization": "Bearer wrong"})
    assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")


def test_request_is_answered_503_while_the_database_is_away(caller, far, way):
    assert ask(far, "vapi-1", vapi_headers(far.sandbox)).status_code == 200
    way.cut()
    answer = ask(far, "vapi-1", vapi_headers(far.sandbox))
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
