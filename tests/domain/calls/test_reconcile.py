"""What nobody has said of a call is asked for; what nobody is left to ask about is given back."""

from __future__ import annotations

import pytest

from db.models import Job
from domain.calls import reconcile as watch
from domain.calls.reconcile import ABSENT_SECONDS
from domain.wallet import holds
from tests.db.support import at_once, holding, patiently
from tests.domain.calls.support import CENT, OVER, absent, execute
from tests.domain.support import forget_jobs, later
from tests.domain.wallet.hold_support import reserve

#: A report is waited for so long after the end, and a word of a live call so long.
REPORT, SILENT = 120, 180


def sweep(line, now, *, still_owed=False):
    """This function will sweep and give this organization's looks and expiries that it staged.

    Those of before are over by then, unless they are still owed.
    """
    if not still_owed:
        forget_jobs(line.database, line.id)
    before = line.do(lambda s: {job.id for job in s.query(Job).all()})

    def work(session):
        watch.sweep(session, now, report_seconds=REPORT, silent_seconds=SILENT)
        new = [job for job in session.query(Job).order_by(Job.id) if job.id not in before]
        return sorted(
            job.kwargs.get("call_id", job.name)
            for job in new
            if job.kwargs["organization_id"] == line.id
        )

    return line.do(work)


def expire(line, now):
    return line.do(lambda s: watch.expire_unasked(s, line.id, now))


# Who is asked about


def test_one_that_nothing_was_heard_of_is_asked_about_once_a_minute(line):
    line.reserve()
    assert sweep(line, later(SILENT)) == []
    assert sweep(line, later(SILENT + 1)) == ["c1"]
    assert line.call().asked_at == later(SILENT + 1)
    assert sweep(line, later(SILENT + 61)) == []
    assert sweep(line, later(SILENT + 62)) == ["c1"]


def test_one_whose_look_is_still_owed_is_told_to_a_person_and_not_asked_about_twice(line):
    # Given a provider that cannot be asked for minutes, so that the look waits
    line.reserve()
    assert sweep(line, later(SILENT + 1)) == ["c1"]
    assert line.alerts("hold_unanswered") == []
    # When the sweeps go on
    for minute in range(1, 6):
        assert sweep(line, later(SILENT + 1 + 61 * minute), still_owed=True) == []
    # Then it is asked about once, and somebody knows
    assert line.jobs("look_at_call") == ["c1"]
    (alert,) = line.alerts("hold_unanswered")
    assert alert.details["why"] == "its refresh is still waiting"
    # And once that is over, it is asked about again
    assert sweep(line, later(SILENT + 400)) == ["c1"]


def test_one_that_was_heard_of_since_is_not(line):
    line.reserve()
    line.hear(line.call(), "in_progress", later(170))
    assert sweep(line, later(350)) == []
    assert sweep(line, later(351)) == ["c1"]


def test_one_that_ended_is_asked_about_when_its_report_is_late(line):
    line.reserve()
    line.hear(line.call(), "ended", later(20))
    assert sweep(line, later(20 + REPORT)) == []
    assert sweep(line, later(21 + REPORT)) == ["c1"]
    line.report(line.call(), 10, later(150))
    assert sweep(line, later(10_000)) == []


@pytest.mark.parametrize("word", ["in_progress", "ended"])
def test_call_is_asked_about_when_the_clock_was_set_back(line, word):
    # Given a call that was heard of and asked about an hour later than it is now
    line.reserve()
    line.hear(line.call(), word, later(20))
    execute(
        line.database,
        "UPDATE calls SET asked_at = :at WHERE organization_id = :org",
        at=later(20),
        org=line.id,
    )
    assert sweep(line, later(20 - 3_600)) == ["c1"]
    assert sweep(line, later(21 - 3_600)) == []


def test_one_whose_hold_is_over_is_asked_about_although_it_was_just_heard_of(line):
    line.reserve(seconds=30)
    line.hear(line.call(), "ringing", later(OVER - 1))
    assert sweep(line, later(OVER - 0.1)) == []
    assert sweep(line, later(OVER)) == ["c1"]
    assert line.hold().status == "open", "an unanswered question gives nothing back"


def test_one_that_is_settled_or_has_nobody_to_ask_is_not(line):
    line.reserve("c1")
    line.settle_by_api("c1", 1)
    line.reserve("c2", provider=None)
    assert sweep(line, later(SILENT + 1)) == []


def test_sweeps_at_once_ask_once_and_pass_over_what_others_have(line):
    line.reserve("c1", seconds=10)
    line.reserve("c2", seconds=10)
    assert sweep(line, later(SILENT + 1)) == ["c1", "c2"]
    with holding(line.database, lambda s: watch.lock_call(s, line.id, "c1")):
        assert sweep(line, later(SILENT + 70)) == ["c2"]
    jobs = [
        lambda: line.do(
            lambda s: watch.sweep(
                s, later(SILENT + 200), report_seconds=REPORT, silent_seconds=SILENT
            )
        )
    ] * 6
    forget_jobs(line.database, line.id)
    at_once(jobs)
    assert line.jobs("look_at_call") == ["c1", "c2"]


# Who is expired without asking


