"""Provider messages about a call: late, repeated, in any order, with one result."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from base.facts import CallReport
from domain.calls import status_updates
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT
from tests.domain.support import T0, later

#: All messages and refreshes about a call that talked for thirty seconds.
MESSAGES = ("ringing", "in_progress", "ended", "report", "refresh")
#: A set with a refresh that ran while the call still talked.
EARLY = ("queued", "in_progress", "refresh in progress", "ended", "report")


def apply_message(session, customer, call_id, message, now):
    """Apply one message, report or refresh."""
    external_id = f"{call_id}-{customer.id}"
    if message == "report":
        facts = customer.facts(external_id, "ended", duration_ms=30_000)
        status_updates.apply_report(session, CallReport(facts, final=True), now, now)
    elif message.startswith("refresh"):
        status = "in_progress" if message.endswith("progress") else "ended"
        duration_ms = 30_000 if status == "ended" else None
        facts = customer.facts(external_id, status, duration_ms=duration_ms, started_at=later(-5))
        status_updates.apply_refresh(session, customer.id, call_id, facts, now)
    else:
        report = CallReport(customer.facts(external_id, message), final=False, talking_ms=0)
        status_updates.apply_report(session, report, now, now)


def send_all(customer, call_id, order):
    customer.reserve(call_id, seconds=40, provider=f"{call_id}-{customer.id}")

    def send(session):
        for second, message in enumerate(order):
            apply_message(session, customer, call_id, message, later(second))

    customer.do(send)


def final_state(customer, call_id):
    """Return a call's final state, how often it was settled, and its hold."""
    call, hold, timeline = (
        customer.call(call_id),
        customer.hold(call_id),
        customer.timeline(call_id),
    )
    return (
        (call.status, call.duration_ms, call.cost_micros, call.tick_at),
        (timeline.count("settled"), timeline.count("ended"), timeline.count("in_progress") <= 1),
        (hold.status, hold.billed_micros, hold.captured_micros),
    )


FINAL_STATE = (
    ("ended", 30_000, 30 * CENT, None),
    (1, 1, True),
    ("committed", 30 * CENT, 30 * CENT),
)


def assert_final_state(customer, orders):
    customer.pay(100_000)
    for number, order in enumerate(orders):
        send_all(customer, f"c{number}", order)
    for number, order in enumerate(orders):
        assert final_state(customer, f"c{number}") == FINAL_STATE, order
    assert customer.cents() == (100_100 - 30 * len(orders), 0, 0)
    assert customer.alerts("call_differs") == customer.alerts("call_unsettled") == []


@pytest.mark.parametrize("first", MESSAGES)
def test_every_order_of_messages_leads_to_the_same_end_and_cost(customer, first):
    rest = [message for message in MESSAGES if message != first]
    assert_final_state(customer, [(first, *others) for others in permutations(rest)])


def test_every_order_around_an_early_refresh_leads_to_the_same_end(customer):
    assert_final_state(customer, list(permutations(EARLY)))


def test_repeated_messages_change_nothing(customer):
    chance = random.Random(1)
    orders = chance.sample(list(permutations(MESSAGES)), 40)
    twice = [[message for message in order for _ in range(2)] for order in orders[:20]]
    assert_final_state(customer, [*twice, *([*order, *reversed(order)] for order in orders[20:])])


def test_concurrent_messages_lead_to_the_same_end(customer):
    # Given each message twice, each in a separate thread and transaction
    for number in range(4):
        call_id = f"c{number}"
        customer.reserve(call_id, seconds=20, provider=f"{call_id}-{customer.id}")

        def sender(message, call_id=call_id):
            return lambda: customer.do(
                lambda s: apply_message(s, customer, call_id, message, later(9))
            )

        results = at_once([with_retries(sender(message)) for message in MESSAGES * 2])
        assert not [one for one in results if isinstance(one, BaseException)]
        state, counts, _ = final_state(customer, call_id)
        assert (state, counts) == (FINAL_STATE[0], FINAL_STATE[1])
        customer.pay(20)
    assert customer.cents() == (100 + 80 - 120, 0, 0)


# Single messages


def test_message_behind_the_known_status_changes_nothing(customer):
    customer.reserve()
    customer.report_status(customer.call(), "in_progress", later(10))
    for message in ("queued", "ringing", "in_progress"):
        customer.report_status(customer.call(), message, later(20))
    call = customer.call()
    assert (call.status, call.metered_from, call.seen_at) == ("in_progress", later(10), later(20))
    assert customer.timeline() == ["reserved", "in_progress"]


