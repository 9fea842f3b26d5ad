"""Provider messages about a call: late, repeated, in any order, with one result."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from base.facts import CallReport
from domain.calls import status_updates
from tests.db.support import at_once, patiently
from tests.domain.calls.support import CENT
from tests.domain.support import T0, later

#: All messages and refreshes about a call that talked for thirty seconds.
WORDS = ("ringing", "in_progress", "ended", "report", "refresh")
#: A set with a refresh that ran while the call still talked.
EARLY = ("queued", "in_progress", "refresh in progress", "ended", "report")


def say(session, line, call_id, word, now):
    """Apply one message, report or refresh."""
    external_id = f"{call_id}-{line.id}"
    if word == "report":
        facts = line.facts(external_id, "ended", duration_ms=30_000)
        status_updates.apply_report(session, CallReport(facts, final=True), now, now)
    elif word.startswith("refresh"):
        status = "in_progress" if word.endswith("progress") else "ended"
        duration_ms = 30_000 if status == "ended" else None
        facts = line.facts(external_id, status, duration_ms=duration_ms, started_at=later(-5))
        status_updates.apply_refresh(session, line.id, call_id, facts, now)
    else:
        report = CallReport(line.facts(external_id, word), final=False, talking_ms=0)
        status_updates.apply_report(session, report, now, now)


def send_all(line, call_id, order):
    line.reserve(call_id, seconds=40, provider=f"{call_id}-{line.id}")

    def send(session):
        for second, word in enumerate(order):
            say(session, line, call_id, word, later(second))

    line.do(send)


def came_to(line, call_id):
    """Return a call's final state, how often it was settled, and its hold."""
    call, hold, timeline = line.call(call_id), line.hold(call_id), line.timeline(call_id)
    return (
        (call.status, call.duration_ms, call.cost_micros, call.tick_at),
        (timeline.count("settled"), timeline.count("ended"), timeline.count("in_progress") <= 1),
        (hold.status, hold.billed_micros, hold.captured_micros),
    )


THE_END = (
    ("ended", 30_000, 30 * CENT, None),
    (1, 1, True),
    ("committed", 30 * CENT, 30 * CENT),
)


def lead_all(line, orders):
    line.pay(100_000)
    for number, order in enumerate(orders):
        send_all(line, f"c{number}", order)
    for number, order in enumerate(orders):
        assert came_to(line, f"c{number}") == THE_END, order
    assert line.cents() == (100_100 - 30 * len(orders), 0, 0)
    assert line.alerts("call_differs") == line.alerts("call_unsettled") == []


@pytest.mark.parametrize("first", WORDS)
def test_every_order_of_messages_leads_to_the_same_end_and_cost(line, first):
    rest = [word for word in WORDS if word != first]
    lead_all(line, [(first, *others) for others in permutations(rest)])


def test_every_order_around_an_early_refresh_leads_to_the_same_end(line):
    lead_all(line, list(permutations(EARLY)))


def test_repeated_messages_change_nothing(line):
    chance = random.Random(1)
    orders = chance.sample(list(permutations(WORDS)), 40)
    twice = [[word for word in order for _ in range(2)] for order in orders[:20]]
    lead_all(line, [*twice, *([*order, *reversed(order)] for order in orders[20:])])


def test_concurrent_messages_lead_to_the_same_end(line):
    # Given each message twice, each in a separate thread and transaction
    for number in range(4):
        call_id = f"c{number}"
        line.reserve(call_id, seconds=20, provider=f"{call_id}-{line.id}")

        def sender(word, call_id=call_id):
            return lambda: line.do(lambda s: say(s, line, call_id, word, later(9)))

        results = at_once([patiently(sender(word)) for word in WORDS * 2])
        assert not [one for one in results if isinstance(one, BaseException)]
        state, counts, _ = came_to(line, call_id)
        assert (state, counts) == (THE_END[0], THE_END[1])
        line.pay(20)
    assert line.cents() == (100 + 80 - 120, 0, 0)


# Single messages


def test_message_behind_the_known_status_changes_nothing(line):
    line.reserve()
    line.hear(line.call(), "in_progress", later(10))
    for word in ("queued", "ringing", "in_progress"):
        line.hear(line.call(), word, later(20))
    call = line.call()
    assert (call.status, call.metered_from, call.seen_at) == ("in_progress", later(10), later(20))
    assert line.timeline() == ["reserved", "in_progress"]


