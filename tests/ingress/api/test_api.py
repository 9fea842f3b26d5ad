"""The JSON API: holds, commits and wallets for the company's backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import update

from base.clock import wait_until
from base.operators import Operator
from base.problems.calls import CALL_IN_PROGRESS, CALL_NOT_FOUND, CALL_SETTLED
from base.problems.requests import (
    API_NOT_CONFIGURED,
    MALFORMED_REQUEST,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
)
from base.problems.wallet import FROZEN_WALLET, IDEMPOTENCY_CONFLICT, INSUFFICIENT_FUNDS
from db.models.calls import Call
from domain import operator_actions
from ingress.api.endpoint import ApiEndpoint
from ingress.api.openapi import document
from ingress.api.routes import routes
from tests.ingress.api.backend import COMMIT, Backend, is_problem
from tests.ingress.calls.callers import send

#: Seconds after which the test fails if a request is still answered 503.
DECIDED_SECONDS = 60.0


def reserve_until_decided(backend: Backend) -> list[httpx.Response]:
    """Reserve for one call, and repeat the request while it is answered 503."""
    answers: list[httpx.Response] = []

    def decided() -> bool:
        answers.append(backend.reserve())
        assert answers[-1].status_code != 503 or int(answers[-1].headers["retry-after"]) > 0
        return answers[-1].status_code != 503

    assert wait_until(decided, limit_seconds=DECIDED_SECONDS)
    return answers


def test_reservation_holds_what_the_estimate_costs(backend):
    result = backend.reserve(vapiCallId="vapi-1", appointmentId="visit-7").json()
    assert (result["success"], result["isDuplicate"], result["currency"]) == (True, False, "USD")
    assert (result["reserved"], result["reservedMicros"], result["reservedCents"]) == (
        "0.60",
        600_000,
        60,
    )
    assert result["availableMicros"] == 400_000
    (hold,) = backend.caller.holds()
    assert (hold.call_id, hold.provider_call_id, hold.reserved_micros) == (
        "test-1",
        "vapi-1",
        600_000,
    )


def test_repeated_reservation_changes_nothing(backend):
    first = backend.reserve().json()
    again = backend.reserve(estimatedMinutes=1.5).json()
    assert (again["isDuplicate"], again["reservedMicros"]) == (True, first["reservedMicros"])
    assert len(backend.caller.holds()) == 1


def test_fifty_concurrent_reservations_of_one_call_make_one_hold(backend):
    # Given fifty requests at once, each repeated while the answer is 503
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: reserve_until_decided(backend), range(50)))
    # Then all of them are answered with the same hold
    assert {one[-1].status_code for one in answers} == {200}
    result = [one[-1].json() for one in answers]
    assert {(one["success"], one["reservedMicros"]) for one in result} == {(True, 600_000)}
    # Exactly one request made the hold. If its answer was lost to a 503, its repeat is a duplicate,
    # and no answer shows which request it was.
    made = sum(not one["isDuplicate"] for one in result)
    assert made == 1 or (made == 0 and any(len(one) > 1 for one in answers))
    (hold,), wallet = backend.caller.holds(), backend.caller.world.wallet(backend.caller.id)
    assert (hold.call_id, hold.reserved_micros, hold.extensions) == ("test-1", 600_000, 0)
    assert (wallet.balance_micros, wallet.held_micros) == (1_000_000, 600_000)


def test_uncovered_reservation_is_refused_and_nothing_is_held(backend):
    assert is_problem(backend.reserve(estimatedMinutes=2), INSUFFICIENT_FUNDS)
    assert backend.caller.holds() == []


def test_frozen_wallet_is_refused(backend):
    backend.caller.world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, backend.caller.id, operator=Operator("me", "test"), now=now
        )
    )
    assert is_problem(backend.reserve(), FROZEN_WALLET)


def test_provider_call_paired_with_another_reservation_is_a_conflict(backend):
    assert backend.reserve(vapiCallId="vapi-1").is_success
    assert is_problem(backend.reserve("test-2", vapiCallId="vapi-1"), IDEMPOTENCY_CONFLICT)


def test_commit_charges_the_duration_once_and_releases_the_rest(backend):
    backend.reserve()
    result = backend.post(COMMIT, callId="test-1", durationSeconds=20.5).json()
    assert (result["alreadyCommitted"], result["chargedMicros"], result["releasedMicros"]) == (
        False,
        210_000,
        390_000,
    )
    again = backend.post(COMMIT, callId="test-1", durationSeconds=20.5).json()
    assert (again["alreadyCommitted"], again["balanceMicros"]) == (True, 790_000)
    other = backend.post(COMMIT, callId="test-1", durationSeconds=30)
    assert is_problem(other, IDEMPOTENCY_CONFLICT)
    assert is_problem(backend.reserve(), CALL_SETTLED)
    wallet = backend.caller.world.wallet(backend.caller.id)
    assert (wallet.balance_micros, wallet.held_micros) == (790_000, 0)


def test_call_that_cost_more_than_available_leaves_an_outstanding_amount(backend):
    backend.reserve()
    result = backend.post(COMMIT, callId="test-1", durationSeconds=150).json()
    assert (result["chargedMicros"], result["owedMicros"], result["balanceMicros"]) == (
        1_500_000,
        500_000,
        0,
    )


def test_unknown_call_is_not_found(backend):
    assert is_problem(backend.post(COMMIT, callId="other", durationSeconds=1), CALL_NOT_FOUND)
    assert is_problem(backend.get("/api/calls/other"), CALL_NOT_FOUND)


@pytest.mark.parametrize(
    ("seconds", "duration_ms", "micros"),
    # The duration is rounded half up to a millisecond; each second that has begun is charged.
    [
        ("20.0005", 20_001, 210_000),
        ("20.00049999999999999", 20_000, 200_000),
        ("0.0005", 1, 10_000),
        ("0.00049999", 0, 0),
        ("0", 0, 0),
        ("43260", 43_260_000, 432_600_000),
    ],
)
def test_duration_is_read_exactly_as_written(backend, seconds, duration_ms, micros):
    backend.reserve()
    body = f'{{"callId":"test-1","durationSeconds":{seconds}}}'.encode()
    result = backend.client.post(COMMIT, content=body, headers=backend.headers).json()
    assert (result["currency"], result["chargedMicros"]) == ("USD", micros)
    seen = backend.get("/api/calls/test-1").json()
    assert (seen["durationMs"], seen["costMicros"]) == (duration_ms, micros)


def test_wallet_and_its_entries_are_read(backend):
    backend.reserve()
    backend.post(COMMIT, callId="test-1", durationSeconds=10)
    for path in ("/api/billing/wallet", "/api/wallet/balance"):
        result = backend.get(path).json()
        assert (result["balance"], result["availableMicros"], result["isFrozen"]) == (
            "0.90",
            900_000,
            False,
        )
    page = backend.get("/api/billing/wallet/transactions", limit=1).json()
    (newest,) = page["transactions"]
    assert (newest["type"], newest["amount"], newest["balanceAfterMicros"]) == (
        "call",
        "0.10",
        900_000,
    )
    rest = backend.get("/api/billing/wallet/transactions", cursor=page["nextCursor"]).json()
    assert newest["id"] not in [one["id"] for one in rest["transactions"]]
    assert rest["nextCursor"] is None


def test_call_is_found_by_each_of_its_ids_and_adds_to_its_days_costs(backend):
    backend.reserve(vapiCallId="vapi-1", appointmentId="visit-7")
    backend.post(COMMIT, callId="test-1", durationSeconds=10)
    for name in ("test-1", "vapi-1", "visit-7"):
        result = backend.get(f"/api/calls/{name}").json()
        assert (result["callId"], result["costMicros"], result["settledBy"]) == (
            "test-1",
            100_000,
            "api",
        )
        assert result["billingState"] == "charged"
    assert [one["what"] for one in result["timeline"]] == ["reserved", "settled"]
    (day,) = backend.get("/api/calls/costs").json()["days"]
    assert (day["calls"], day["seconds"], day["cost"]) == (1, 10, "0.10")
    assert backend.get("/api/calls/costs", **{"from": "2020-01-01"}).status_code == 400
    assert backend.get("/api/calls/costs", to="soon").status_code == 400


@pytest.mark.parametrize("name", ["%00", "a%0Ab", "x" * 65])
def test_invalid_id_is_refused_without_a_search(backend, name):
    assert is_problem(backend.get(f"/api/calls/{name}"), MALFORMED_REQUEST)


def test_another_organizations_calls_are_not_seen(backend, world, ingress, signer):
    backend.reserve(vapiCallId="vapi-1")
    other = Backend(world, ingress, signer)
    assert other.get("/api/calls/vapi-1").status_code == 404
    assert is_problem(other.reserve("mine", vapiCallId="vapi-1"), IDEMPOTENCY_CONFLICT)


def test_request_requires_a_token_with_the_scope(backend, signer):
    client, org = backend.client, backend.caller.id
    answer = client.get("/api/billing/wallet")
    assert is_problem(answer, UNAUTHENTICATED)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    few = signer.headers(org, "calls:read")
    assert client.get("/api/billing/wallet", headers=few).status_code == 403
    other = {**backend.headers, "X-Org-Id": "org_other"}
    assert client.get("/api/billing/wallet", headers=other).status_code == 403
    same = {**backend.headers, "X-Org-Id": org}
    assert client.get("/api/billing/wallet", headers=same).status_code == 200


def test_api_is_closed_without_keys(start_ingress, settings, signer):
    closed = start_ingress(settings)
    answer = closed.client.get("/api/billing/wallet", headers=signer.headers("org_one"))
    assert is_problem(answer, API_NOT_CONFIGURED)


def test_request_is_answered_503_while_the_database_is_away(
    world, start_ingress, settings, signer, way
):
    changed = {"api_jwks_file": signer.path, "database_url": way.url}
    backend = Backend(world, start_ingress(settings.model_copy(update=changed)), signer)
    assert backend.get("/api/billing/wallet").is_success
    way.cut()
    answer = backend.reserve()
    assert is_problem(answer, TEMPORARILY_UNAVAILABLE)
    assert int(answer.headers["retry-after"]) > 0
    way.mend()
    assert backend.reserve().is_success


def test_description_names_every_route(ingress):
    described = ingress.client.get("/api/openapi.json").json()
    assert described == document()
    served = {
        (route.path, method)
        for route in routes(ApiEndpoint(None, None))
        for method in route.methods - {"HEAD"}
        if route.path != "/api/openapi.json"
    }
    served.add(("/api/vapi/webhook/status-check", "POST"))
    result = {
        (path, method.upper()) for path, ways in described["paths"].items() for method in ways
    }
    assert result == served


def test_backend_cannot_settle_a_call_that_its_provider_reports_as_live(backend, ingress):
    # Given a call that Vapi has reported as in progress
    backend.reserve(vapiCallId="vapi-1")
    message = backend.caller.message("status-update", call_id="vapi-1", status="in-progress")
    assert send(ingress, message).status_code == 200
    backend.caller.world.run_due()
    # When the backend reports a duration of zero, Then it is refused and the call is still metered
    answer = backend.post(COMMIT, callId="test-1", durationSeconds=0)
    assert is_problem(answer, CALL_IN_PROGRESS)
    (call,) = backend.caller.calls()
    assert (call.settled_at, call.tick_at is not None) == (None, True)


@pytest.mark.parametrize("ours", [None, "…0123"])
def test_outgoing_call_shows_caller_and_callee(backend, ours):
    # Given a call that was reserved for a number, and perhaps dialed from one of our numbers
    backend.reserve("test-1", vapiCallId="vapi-1", to="+15005550155")
    backend.caller.world.do(
        lambda session, _: session.execute(
            update(Call).where(Call.id == "test-1").values(our_party=ours)
        )
    )
    # When the company settles it before it was connected
    assert backend.post(COMMIT, callId="test-1", durationSeconds=30).status_code == 200
    # Then it is shown from our number to the other, and its status is final
    call = backend.get("/api/calls/test-1").json()
    assert (call["direction"], call["status"]) == ("outbound", "settled")
    assert (call["from"], call["to"]) == (ours, "…0155")


def test_call_that_waits_for_a_reservation_names_it(backend):
    backend.reserve("test-1", vapiCallId="vapi-1")
    backend.caller.world.do(
        lambda session, _: session.execute(
            update(Call).where(Call.id == "test-1").values(withheld_for="test-0")
        )
    )
    # While the call goes on, its charge does not wait yet
    shown = backend.get("/api/calls/test-1").json()
    assert (shown["billingState"], shown["withheldFor"]) == ("held", None)
    backend.caller.world.do(
        lambda session, now: session.execute(
            update(Call)
            .where(Call.id == "test-1")
            .values(status="ended", ended_seen_at=now, tick_at=None)
        )
    )
    shown = backend.get("/api/calls/test-1").json()
    assert (shown["billingState"], shown["withheldFor"]) == ("withheld", "test-0")
    # And once it is settled, it names the reservation no longer
    backend.caller.world.do(
        lambda session, now: session.execute(
            update(Call)
            .where(Call.id == "test-1")
            .values(settled_at=now, settled_by="operator", cost_micros=0)
        )
    )
    shown = backend.get("/api/calls/test-1").json()
    assert (shown["billingState"], shown["withheldFor"]) == ("free", None)
