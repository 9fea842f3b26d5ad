"""Outgoing calls: the API and Vapi report one call, with one hold and one charge."""

from __future__ import annotations

import os
import random
import uuid
from typing import Any

import pytest

from base.clock import wait_until
from base.problems.calls import CALL_SETTLED, UNPAIRED_CALL
from base.problems.wallet import IDEMPOTENCY_CONFLICT
from db.models import WalletEntry
from tests.ingress.api.backend import COMMIT, Backend, is_problem
from tests.ingress.calls.callers import Caller, send

#: The number of calls in the long test. 200 calls take a minute or two on a quiet machine.
CALLS = int(os.environ.get("PAIRED_CALLS", "24"))
CENT = 10_000


class Vapi:
    """Vapi's side of one outgoing call."""

    def __init__(
        self, ingress, caller: Caller, overrides: dict[str, Any] | None = None, **call: Any
    ) -> None:
        self.ingress, self.caller = ingress, caller
        self.id = str(uuid.uuid4())
        self._call = {"type": "outboundPhoneCall", "assistantOverrides": overrides or {}, **call}

    def send_message(self, kind: str, **fields: Any) -> None:
        message = self.caller.message(kind, self.id, **fields)
        message["call"] |= self._call
        assert send(self.ingress, message).status_code == 200

    def report_in_progress(self) -> None:
        self.send_message("status-update", status="in-progress")

    def report_end(self, seconds: int) -> None:
        self.send_message(
            "end-of-call-report", endedReason="customer-ended-call", durationSeconds=seconds
        )


@pytest.fixture
def rich(world, ingress, signer):
    made = Backend(world, ingress, signer)
    made.caller = Caller(world, micros=1_000_000_000)
    made.headers = signer.headers(made.caller.id)
    return made


def run(backend: Backend) -> None:
    backend.caller.world.run_due(20 * CALLS)


def charges(backend: Backend) -> list[int]:
    entries = backend.caller.world.read(
        WalletEntry, organization_id=backend.caller.id, kind="call", direction="debit"
    )
    return sorted(entry.amount_micros for entry in entries)


def held(backend: Backend) -> int:
    return backend.caller.world.wallet(backend.caller.id).held_micros


def test_reservation_answers_with_the_metadata_to_send_along(backend):
    answered = backend.reserve().json()
    assert len(answered["pairingToken"]) == 32
    assert answered["assistantOverrides"] == {
        "metadata": {
            "holdfast_organization": backend.caller.id,
            "holdfast_call": "test-1",
            "holdfast_token": answered["pairingToken"],
        }
    }
    again = backend.reserve().json()
    assert again["pairingToken"] == answered["pairingToken"]
    # And a reader of the call does not see the token
    assert answered["pairingToken"] not in backend.get("/api/calls/test-1").text


def test_one_outgoing_call_is_charged_once(backend, ingress):
    # Given a reservation, and its call from a number of ours, without our metadata
    backend.reserve("c1", estimatedMinutes=0.5)
    vapi = Vapi(ingress, backend.caller)
    vapi.report_in_progress()
    vapi.report_end(20)
    run(backend)
    # When the company commits it without Vapi's id, Then the refusal names what to send
    refused = backend.post(COMMIT, callId="c1", durationSeconds=20)
    assert is_problem(refused, UNPAIRED_CALL)
    assert vapi.id in refused.json()["detail"] and "vapiCallId" in refused.json()["detail"]
    # And with Vapi's id there is one charge and no hold
    answered = backend.post(COMMIT, callId="c1", durationSeconds=20, vapiCallId=vapi.id).json()
    assert (answered["alreadyCommitted"], answered["chargedMicros"]) == (True, 20 * CENT)
    assert (answered["releasedMicros"], answered["vapiCallId"]) == ((30 + 40) * CENT, vapi.id)
    assert (charges(backend), held(backend)) == ([20 * CENT], 0)
    seen = backend.get("/api/calls/c1").json()
    assert seen == backend.get(f"/api/calls/{vapi.id}").json()
    assert seen["mergedCallIds"] == ["c1"]


def test_vapis_id_may_arrive_with_a_second_reservation(backend, ingress):
    backend.reserve("c1", estimatedMinutes=0.5)
    vapi = Vapi(ingress, backend.caller)
    vapi.report_in_progress()
    run(backend)
    again = backend.reserve("c1", estimatedMinutes=0.5, vapiCallId=vapi.id)
    assert (again.status_code, again.json()["vapiCallId"]) == (200, vapi.id)
    vapi.report_end(20)
    run(backend)
    assert (charges(backend), held(backend)) == ([20 * CENT], 0)