def test_late_in_progress_does_not_reopen_an_ended_call(line):
    line.reserve()
    line.hear(line.call(), "ended", later(10), ended_reason="customer-ended-call")
    line.hear(line.call(), "in_progress", later(11))
    call = line.call()
    assert (call.status, call.tick_at, call.metered_from) == ("ended", None, None)
    assert (call.ended_seen_at, call.ended_reason) == (later(10), "customer-ended-call")
    # The hold waits for the report
    assert (line.hold().status, call.settled_at) == ("open", None)


def test_unknown_status_is_noted_and_changes_nothing_else(line):
    line.reserve()
    line.hear(line.call(), None, later(5), anomalies=("status",))
    call = line.call()
    assert (call.status, call.oddities, call.seen_at) == ("admitted", ["status"], None)


def test_forwarding_continues_or_starts_a_conversation(line):
    line.reserve("c1")
    line.hear(line.call("c1"), "in_progress", later(10))
    line.hear(line.call("c1"), "forwarding", later(20))
    assert (line.call("c1").status, line.call("c1").metered_from) == ("forwarding", later(10))
    line.reserve("c2")
    line.hear(line.call("c2"), "forwarding", later(20))
    assert line.call("c2").metered_from == later(20)


def test_known_ids_of_a_call_are_kept_and_cost_and_start_are_updated(line):
    line.reserve(provider=None)
    sid, account = "CA" + "a" * 32, "AC" + "b" * 32
    line.hear(
        f"v-{line.id}"[:64],
        "ringing",
        later(1),
        **line.metadata(),
        twilio_call_sid=sid,
        twilio_account_sid=account,
        assistant_id="as-1",
        our_party="…0099",
        their_party="…0006",
        provider_cost_micros=5,
        anomalies=("b",),
    )
    line.hear(
        line.call(),
        "in_progress",
        later(2),
        twilio_call_sid="CA" + "c" * 32,
        their_party="…9999",
        started_at=later(1.5),
        provider_cost_micros=7,
        anomalies=("a", "b"),
    )
    call = line.call()
    assert call.provider_call_id == f"v-{line.id}"[:64]
    assert (call.twilio_call_sid, call.twilio_account_sid) == (sid, account)
    assert (call.assistant_id, call.our_party, call.their_party) == ("as-1", "…0099", "…0006")
    assert (call.provider_cost_micros, call.started_at) == (7, later(1.5))
    assert call.oddities == ["a", "b"]


# Start of the charge


@pytest.mark.parametrize(
    ("talking_ms", "heard", "began"),
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
def test_call_is_charged_from_its_start_by_the_providers_clock(line, talking_ms, heard, began):
    line.reserve()
    line.hear(line.call(), "in_progress", later(20), heard_at=later(heard), talking_ms=talking_ms)
    call = line.call()
    assert call.metered_from == call.started_at == later(began)
    assert call.tick_at == later(20), "it is looked at at once"


def test_admitted_call_is_charged_from_admission_or_its_later_start(line):
    call_id = line.let_in()
    assert line.call(call_id).metered_from == T0
    # The call cannot have started before its admission
    line.hear(line.call(call_id), "in_progress", later(3), talking_ms=60_000)
    assert line.call(call_id).metered_from == T0
    other = line.let_in(later(10))
    line.hear(line.call(other), "in_progress", later(15), talking_ms=1_000)
    assert line.call(other).metered_from == later(14)


def test_a_talk_never_begins_later_than_now(line):
    line.reserve()
    line.hear(line.call(), "in_progress", later(20), heard_at=later(25))
    assert line.call().metered_from == later(20)


def test_refresh_sets_the_start_of_the_conversation(line):
    line.reserve()
    line.refresh(line.call(), "in_progress", later(30), started_at=later(12))
    assert (line.call().metered_from, line.call().started_at) == (later(12), later(12))


def test_a_call_that_is_ending_is_not_metered_when_it_begins(line):
    line.reserve()
    line.decide("c1", later(1))
    line.hear(line.call(), "in_progress", later(2))
    assert (line.call().status, line.call().tick_at) == ("in_progress", None)
