"""Calls at the sandbox's Vapi and Twilio: refreshed, warned, ended and settled."""

from __future__ import annotations

import json

from base.clock import wait_until
from db.models import Alert
from domain.calls import ending
from domain.calls.settings import Terms
from domain.calls.settlement import settle_by_api
from domain.calls.tick import due_organizations, tick
from tests.support.sandbox import SANDBOX_SECONDS


def test_refresh_records_that_a_call_is_in_progress(phone):
    call_id = phone.call()
    row = phone.row(call_id)
    assert (row.status, row.metered_from is not None) == ("in_progress", True)
    assert row.twilio_call_sid is not None


def test_refresh_settles_an_ended_call_for_its_actual_duration(phone):
    # Given a call that has ended, of which no message reached us
    call_id = phone.call(talk_seconds=0.3)
    provider_call_id = phone.row(call_id).provider_call_id
    assert wait_until(
        lambda: phone.seen(provider_call_id)["call"]["status"] == "ended",
        limit_seconds=SANDBOX_SECONDS,
    )
    # When it is refreshed
    assert phone.run("look_at_call", call_id) == "done"
    # Then the one second that it began is charged, and the rest of its hold is released
    row, wallet = phone.row(call_id), phone.world.wallet(phone.id)
    assert (row.status, row.cost_micros, row.settled_by) == ("ended", 10_000, "look")
    assert (wallet.balance_micros, wallet.held_micros) == (990_000, 0)


def test_call_hears_the_reason_and_ends(phone):
    # Given a call that must end
    call_id = phone.call()
    phone.decide(call_id)
    phone.run_until_over(call_id)
    # Then the ending text was spoken first, and the provider's report settled the call
    row = phone.row(call_id)
    spoken = phone.seen(row.provider_call_id)["spoken"]
    assert [one["text"] for one in spoken] == [Terms().ending_text]
    assert row.end_decided_at <= row.end_told_at <= row.ended_seen_at
    assert row.settled_at is not None
    assert phone.hold(call_id).status == "committed"


def test_deaf_call_is_ended_by_twilio(phone):
    call_id = phone.call(behaviour={"deaf": True})
    phone.decide(call_id)
    phone.run_until_over(call_id)
    row = phone.row(call_id)
    assert row.end_rounds > ending.VAPI_ROUNDS
    assert phone.seen(row.provider_call_id)["leg"]["status"] == "completed"


def test_call_that_cannot_be_ended_is_alerted_and_keeps_its_hold(phone):
    # Given a call that obeys no order, and a Twilio that does not answer
    call_id = phone.call(behaviour={"deaf": True, "ignore_max_duration": True})
    phone.world.sandbox.fault("twilio", "status", status=500, match={"path_contains": "/Calls/"})
    phone.decide(call_id)
    # When the order was repeated several times
    phone.rounds(call_id, ending.ALERT_ROUND)
    # Then an alert is open, and the hold still has the money
    alerts = phone.world.read(Alert, kind="call_not_ended", subject=call_id)
    assert [alert.cleared_at for alert in alerts] == [None]
    assert phone.hold(call_id).status == "open"


def test_twilio_ends_the_call_at_once_while_vapi_is_away(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503)
    phone.decide(call_id)
    phone.world.run_due()
    assert phone.seen(phone.row(call_id).provider_call_id)["leg"]["status"] == "completed"
    assert phone.row(call_id).status == "in_progress", "nobody but its provider makes it ended"


def test_suspension_ends_live_calls_and_charges_their_duration(phone):
    # Given a live call of an organization whose subscription PayPal then suspends
    call_id = phone.call()
    one = phone.customer.subscription_id
    phone.world.set_status_at_paypal(one, "SUSPENDED")
    kind = "BILLING.SUBSCRIPTION.SUSPENDED"
    body = json.dumps({"id": "WH-1", "event_type": kind, "resource": {"id": one}}).encode()
    # When PayPal reports the suspension
    assert phone.world.receive("WH-1", kind, body) == "new"
    phone.run_until_over(call_id)
    # Then the call ends for that cause, and each second that it began is charged
    row, wallet = phone.row(call_id), phone.world.wallet(phone.id)
    assert row.end_cause == "subscription_inactive"
    assert phone.seen(row.provider_call_id)["call"]["status"] == "ended"
    assert row.cost_micros == -(-row.duration_ms // 1_000) * 10_000 > 0
    assert (wallet.balance_micros, wallet.held_micros) == (1_000_000 - row.cost_micros, 0)
    # And the subaccounts that carry its calls are suspended
    sids = phone.customer.sids
    assert [phone.world.twilio_status(sid) for sid in sids] == ["suspended", "suspended"]


def test_call_that_the_company_settled_first_is_ended_once_it_talks(phone):
    # Given a call that the company settled before we knew that it is in progress
    call_id = phone.dial()
    phone.world.do(lambda session, now: settle_by_api(session, phone.id, call_id, 0, now))
    # When the worker refreshes it
    phone.run("look_at_call", call_id)
    assert phone.row(call_id).status == "in_progress"
    assert len(phone.alerts("call_not_ended", call_id)) == 1
    # Then it ends, and no money moves
    phone.run_until_over(call_id)
    assert phone.row(call_id).end_cause == "settled"
    assert phone.alerts("call_not_ended", call_id) == []
    assert phone.world.wallet(phone.id).balance_micros == 1_000_000


def test_tick_ends_a_call_before_its_money_is_used_up(phone):
    # Given a call with a hold on all the money, and a tick when the hold is nearly used up
    call_id = phone.call(seconds=100)
    row = phone.row(call_id)

    def late(session, now):
        later = row.metered_from.replace() + (now - now)
        return tick(session, phone.id, later.fromtimestamp(later.timestamp() + 95, later.tzinfo))

    assert phone.world.do(due_organizations_now) == [phone.id]
    done = phone.world.do(late)
    assert (done.ended, phone.row(call_id).end_cause) == (1, "insufficient_funds")


def due_organizations_now(session, now):
    return due_organizations(session, now, 10)