def test_pairing_is_kept_when_the_request_is_refused(backend, ingress):
    # Given a call that ended and was charged before it is paired
    backend.reserve("c1", estimatedMinutes=0.5)
    vapi = Vapi(ingress, backend.caller)
    vapi.report_end(20)
    run(backend)
    assert held(backend) == 30 * CENT
    # When the company reserves again, or commits another duration, it is refused
    assert is_problem(backend.reserve("c1", vapiCallId=vapi.id), CALL_SETTLED)
    # Then the two are one call nevertheless
    assert (charges(backend), held(backend)) == ([20 * CENT], 0)
    other = backend.post(COMMIT, callId="c1", durationSeconds=21, vapiCallId=vapi.id)
    assert is_problem(other, IDEMPOTENCY_CONFLICT)


def test_web_call_cannot_take_an_id_of_the_company(backend, ingress):
    # Given a web call that claims the organization's id and an id that the company uses next
    given = {"holdfast_organization": backend.caller.id, "holdfast_call": "booking-124"}
    web = Vapi(ingress, backend.caller, {"metadata": given}, type="webCall")
    web.report_in_progress()
    web.report_end(1)
    run(backend)
    assert backend.reserve("booking-124", estimatedMinutes=0.5).status_code == 200
    token = backend.reserve("booking-124").json()["pairingToken"]
    # And another that has even stolen the token
    stolen = Vapi(
        ingress,
        backend.caller,
        {"metadata": {**given, "holdfast_token": token}},
        type="webCall",
    )
    stolen.report_end(2)
    run(backend)
    assert backend.get("/api/calls/booking-124").json()["status"] == "admitted"
    answered = backend.post(COMMIT, callId="booking-124", durationSeconds=20).json()
    assert answered["chargedMicros"] == 20 * CENT
    assert charges(backend) == [1 * CENT, 2 * CENT, 20 * CENT]


@pytest.mark.parametrize("by_metadata", [True, False])
def test_call_that_the_sandbox_dials_is_charged_once(backend, ingress, by_metadata):
    # Given a reservation, and a call that the sandbox dials, with our metadata or without
    answered = backend.reserve("c1", estimatedMinutes=0.5).json()
    asked = {"number_id": backend.caller.number_id, "talk_seconds": 0.2}
    if by_metadata:
        asked["metadata"] = answered["assistantOverrides"]["metadata"]
    made = ingress.sandbox.control("POST", "/vapi/calls", {"direction": "outbound", **asked})

    def charged() -> bool:
        run(backend)
        return bool(charges(backend))

    assert wait_until(charged, limit_seconds=60)
    # When the company commits the duration that Vapi reported
    duration_ms = backend.get(f"/api/calls/{made['id']}").json()["durationMs"]
    named = {} if by_metadata else {"vapiCallId": made["id"]}
    body = {"callId": "c1", "durationSeconds": duration_ms / 1000, **named}
    done = backend.post(COMMIT, **body).json()
    # Then it was charged once already, and nothing is held
    assert (done["alreadyCommitted"], done["vapiCallId"]) == (True, made["id"])
    assert (charges(backend), held(backend)) == ([done["chargedMicros"]], 0)
    assert done["chargedMicros"] == -(-duration_ms // 1000) * CENT


def test_every_one_of_many_outgoing_calls_is_charged_once(rich, ingress):
    # Given calls of four kinds: two are reserved with Vapi's id, one passes our metadata along, and
    # one is paired only by a later request
    chance = random.Random(7)
    stories = [_story(rich, ingress, number, 1 + number % 40) for number in range(CALLS)]
    # When their steps happen in random order
    while stories:
        story = chance.choice(stories)
        if next(story, "over") == "over":
            stories.remove(story)
        if chance.random() < 0.3:
            run(rich)
    run(rich)
    # Then each is charged once, exactly, and nothing is held
    assert charges(rich) == sorted((1 + number % 40) * CENT for number in range(CALLS))
    assert held(rich) == 0
    for number in range(CALLS):
        seen = rich.get(f"/api/calls/out-{number}").json()
        assert seen["costMicros"] == (1 + number % 40) * CENT
    paid = rich.caller.world.wallet(rich.caller.id).balance_micros
    assert paid == 1_000_000_000 - sum(charges(rich))


def _story(backend: Backend, ingress, number: int, seconds: int):
    """Run one call step by step, from its reservation to its commit."""
    call_id, way = f"out-{number}", number % 4
    vapi = Vapi(ingress, backend.caller)
    paired = {"vapiCallId": vapi.id} if way in (0, 1) else {}
    answered = backend.reserve(call_id, estimatedMinutes=0.5, **paired).json()
    assert answered["success"]
    if way == 2:
        vapi = Vapi(ingress, backend.caller, answered["assistantOverrides"])
    yield
    vapi.report_in_progress()
    yield
    run(backend)
    if way == 3 and number % 8 == 3:
        assert backend.reserve(call_id, vapiCallId=vapi.id).status_code == 200
        yield
    vapi.report_end(seconds)
    yield
    run(backend)
    late = {"vapiCallId": vapi.id} if way == 3 else {}
    done = backend.post(COMMIT, callId=call_id, durationSeconds=seconds, **late)
    assert (done.status_code, done.json()["chargedMicros"]) == (200, seconds * CENT), done.text
