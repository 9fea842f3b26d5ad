"""Calls of which two things are said or done that do not go together: who pays, and what ends."""

from __future__ import annotations

from functools import partial

import pytest

from domain.calls import ending as endings
from domain.calls import reconcile as watch
from domain.calls import status_check as status
from domain.calls.admission import withdraw
from domain.calls.entry_points import DoorKind
from domain.calls.reconcile import ABSENT_SECONDS, expire_unasked
from domain.calls.settlement import CallSettled, NotSettled
from domain.calls.tick import Ticked
from tests.domain.calls.support import CENT, OVER, Line, absent, execute
from tests.domain.support import forget_jobs, later
from tests.support.world import make_organization

# Who pays


def test_ids_that_a_stranger_gives_along_do_not_have_another_organization_pay(line, other):
    # Given a call that is reserved for, and a stranger who calls another organization's number and
    # names it
    line.reserve("c1", provider=None)
    ours = {"organization_id": line.id, "call_id": "c1"}
    other.hear(f"w-{other.id}", "in_progress", later(5), **ours)
    # Then the one whose number it is pays, and the reserved call waits for its own word
    (call,) = other.calls()
    assert (call.provider_call_id, call.fail_open) == (f"w-{other.id}", False)
    assert line.call("c1").provider_call_id is None
    other.report(call, 10, later(20), **ours)
    assert (line.cents(), other.cents()) == ((100, 30, 0), (90, 0, 0))


def test_one_that_two_organizations_could_have_is_not_a_third_ones_that_it_names(line, other):
    third = Line(line.database, make_organization(line.database))
    other.door(DoorKind.ASSISTANT, other.assistant_id)
    assert not line.hear(
        f"v-{line.id}",
        "in_progress",
        assistant_id=other.assistant_id,
        organization_id=third.id,
        call_id="call_given",
    )
    assert line.calls() == other.calls() == third.calls() == []


@pytest.mark.parametrize("direction", ["web", "outbound"])
def test_only_one_that_rang_in_can_have_been_let_in_without_a_door(line, direction):
    # Whoever begins a call from a browser gives along what he likes
    assert not line.hear(
        f"v-{line.id}",
        "in_progress",
        phone_number_id=None,
        direction=direction,
        **line.fail_open(f"v-{line.id}"),
    )
    assert line.calls() == []


def test_what_a_call_that_is_over_has_of_the_debt_limit_is_not_lent_again(line):
    # Given a call that talked on the debt limit, is over, and whose report is late; and another
    line.debt(60)
    first = "c1"
    line.reserve(first, seconds=60)
    line.hear(line.call(first), "in_progress")
    line.reserve("c2", seconds=40)
    line.tick(later(53))
    assert line.call(first).debt_micros == 60 * CENT
    line.hear(line.call(first), "ended", later(115))
    # When the other has talked for nearly all that it was given
    line.hear(line.call("c2"), "in_progress", later(116))
    now = later(116 + 33)
    remaining = line.do(
        lambda s: (
            status.check_status(
                s, "c2", organization_id=line.id, said_seconds=0, now=now
            ).remaining_seconds
        )
    )
    # Then it gets nothing of what the first has used, and nothing comes to be owed
    assert remaining == 7
    assert line.tick(now) == Ticked(ended=1)
    assert line.call("c2").debt_micros == 0
    line.report(line.call(first), 115, later(160))
    line.report(line.call("c2"), 40, later(161))
    assert line.cents() == (-55, 0, 0)


# What ends


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_one_that_was_to_end_before_it_was_given_up_is_ended_when_it_talks(line, how):
    # Given a call that was to end, and was then given up: its ending is over
    line.reserve("c1", seconds=30, provider=None)
    assert line.decide("c1", later(5))
    if how == "expired":
        assert line.do(lambda s: expire_unasked(s, line.id, later(OVER))) == ["c1"]
    else:
        assert line.do(lambda s: withdraw(s, line.id, "c1", later(OVER)))
    forget_jobs(line.database, line.id)
    # When it talks all the same
    line.hear(f"v-{line.id}", "in_progress", later(940), **line.metadata())
    # Then it is told to end again
    assert line.call("c1").settled_at is None
    assert line.jobs("end_call") == ["c1"]


@pytest.mark.parametrize("was_ending", [False, True])
@pytest.mark.parametrize("seconds", [0, 2])
def test_one_that_talks_although_the_company_has_settled_it_is_ended_and_told(
    line, seconds, was_ending
):
    # Given a call that was settled by the company's word while it rang
    line.reserve("c1", seconds=30)
    line.hear(line.call(), "ringing", later(1))
    if was_ending:
        assert line.decide("c1", later(2))
        forget_jobs(line.database, line.id)
    line.settle_by_api("c1", seconds, later(3))
    # When somebody answers all the same
    line.hear(line.call(), "in_progress", later(5))
    # Then it is ended, round after round until its provider says that it is over, and told
    assert line.jobs("end_call") == ["c1"]
    assert line.call().end_cause == ("operator" if was_ending else "settled")
    assert [one.severity for one in line.alerts("call_not_ended")] == ["critical"]
    assert line.do(lambda s: endings.begin_round(s, line.id, "c1", later(6))).speaks
    # And its price stays the company's word
    line.report(line.call(), 9, later(14))
    assert line.do(lambda s: endings.begin_round(s, line.id, "c1", later(15))) is None
    assert (line.cents(), line.alerts("call_not_ended")) == ((100 - seconds, 0, 0), [])
    assert [one.details["said_ms"] for one in line.alerts("call_differs")] == [9_000]