def test_late_in_progress_does_not_reopen_an_ended_call(customer):
    customer.reserve()
    customer.report_status(customer.call(), "ended", later(10), ended_reason="customer-ended-call")
    customer.report_status(customer.call(), "in_progress", later(11))
    call = customer.call()
    assert (call.status, call.tick_at, call.metered_from) == ("ended", None, None)
    assert (call.ended_seen_at, call.ended_reason) == (later(10), "customer-ended-call")
    # The hold waits for the report
    assert (customer.hold().status, call.settled_at) == ("open", None)


def test_unknown_status_is_noted_and_changes_nothing_else(customer):
    customer.reserve()
    customer.report_status(customer.call(), None, later(5), anomalies=("status",))
    call = customer.call()
    assert (call.status, call.oddities, call.seen_at) == ("admitted", ["status"], None)


def test_forwarding_continues_or_starts_a_conversation(customer):
    customer.reserve("c1")
    customer.report_status(customer.call("c1"), "in_progress", later(10))
    customer.report_status(customer.call("c1"), "forwarding", later(20))
    assert (customer.call("c1").status, customer.call("c1").metered_from) == (
        "forwarding",
        later(10),
    )
    customer.reserve("c2")
    customer.report_status(customer.call("c2"), "forwarding", later(20))
    assert customer.call("c2").metered_from == later(20)


def test_known_ids_of_a_call_are_kept_and_cost_and_start_are_updated(customer):
    customer.reserve(provider=None)
    sid, account = "CA" + "a" * 32, "AC" + "b" * 32
    customer.report_status(
        f"v-{customer.id}"[:64],
        "ringing",
        later(1),
        **customer.metadata(),
        twilio_call_sid=sid,
        twilio_account_sid=account,
        assistant_id="as-1",
        our_party="…0099",
        their_party="…0006",
        provider_cost_micros=5,
        anomalies=("b",),
    )
    customer.report_status(
        customer.call(),
        "in_progress",
        later(2),
        twilio_call_sid="CA" + "c" * 32,
        their_party="…9999",
        started_at=later(1.5),
        provider_cost_micros=7,
        anomalies=("a", "b"),
    )
    call = customer.call()
    assert call.provider_call_id == f"v-{customer.id}"[:64]
    assert (call.twilio_call_sid, call.twilio_account_sid) == (sid, account)
    assert (call.assistant_id, call.our_party, call.their_party) == ("as-1", "…0099", "…0006")
    assert (call.provider_cost_micros, call.started_at) == (7, later(1.5))
    assert call.oddities == ["a", "b"]


# Start of the charge


@pytest.mark.parametrize(
    ("talking_ms", "received", "began"),
    [
        # Reported at once, and just started
        (0, 20, 20),
        (None, 20, 20),
        # Started before the message, by the provider's clock
        (4_000, 20, 16),
        # Received long before it was applied
        (1_000, 12, 11),
        # The longest possible call; a longer duration is not believed
        (43_260_000, 20, 20 - 43_260),
        (43_260_001, 20, 20),
        (10**18, 20, 20),
        (-1, 20, 20),
    ],
)
def test_call_is_charged_from_its_start_by_the_providers_clock(
    customer, talking_ms, received, began
):
    customer.reserve()
    customer.report_status(
        customer.call(),
        "in_progress",
        later(20),
        received_at=later(received),
        talking_ms=talking_ms,
    )
    call = customer.call()
    assert call.metered_from == call.started_at == later(began)
    assert call.tick_at == later(20), "it is looked at at once"


def test_admitted_call_is_charged_from_admission_or_its_later_start(customer):
    call_id = customer.admit_call()
    assert customer.call(call_id).metered_from == T0
    # The call cannot have started before its admission
    customer.report_status(customer.call(call_id), "in_progress", later(3), talking_ms=60_000)
    assert customer.call(call_id).metered_from == T0
    other = customer.admit_call(later(10))
    customer.report_status(customer.call(other), "in_progress", later(15), talking_ms=1_000)
    assert customer.call(other).metered_from == later(14)


def test_a_talk_never_begins_later_than_now(customer):
    customer.reserve()
    customer.report_status(customer.call(), "in_progress", later(20), received_at=later(25))
    assert customer.call().metered_from == later(20)


def test_refresh_sets_the_start_of_the_conversation(customer):
    customer.reserve()
    customer.refresh(customer.call(), "in_progress", later(30), started_at=later(12))
    assert (customer.call().metered_from, customer.call().started_at) == (later(12), later(12))


def test_a_call_that_is_ending_is_not_metered_when_it_begins(customer):
    customer.reserve()
    customer.decide("c1", later(1))
    customer.report_status(customer.call(), "in_progress", later(2))
    assert (customer.call().status, customer.call().tick_at) == ("in_progress", None)