def test_those_with_nobody_to_ask_are_given_back_in_one_batch(line):
    # Given a call without the provider's id, one that only the ledger knows, and one to ask about
    line.reserve("c1", seconds=10, provider=None)
    reserve(line.database, line.id, 10 * CENT, "c2", until=later(910))
    line.reserve("c3", seconds=10)
    assert sweep(line, later(909)) == ["c3"]
    assert sweep(line, later(970)) == ["c3", "expire_holds"]
    assert expire(line, later(909)) == []
    assert expire(line, later(970)) == ["c1", "c2"]
    assert line.cents() == (100, 10, 0)
    call = line.call("c1")
    assert (call.settled_by, call.cost_micros, call.tick_at) == ("expiry", 0, None)
    assert line.timeline("c1") == ["reserved", "expired"]
    # And nothing is left to give back, or to sweep for
    assert expire(line, later(970)) == []
    assert sweep(line, later(980)) == []


def test_a_hold_that_was_put_off_meanwhile_is_not_given_back(line):
    line.reserve("c1", seconds=10, provider=None)
    line.do(lambda s: holds.put_off(s, line.id, "c1", expires_at=later(2_000), now=later(950)))
    assert expire(line, later(970)) == []
    assert line.hold().status == "open"


def test_expiring_many_times_at_once_gives_back_once(line):
    line.reserve("c1", seconds=10, provider=None)
    results = at_once([patiently(lambda: expire(line, later(970)))] * 8)
    assert sorted(results) == [[]] * 7 + [["c1"]]
    assert line.timeline("c1").count("expired") == 1


# Its provider's answer


def test_absent_is_not_believed_early_nor_before_the_hold_is_over(line):
    line.reserve(seconds=30)
    absent(line, later(ABSENT_SECONDS - 0.1))
    assert (line.call().oddities, line.hold().status) == ([], "open")
    absent(line, later(ABSENT_SECONDS))
    assert (line.call().oddities, line.hold().status) == (["absent"], "open")
    assert line.call().settled_at is None
    absent(line, later(OVER))
    assert (line.hold().status, line.call().settled_by) == ("expired", "expiry")
    assert line.cents() == (100, 0, 0)


def test_an_early_absence_is_not_believed_even_of_a_hold_that_is_over(line):
    # Given a call whose provider may not know it yet, and a hold that is over nevertheless
    line.reserve(seconds=30)
    execute(
        line.database,
        "UPDATE calls SET created_at = :at WHERE organization_id = :org",
        org=line.id,
        at=later(OVER),
    )
    absent(line, later(OVER + ABSENT_SECONDS - 0.1))
    assert line.hold().status == "open"
    absent(line, later(OVER + ABSENT_SECONDS))
    assert line.hold().status == "expired"


@pytest.mark.parametrize("word", ["in_progress", "forwarding"])
def test_one_that_talked_and_is_gone_is_a_persons_and_keeps_its_hold(line, word):
    line.reserve(seconds=30)
    line.hear(line.call(), word, later(5))
    for now in (200, 5_000):
        absent(line, later(now))
    assert line.cents() == (100, 30, 0)
    (alert,) = line.alerts("call_unsettled")
    assert "no longer knows it" in alert.details["why"]
    assert line.call().settled_at is None


def test_one_that_ended_and_is_gone_costs_what_our_meter_says(line):
    line.reserve(seconds=30)
    line.hear(line.call(), "in_progress", later(5))
    line.hear(line.call(), "ended", later(25))
    absent(line, later(200))
    assert line.cents() == (80, 0, 0)
    assert line.call().oddities == ["absent", "metered_by_us"]


def test_one_that_ended_and_is_gone_and_was_never_metered_is_a_persons(line):
    line.reserve(seconds=30)
    line.hear(line.call(), "ended", later(25))
    absent(line, later(5_000))
    assert line.cents() == (100, 30, 0)
    assert len(line.alerts("call_unsettled")) == 1


def test_an_absence_that_is_told_again_changes_nothing(line):
    line.reserve(seconds=30)
    for now in (OVER, OVER + 1):
        absent(line, later(now))
    absent(line, later(OVER + 2), "another")
    assert line.timeline().count("expired") == 1


def test_one_that_lives_keeps_its_hold_for_longer(line):
    line.reserve(seconds=30)
    line.do(lambda s: watch.put_off_hold(s, line.id, "c1", later(OVER)))
    assert line.hold().expires_at == later(OVER + 900)
    # Never nearer
    line.do(lambda s: watch.put_off_hold(s, line.id, "c1", later(10)))
    assert line.hold().expires_at == later(OVER + 900)


def test_an_unanswered_question_keeps_the_hold_and_tells_a_person_until_it_is_answered(line):
    line.reserve(seconds=30)
    for _ in range(2):
        line.do(lambda s: watch.tell_unanswered(s, line.id, "c1", "503 " * 100, later(OVER)))
    (alert,) = line.alerts("hold_unanswered")
    assert len(alert.details["why"]) == 200
    assert line.hold().status == "open"
    line.look(line.call(), "in_progress", later(OVER + 60))
    assert line.alerts("hold_unanswered") == []


def test_an_unanswered_question_is_told_no_more_once_a_report_has_settled_the_call(line):
    line.reserve(seconds=10)
    line.hear(line.call(), "in_progress")
    line.do(lambda s: watch.tell_unanswered(s, line.id, "c1", "503", later(OVER)))
    line.report(line.call(), 4, later(OVER + 1))
    assert line.call().settled_by == "report"
    assert line.alerts("hold_unanswered") == []


def test_a_look_that_was_not_answered_at_a_call_that_is_settled_meanwhile_is_told_to_nobody(line):
    # Given a call that was settled while its look was on its way
    line.reserve()
    line.settle_by_api("c1", 1_000)
    # When no answer comes, then no alert stands, which nothing would ever clear
    line.do(lambda s: watch.tell_unanswered(s, line.id, "c1", "no answer", later(1)))
    assert line.alerts("hold_unanswered") == []
