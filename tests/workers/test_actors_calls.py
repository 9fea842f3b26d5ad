"""Calls over the sandbox's Vapi and Twilio: looked at, warned, ended, whatever they do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from base.clock import wait_until
from base.enums import EndCause
from db.call_models import Call, CallTimeline
from db.models import Alert, CallHold
from domain.calls import admission, endings
from domain.calls.endings import decide_ending, end_live_calls
from domain.calls.rates import Rate, set_rate
from domain.calls.rows import call_and_wallet
from domain.calls.terms import Terms, set_terms
from domain.calls.ticks import due_organizations, tick
from tests.world import World

LIMIT_SECONDS = 10.0
#: A cent a second, counted by the second.
RATE = Rate(600_000, 1)


class Phone:
    """A customer whose calls live at the sandbox, through one of its subaccounts."""

    def __init__(self, world: World, micros: int = 1_000_000) -> None:
        self.world = world
        self.customer = world.customer(micros=micros)
        self.id = self.customer.id
        world.do(
            lambda session, now: set_rate(session, self.id, RATE, by="me", why="test", now=now)
        )
        self.terms(step_seconds=10, warn_before_seconds=0)

    def terms(self, **changes) -> None:
        self.world.do(
            lambda session, now: set_terms(
                session, self.id, replace(Terms(), **changes), by="me", why="test", now=now
            )
        )

    def call(self, seconds: int = 30, **more) -> str:
        """A call in progress at the sandbox that we hold money for and know of."""
        made = self.world.sandbox.control(
            "POST",
            "/vapi/calls",
            {
                "twilio_sid": self.customer.sids[0],
                "deliver": False,
                "queued_seconds": 0,
                "ring_seconds": 0,
                **more,
            },
        )
        call_id = f"c-{made['id'][:8]}"
        reserved = self.world.do(
            lambda session, now: admission.reserve_for_call(
                session,
                self.id,
                call_id=call_id,
                provider_call_id=made["id"],
                estimated_seconds=seconds,
                now=now,
            )
        )
        assert reserved.outcome.ok
        assert wait_until(
            lambda: self.seen(made["id"])["call"]["status"] != "queued", limit_seconds=LIMIT_SECONDS
        )
        self.run("look_at_call", call_id)
        return call_id

    def seen(self, provider_call_id: str) -> dict:
        return self.world.sandbox.control("GET", f"/vapi/calls/{provider_call_id}")

    def row(self, call_id: str) -> Call:
        return self.world.read(Call, organization_id=self.id, id=call_id)[0]

    def hold(self, call_id: str) -> CallHold:
        return self.world.read(CallHold, organization_id=self.id, call_id=call_id)[0]

    def timeline(self, call_id: str) -> list[str]:
        rows = self.world.read(CallTimeline, organization_id=self.id, call_id=call_id)
        return [row.what for row in sorted(rows, key=lambda row: row.id)]

    def run(self, job: str, call_id: str) -> str:
        job_id = self.world.stage(job, organization_id=self.id, call_id=call_id)
        return self.world.executor.execute(job_id)

    def decide(self, call_id: str) -> None:
        def work(session, now):
            call, _ = call_and_wallet(session, self.id, call_id)
            assert decide_ending(session, call, EndCause.OPERATOR, now)

        self.world.do(work)

    def run_until_over(self, call_id: str) -> None:
        def over() -> bool:
            self.world.due_now()
            self.world.run_due()
            return self.row(call_id).status == "ended"

        assert wait_until(over, limit_seconds=LIMIT_SECONDS)


@pytest.fixture
def phone(world):
    return Phone(world)


def test_a_look_takes_in_that_a_call_is_in_progress(phone):
    call_id = phone.call()
    row = phone.row(call_id)
    assert (row.status, row.metered_from is not None) == ("in_progress", True)
    assert row.twilio_call_sid is not None


def test_an_ended_call_is_settled_by_a_look_for_its_real_duration(phone):
    # Given a call that has ended, of which no message reached us
    call_id = phone.call(talk_seconds=0.3)
    provider_call_id = phone.row(call_id).provider_call_id
    assert wait_until(
        lambda: phone.seen(provider_call_id)["call"]["status"] == "ended",
        limit_seconds=LIMIT_SECONDS,
    )
    # When it is asked about
    assert phone.run("look_at_call", call_id) == "done"
    # Then it is charged the one second that it began, and the rest of its hold is free again
    row, wallet = phone.row(call_id), phone.world.wallet(phone.id)
    assert (row.status, row.cost_micros, row.settled_by) == ("ended", 10_000, "look")
    assert (wallet.balance_micros, wallet.held_micros) == (990_000, 0)


def test_a_call_is_told_why_and_ends(phone):
    # Given a call that is to end
    call_id = phone.call()
    phone.decide(call_id)
    phone.run_until_over(call_id)
    # Then it was told first, and settled by the provider's word
    row = phone.row(call_id)
    spoken = phone.seen(row.provider_call_id)["spoken"]
    assert [one["text"] for one in spoken] == [Terms().ending_text]
    assert row.end_decided_at <= row.end_told_at <= row.ended_seen_at
    assert row.settled_at is not None
    assert phone.hold(call_id).status == "committed"


def test_a_deaf_call_is_ended_by_twilio(phone):
    call_id = phone.call(behaviour={"deaf": True})
    phone.decide(call_id)
    phone.run_until_over(call_id)
    row = phone.row(call_id)
    assert row.end_rounds > endings.VAPI_ROUNDS
    assert phone.seen(row.provider_call_id)["leg"]["status"] == "completed"


def test_a_call_that_nobody_can_end_is_told_to_a_person_and_keeps_its_hold(phone):
    # Given a call that hears nothing, and a Twilio that does not answer either
    call_id = phone.call(behaviour={"deaf": True, "ignore_max_duration": True})
    phone.world.sandbox.fault("twilio", "status", status=500, match={"path_contains": "/Calls/"})
    phone.decide(call_id)
    # When it has been told again and again
    for _ in range(endings.ALERT_ROUND):
        phone.world.due_now()
        phone.world.run_due()
    # Then a person knows, and the money is still held
    alerts = phone.world.read(Alert, kind="call_not_ended", subject=call_id)
    assert [alert.cleared_at for alert in alerts] == [None]
    assert phone.hold(call_id).status == "open"


def test_while_vapi_is_away_twilio_ends_the_call_at_once(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503)
    phone.decide(call_id)
    phone.world.run_due()
    assert phone.seen(phone.row(call_id).provider_call_id)["leg"]["status"] == "completed"
    assert phone.row(call_id).status == "in_progress", "nobody but its provider makes it ended"


def test_a_suspension_ends_live_calls(phone):
    call_id = phone.call()
    phone.world.do(
        lambda session, now: end_live_calls(session, phone.id, EndCause.SUBSCRIPTION_INACTIVE, now)
    )
    phone.run_until_over(call_id)
    assert phone.row(call_id).end_cause == "subscription_inactive"


def test_the_tick_ends_a_call_before_its_money_does(phone):
    # Given a call on all the money there is, and a tick once it is nearly used up
    call_id = phone.call(seconds=100)
    row = phone.row(call_id)

    def late(session, now):
        later = row.metered_from.replace() + (now - now)
        return tick(session, phone.id, later.fromtimestamp(later.timestamp() + 95, later.tzinfo))

    assert phone.world.do(due_organizations_now) == [phone.id]
    done = phone.world.do(late)
    assert (done.ended, phone.row(call_id).end_cause) == (1, "credit_gone")


def due_organizations_now(session, now):
    return due_organizations(session, now, 10)
