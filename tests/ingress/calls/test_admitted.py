"""Calls that ring in: let in with a hold and a cap, or refused aloud, in time, whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from base.clock import wait_until
from domain import operator_actions as operators
from domain.calls.admission import Admission
from domain.calls.reservations import reserve_for_call
from domain.calls.settings import Terms
from ingress.calls.deadline import ANSWER_SECONDS, AT_ONCE_MAX
from ingress.calls.responses import _withdraw
from tests.ingress.calls.callers import Caller, send

REFUSED = {"error": Terms().refusal_text}
LIMIT_SECONDS = 15.0


def test_a_call_is_let_in_with_a_first_hold_and_capped_at_what_is_available(caller, ingress):
    # Given money for 100 seconds, and steps of 60
    # When a call rings in
    asked = caller.message("assistant-request")
    answer = send(ingress, asked).json()

    # Then who answers, for how long, and our ids are told
    (call,), (hold,) = caller.calls(), caller.holds()
    assert answer == {
        "assistantId": caller.assistant_id,
        "assistantOverrides": {
            "maxDurationSeconds": 100,
            "metadata": {"holdfast_organization": caller.id, "holdfast_call": call.id},
        },
    }
    # And a first step of it is held
    assert (hold.call_id, hold.reserved_micros) == (call.id, 600_000)
    assert call.provider_call_id == asked["call"]["id"]
    assert (call.our_party, call.their_party) == ("…0099", "…0006")
    assert caller.world.wallet(caller.id).held_micros == 600_000


def test_the_sandbox_obeys_the_answer(caller, ingress):
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
    # And once its report is taken in, it is charged the second that it began
    caller.world.run_due()

    def settled() -> bool:
        caller.world.run_due()
        return caller.calls()[0].settled_at is not None

    assert wait_until(settled, limit_seconds=LIMIT_SECONDS)
    assert caller.calls()[0].cost_micros == 10_000
    wallet = caller.world.wallet(caller.id)
    assert (wallet.balance_micros, wallet.held_micros) == (990_000, 0)


@pytest.mark.parametrize("micros", [99_999, 0])
def test_without_money_for_ten_seconds_it_is_refused_aloud(world, ingress, micros):
    caller = Caller(world, micros=micros)
    assert send(ingress, caller.message("assistant-request")).json() == REFUSED
    assert [one.refusal for one in caller.calls()] == ["INSUFFICIENT_FUNDS"]
    assert caller.holds() == []


def test_with_money_for_just_ten_seconds_it_is_let_in(world, ingress):
    caller = Caller(world, micros=100_000)
    answer = send(ingress, caller.message("assistant-request")).json()
    assert answer["assistantOverrides"]["maxDurationSeconds"] == 10
    assert caller.world.wallet(caller.id).held_micros == 100_000


def test_a_frozen_organization_is_refused(caller, ingress):
    caller.world.do(
        lambda session, now: operators.freeze_by_hand(
            session, caller.id, by="me", why="test", now=now
        )
    )
    assert send(ingress, caller.message("assistant-request")).json() == REFUSED
    assert caller.holds() == []


def test_what_is_said_to_those_who_are_refused_is_the_organizations_own(caller, ingress):
    caller.terms(refusal_text="Please top up first.")
    caller.door(None)
    told = send(ingress, caller.message("assistant-request")).json()
    assert told == {"error": "Please top up first."}


def test_a_number_that_is_nobodys_is_refused(caller, ingress):
    message = caller.message("assistant-request")
    message["phoneNumber"]["id"] = message["call"]["phoneNumberId"] = "another"
    assert send(ingress, message).json() == REFUSED
    assert caller.calls() == []


def test_fifty_of_the_same_request_at_once_are_one_call_and_one_hold(caller, ingress):
    message = caller.message("assistant-request")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: send(ingress, message).json(), range(50)))
    let_in = [one for one in answers if "assistantId" in one]
    # Whoever was late was refused, and what it decided stands for the others.
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
    # (an answer past the deadline is a refusal, and Vapi may ask again)
    def eligible() -> int:
        with ThreadPoolExecutor(50) as pool:
            return sum(pool.map(ask, range(50)))

    # Then three are eligible, and the whole balance is held for them
    assert wait_until(lambda: eligible() == 3, limit_seconds=LIMIT_SECONDS)
    assert [hold.reserved_micros for hold in caller.holds()] == [600_000] * 3
    assert caller.world.wallet(caller.id).held_micros == 1_800_000


def test_a_repeated_request_gets_the_same_answer_while_the_call_lives(caller, ingress):
    message = caller.message("assistant-request")
    first = send(ingress, message).json()
    assert send(ingress, message).json() == first
    assert len(caller.holds()) == 1


def test_without_proof_nothing_is_decided(caller, ingress):
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}):
        answer = send(ingress, caller.message("assistant-request"), **headers)
        assert answer.status_code == 401
    assert caller.calls() == []


def test_while_the_wallet_is_locked_by_another_it_is_refused_in_time_and_nothing_stays(
    caller, ingress
):
    # Given somebody who holds the wallet's lock for longer than a caller waits
    locked, release = threading.Event(), threading.Event()

    def hold_it(session, now):
        session.execute(text("SELECT wallet_lock(:id)"), {"id": caller.id})
        locked.set()
        release.wait(LIMIT_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(caller.world.do, hold_it)
        locked.wait(LIMIT_SECONDS)
        # When a call rings in
        answer = send(ingress, caller.message("assistant-request"))
        # Then it is refused aloud
        assert (answer.status_code, answer.json()) == (200, REFUSED)
        release.set()
        holding.result()
    # And no money stays held for it
    assert wait_until(
        lambda: caller.world.wallet(caller.id).held_micros == 0, limit_seconds=LIMIT_SECONDS
    )


def test_what_was_decided_too_late_is_undone_by_its_own_id(caller, far, way):
    # Given a database whose answers come late
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.late_seconds = 0.5
    # When a call rings in
    answer = send(far, caller.message("assistant-request")).json()
    way.late_seconds = 0.0
    # Then it is refused
    assert answer == REFUSED

    # And the hold that was made all the same is given back
    def undone() -> bool:
        return [call.settled_by for call in caller.calls()[1:]] == ["withdrawn"]

    assert wait_until(undone, limit_seconds=LIMIT_SECONDS)
    assert sorted(hold.status for hold in caller.holds()) == ["open", "released"]


@pytest.mark.parametrize(("is_new", "status"), [(True, "released"), (False, "open")])
def test_a_late_answer_undoes_a_call_only_if_it_made_it_known(caller, is_new, status):
    # Given a call that is held for, and of which Vapi has said nothing
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
    # When an answer about it that came too late is undone
    late = Admission(caller.id, "c1", None, "", is_new=is_new)
    caller.world.do(lambda session, now: _withdraw(session, late, now))
    # Then the hold is released only if that answer made it
    (hold,), wallet = caller.holds(), caller.world.wallet(caller.id)
    held = 600_000 if status == "open" else 0
    assert (hold.status, wallet.balance_micros, wallet.held_micros) == (status, 1_000_000, held)


def test_while_the_database_is_silent_all_are_refused_in_time_and_then_let_in_again(
    caller, far, way
):
    def all_at_once(message: Callable[[], dict]) -> list[dict]:
        with ThreadPoolExecutor(AT_ONCE_MAX + 8) as pool:
            sent = [
                pool.submit(lambda: send(far, message()).json()) for _ in range(AT_ONCE_MAX + 8)
            ]
            return [one.result() for one in sent]

    # Given a connection for each decision, and a database that then answers nothing any more
    way.late_seconds = 0.05
    all_at_once(lambda: {"type": "campaign.predial", "campaignId": "nobody's"})
    way.late_seconds = 0.0
    way.deaf.set()
    # When more calls ring in than are decided at once
    began = time.monotonic()
    answers = all_at_once(lambda: caller.message("assistant-request"))
    # Then each is refused aloud, long before the platform gives up
    assert answers == [REFUSED] * (AT_ONCE_MAX + 8)
    assert time.monotonic() - began < ANSWER_SECONDS + 3
    # And once it speaks again calls are let in, though nobody told those that waited
    way.deaf.clear()

    def let_in() -> bool:
        return "assistantId" in send(far, caller.message("assistant-request")).json()

    assert wait_until(let_in, limit_seconds=LIMIT_SECONDS)


def test_what_is_not_known_to_be_committed_is_decided_again_under_its_own_key(caller, far, way):
    # Given a connection that is lost in the commit, after PostgreSQL has carried it out
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.loses_commits.set()
    # When a call rings in
    answer = send(far, caller.message("assistant-request")).json()
    # Then it is let in, with the one hold that was made
    assert not way.loses_commits.is_set(), "no commit was lost"
    first, second = sorted(caller.calls(), key=lambda call: call.created_at)
    assert answer["assistantOverrides"]["metadata"]["holdfast_call"] == second.id
    assert sorted(hold.call_id for hold in caller.holds()) == sorted([first.id, second.id])


@pytest.mark.parametrize("fail_open", [True, False])
def test_while_the_database_is_away_the_organizations_own_choice_decides(
    caller, start_ingress, settings, start_far, way, fail_open
):
    # Given a choice that the ingress knows of, and then no database
    caller.terms(fail_open=fail_open, fail_open_seconds=30)
    far = start_far()
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.cut()
    # When a call rings in
    message = caller.message("assistant-request")
    answer = send(far, message).json()
    if not fail_open:
        assert answer == REFUSED
        return
    # Then it is let in for so long
    assert answer["assistantId"] == caller.assistant_id
    assert answer["assistantOverrides"]["maxDurationSeconds"] == 30
    # And its first word makes it known under the id that it was given, and held for
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