@pytest.mark.parametrize(("by_company", "by_hand", "cents"), [(2, 2, 98), (0, 9, 91)])
def test_one_that_the_company_settled_and_nobody_hears_the_end_of_is_over_by_an_operators_word(
    line, by_company, by_hand, cents
):
    # Given one that talks although the company has settled it, and of whose end nobody tells
    line.reserve("c1", seconds=30)
    line.settle_by_api("c1", by_company, later(3))
    line.hear(line.call(), "in_progress", later(5))
    absent(line, later(ABSENT_SECONDS + 1), "c1")
    assert line.do(lambda s: endings.begin_round(s, line.id, "c1", later(600))) is not None
    # When an operator says for how long it talked, and not otherwise than it was charged
    if by_company:
        with pytest.raises(NotSettled):
            line.settle_by_hand("c1", 0, later(600))
    line.settle_by_hand("c1", by_hand, later(601))
    # Then it is over, and charged once
    assert line.do(lambda s: endings.begin_round(s, line.id, "c1", later(602))) is None
    assert (line.cents(), line.call().settled_by) == ((cents, 0, 0), "operator")
    with pytest.raises(CallSettled):
        line.settle_by_hand("c1", by_hand, later(603))


def test_one_that_is_settled_and_was_not_heard_to_talk_since_is_told_nothing(line):
    # Given calls that were settled: one that still rings, and one by an operator's word
    line.reserve("c1")
    line.hear(line.call(), "ringing", later(1))
    line.settle_by_api("c1", 0, later(2))
    line.reserve("c2")
    line.settle_by_hand("c2", 0, later(2))
    # When they are frozen, and the second is heard of again
    line.hear(line.call("c2"), "in_progress", later(3))
    line.freeze_by_hand(later(4))
    # Then nobody ends what is over for us
    assert line.jobs("end_call") == []


def test_one_that_its_provider_does_not_know_is_extended_no_more_and_given_back(line):
    # Given a call that was let in, and of which Vapi knows nothing
    call_id = line.let_in()
    absent(line, later(ABSENT_SECONDS), call_id)
    # Then nobody extends its hold any more, so that it comes to its end
    assert line.tick(later(ABSENT_SECONDS)) == Ticked()
    assert line.hold(call_id).extensions == 0
    absent(line, later(60 + 900), call_id)
    assert line.cents() == (100, 0, 0)
    assert line.call(call_id).settled_by == "expiry"


def test_one_that_its_provider_did_not_know_and_that_talks_is_metered_again(line):
    call_id = line.let_in()
    absent(line, later(ABSENT_SECONDS), call_id)
    line.hear(line.call(call_id), "in_progress", later(130))
    assert line.call(call_id).tick_at == later(130)


def test_one_that_another_answer_let_in_is_not_withdrawn(line):
    # Given a request whose answer was late, and which was asked again and answered meanwhile
    made = line.admit(external_id=f"v-{line.id}")
    again = line.admit(later(1), external_id=f"v-{line.id}")
    assert (made.is_new, again.is_new, again.call_id) == (True, False, made.call_id)
    # When the late one is undone
    assert not line.do(lambda s: withdraw(s, line.id, made.call_id, later(2)))
    # Then the call that was let in keeps its hold
    assert line.cents() == (100, 60, 0)


def test_calls_that_nobody_can_tell_of_do_not_keep_others_from_being_asked_about(line, monkeypatch):
    # Given as many calls as one sweep takes, asked about before, whose answers say nothing
    monkeypatch.setattr(watch, "SWEEP_MAX", 1)
    # Others of this database may be due as well, so that these are the oldest of all
    line.reserve("c1")
    line.reserve("c2")
    execute(
        line.database,
        "UPDATE calls SET created_at = :at WHERE organization_id = :org AND id = 'c1'",
        org=line.id,
        at=later(-100_000),
    )
    execute(
        line.database,
        "UPDATE calls SET created_at = :at WHERE organization_id = :org AND id = 'c2'",
        org=line.id,
        at=later(-90_000),
    )
    asked = []
    for now in (later(161), later(222)):
        forget_jobs(line.database, line.id)
        line.do(partial(watch.sweep, now=now, report_seconds=120, silent_seconds=0))
        asked += line.jobs("look_at_call")
    assert asked == ["c1", "c2"]


@pytest.mark.parametrize(("cents", "refusal"), [(22, "INSUFFICIENT_FUNDS"), (23, None)])
def test_one_that_would_be_ended_at_once_is_not_let_in(shared, org, cents, refusal):
    # Given a margin of twenty seconds, which is more than the platform's shortest call
    line = Line(shared, org, cents=cents)
    line.terms(warn_before_seconds=0, margin_seconds=20)
    assert line.admit().refusal == refusal
    assert not line.calls() or not line.tick(later(0)).ended
