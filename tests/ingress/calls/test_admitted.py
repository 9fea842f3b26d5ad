"""Admission of incoming calls: a hold and a maximum duration, or a spoken refusal.

Vapi always gets its answer in time, even if the database is slow, locked or away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from base.clock import wait_until
from base.operators import Operator
from domain import operator_actions
from domain.calls.admission import Admission
from domain.calls.reservations import reserve_for_call
from domain.calls.settings import Terms
from ingress.calls.deadline import ANSWER_SECONDS, AT_ONCE_MAX
from ingress.calls.responses import _withdraw
from tests.ingress.calls.callers import Caller, send

REFUSED = {"error": Terms().refusal_text}
LIMIT_SECONDS = 15.0


def test_call_is_admitted_with_a_first_hold_and_capped_at_the_available(caller, ingress):
    # Given money for 100 seconds, and hold steps of 60 seconds
    # When a call arrives
    asked = caller.message("assistant-request")
    answer = send(ingress, asked).json()

    # Then the answer names the assistant, the maximum duration and our ids
    (call,), (hold,) = caller.calls(), caller.holds()
    assert answer == {
        "assistantId": caller.assistant_id,
        "assistantOverrides": {
            "maxDurationSeconds": 100,
            "metadata": {"holdfast_organization": caller.id, "holdfast_call": call.id},
        },
    }
    # And the first step is held
    assert (hold.call_id, hold.reserved_micros) == (call.id, 600_000)
    assert call.provider_call_id == asked["call"]["id"]
    assert (call.our_party, call.their_party) == ("…0099", "…0006")
    assert caller.world.wallet(caller.id).held_micros == 600_000


def test_sandbox_call_follows_the_answer(caller, ingress):
    made = ingress.sandbox.control(
        "POST",
        "/vapi/calls",
        {"direction": "inbound", "number_id": caller.number_id, "talk_seconds": 0.2},
    )
    path = f"/vapi/calls/{made['id']}"
    assert wait_until(
        lambda: ingress.sandbox.control("GET", path)["ended"] is not None, limit_seconds=15
    )
    seen = ingress.sandbox.control("GET", path)
    assert seen["decision"]["verdict"] == "admitted"
    assert seen["longest_seconds"] == 100
    # And once its report is processed, the second that had begun is charged
    caller.world.run_due()

    def settled() -> bool:
        caller.world.run_due()
        return caller.calls()[0].settled_at is not None

    assert wait_until(settled, limit_seconds=LIMIT_SECONDS)
    assert caller.calls()[0].cost_micros == 10_000
    wallet = caller.world.wallet(caller.id)
    assert (wallet.balance_micros, wallet.held_micros) == (990_000, 0)


@pytest.mark.parametrize("micros", [99_999, 0])
def test_call_is_refused_with_a_text_without_money_for_ten_seconds(world, ingress, micros):
    caller = Caller(world, micros=micros)
    assert send(ingress, caller.message("assistant-request")).json() == REFUSED
    assert [one.refusal for one in caller.calls()] == ["INSUFFICIENT_FUNDS"]
    assert caller.holds() == []


def test_call_is_admitted_with_money_for_ten_seconds(world, ingress):
    caller = Caller(world, micros=100_000)
    answer = send(ingress, caller.message("assistant-request")).json()
    assert answer["assistantOverrides"]["maxDurationSeconds"] == 10
    assert caller.world.wallet(caller.id).held_micros == 100_000


def test_frozen_organization_is_refused(caller, ingress):
    caller.world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, caller.id, operator=Operator("me", "test"), now=now
        )
    )
    assert send(ingress, caller.message("assistant-request")).json() == REFUSED
    assert caller.holds() == []


def test_refused_call_hears_the_organizations_text(caller, ingress):
    caller.terms(refusal_text="Please top up first.")
    caller.entry_point(None)
    answered = send(ingress, caller.message("assistant-request")).json()
    assert answered == {"error": "Please top up first."}


def test_call_to_an_unknown_number_is_refused(caller, ingress):
    message = caller.message("assistant-request")
    message["phoneNumber"]["id"] = message["call"]["phoneNumberId"] = "another"
    assert send(ingress, message).json() == REFUSED
    assert caller.calls() == []


def test_fifty_of_the_same_request_at_once_are_one_call_and_one_hold(caller, ingress):
    message = caller.message("assistant-request")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: send(ingress, message).json(), range(50)))
    let_in = [one for one in answers if "assistantId" in one]
    # An answer after the deadline is a refusal, but the other requests still get its decision.
    assert let_in and all(one == let_in[0] for one in let_in)
    assert wait_until(lambda: len(caller.calls()) == 1, limit_seconds=LIMIT_SECONDS)
    assert [hold.reserved_micros for hold in caller.holds()] == [600_000]


def test_three_of_fifty_predialled_contacts_are_eligible(world, ingress):
    # Given money for three first holds, and fifty contacts of one campaign
    caller = Caller(world, micros=1_800_000)
    caller.campaign("campaign-1")
    number = "+15005550006"

    def ask(place: int) -> bool:
        contact = {"id": f"contact-{place}", "campaignId": "campaign-1", "number": number}
        asked = {"type": "campaign.predial", "campaignId": "campaign-1", "contact": contact}
        return send(ingress, asked).json()["eligible"]

    # When Vapi asks about all of them at once
    # (an answer after the deadline is a refusal, and Vapi may ask again)
    def eligible() -> int:
        with ThreadPoolExecutor(50) as pool:
            return sum(pool.map(ask, range(50)))

    # Then three are eligible, and the whole balance is held for them
    assert wait_until(lambda: eligible() == 3, limit_seconds=LIMIT_SECONDS)
    open_holds = [one.reserved_micros for one in caller.holds() if one.status == "open"]
    assert open_holds == [600_000] * 3
    assert caller.world.wallet(caller.id).held_micros == 1_800_000


def test_repeated_request_gets_the_same_answer_while_the_call_lives(caller, ingress):
    message = caller.message("assistant-request")
    first = send(ingress, message).json()
    assert send(ingress, message).json() == first
    assert len(caller.holds()) == 1


def test_unverified_request_is_refused_without_a_decision(caller, ingress):
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}):
        answer = send(ingress, caller.message("assistant-request"), **headers)
        assert answer.status_code == 401
    assert caller.calls() == []


def test_call_is_refused_in_time_while_the_wallet_is_locked(caller, ingress):
    # Given a transaction that locks the wallet for longer than the deadline of an admission
    locked, release = threading.Event(), threading.Event()

    def hold_it(session, now):
        session.execute(text("SELECT wallet_lock(:id)"), {"id": caller.id})
        locked.set()
        release.wait(LIMIT_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(caller.world.do, hold_it)
        locked.wait(LIMIT_SECONDS)
        # When a call arrives
        answer = send(ingress, caller.message("assistant-request"))
        # Then it is refused with the spoken text
        assert (answer.status_code, answer.json()) == (200, REFUSED)
        release.set()
        holding.result()
    # And no money stays held for it
    assert wait_until(
        lambda: caller.world.wallet(caller.id).held_micros == 0, limit_seconds=LIMIT_SECONDS
    )


def test_late_admission_is_undone_by_its_own_id(caller, far, way):
    # Given a database whose answers arrive late
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.late_seconds = 0.5
    # When a call arrives
    answer = send(far, caller.message("assistant-request")).json()
    way.late_seconds = 0.0
    # Then it is refused
    assert answer == REFUSED

    # And the hold that the late decision made is released
    def undone() -> bool:
        return [call.settled_by for call in caller.calls()[1:]] == ["withdrawn"]

    assert wait_until(undone, limit_seconds=LIMIT_SECONDS)
    assert sorted(hold.status for hold in caller.holds()) == ["open", "released"]


@pytest.mark.parametrize(("is_new", "status"), [(True, "released"), (False, "open")])
def test_late_admission_is_undone_only_if_it_created_the_call(caller, is_new, status):
    # Given a call with a hold, about which Vapi has sent nothing
    caller.world.do(
        lambda session, now: reserve_for_call(
            session,
            caller.id,
            call_id="c1",
            provider_call_id="vapi-1",
            estimated_seconds=60,
            now=now,
        )
    )
    # When a late answer about it is withdrawn
    late = Admission(caller.id, "c1", None, "", is_new=is_new)
    caller.world.do(lambda session, now: _withdraw(session, late, now))
    # Then the hold is released only if that answer created the call
    (hold,), wallet = caller.holds(), caller.world.wallet(caller.id)
    held = 600_000 if status == "open" else 0
    assert (hold.status, wallet.balance_micros, wallet.held_micros) == (status, 1_000_000, held)


def test_calls_are_refused_in_time_while_the_database_is_silent(caller, far, way):
    def all_at_once(message: Callable[[], dict]) -> list[dict]:
        with ThreadPoolExecutor(AT_ONCE_MAX + 8) as pool:
            sent = [
                pool.submit(lambda: send(far, message()).json()) for _ in range(AT_ONCE_MAX + 8)
            ]
            return [one.result() for one in sent]

    # Given an open connection for each concurrent decision, and a database that then stops
    # answering
    way.late_seconds = 0.05
    all_at_once(lambda: {"type": "campaign.predial", "campaignId": "nobody's"})
    way.late_seconds = 0.0
    way.deaf.set()
    # When more calls arrive than can be decided at once
    began = time.monotonic()
    answers = all_at_once(lambda: caller.message("assistant-request"))
    # Then each is refused, long before Vapi gives up
    assert answers == [REFUSED] * (AT_ONCE_MAX + 8)
    assert time.monotonic() - began < ANSWER_SECONDS + 3
    # And once the database answers again, calls are admitted on new connections, although the old
    # ones stay silent
    way.deaf.clear()

    def let_in() -> bool:
        return "assistantId" in send(far, caller.message("assistant-request")).json()

    assert wait_until(let_in, limit_seconds=LIMIT_SECONDS)


def test_lost_commit_is_decided_again_under_its_own_key(caller, far, way):
    # Given a connection that is lost during the commit, after PostgreSQL has carried it out
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.loses_commits.set()
    # When a call arrives
    answer = send(far, caller.message("assistant-request")).json()
    # Then it is admitted, with the one hold that was made
    assert not way.loses_commits.is_set(), "no commit was lost"
    first, second = sorted(caller.calls(), key=lambda call: call.created_at)
    assert answer["assistantOverrides"]["metadata"]["holdfast_call"] == second.id
    assert sorted(hold.call_id for hold in caller.holds()) == sorted([first.id, second.id])


@pytest.mark.parametrize("fail_open", [True, False])
def test_organizations_setting_decides_while_the_database_is_away(
    caller, start_ingress, settings, start_far, way, fail_open
):
    # Given an organization's choice that the ingress has read, and then no database
    caller.terms(fail_open=fail_open, fail_open_seconds=30)
    far = start_far()
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.cut()
    # When a call arrives
    message = caller.message("assistant-request")
    answer = send(far, message).json()
    if not fail_open:
        assert answer == REFUSED
        return
    # Then it is admitted for the organization's fail-open time
    assert answer["assistantId"] == caller.assistant_id
    assert answer["assistantOverrides"]["maxDurationSeconds"] == 30
    # And its first report stores it under the id that it was given, with a hold
    ours = answer["assistantOverrides"]["metadata"]
    message |= {"type": "status-update", "status": "in-progress"}
    message["call"]["assistantOverrides"] = {"metadata": ours}
    assert send(start_ingress(settings), message).status_code == 200
    caller.world.run_due()
    (call,) = [one for one in caller.calls() if one.id == ours["holdfast_call"]]
    assert (call.fail_open, call.status, call.metered_from is not None) == (
        True,
        "in_progress",
        True,
    )
    assert [hold.call_id for hold in caller.holds()].count(call.id) == 1
