"""Reconciling calls: silent calls are refreshed, or their holds expire.

A call without the provider's ID cannot be refreshed.
"""

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

#: Seconds to wait for a report after a call's end, and for a message about a live call.
REPORT, SILENT = 120, 180


def sweep(line, now, *, still_owed=False):
    """Sweep and return the refreshes and expiries staged for this organization.

    Earlier jobs are removed first, as if they were done. With `still_owed` they stay.
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
    return line.do(lambda s: watch.expire_unreported(s, line.id, now))


# Which calls are refreshed


def test_silent_call_is_refreshed_once_a_minute(line):
    line.reserve()
    assert sweep(line, later(SILENT)) == []
    assert sweep(line, later(SILENT + 1)) == ["c1"]
    assert line.call().asked_at == later(SILENT + 1)
    assert sweep(line, later(SILENT + 61)) == []
    assert sweep(line, later(SILENT + 62)) == ["c1"]


def test_call_whose_refresh_still_waits_is_alerted_and_not_refreshed_twice(line):
    # Given a provider that is unavailable for minutes, so that the refresh waits
    line.reserve()
    assert sweep(line, later(SILENT + 1)) == ["c1"]
    assert line.alerts("hold_unanswered") == []
    # When the sweeps continue
    for minute in range(1, 6):
        assert sweep(line, later(SILENT + 1 + 61 * minute), still_owed=True) == []
    # Then one refresh is staged, and an alert is raised
    assert line.jobs("look_at_call") == ["c1"]
    (alert,) = line.alerts("hold_unanswered")
    assert alert.details["why"] == "its refresh is still waiting"
    # And once that refresh is done, the call is refreshed again
    assert sweep(line, later(SILENT + 400)) == ["c1"]


def test_call_with_a_recent_message_is_not_refreshed(line):
    line.reserve()
    line.hear(line.call(), "in_progress", later(170))
    assert sweep(line, later(350)) == []
    assert sweep(line, later(351)) == ["c1"]


def test_ended_call_is_refreshed_when_its_report_is_late(line):
    line.reserve()
    line.hear(line.call(), "ended", later(20))
    assert sweep(line, later(20 + REPORT)) == []
    assert sweep(line, later(21 + REPORT)) == ["c1"]
    line.report(line.call(), 10, later(150))
    assert sweep(line, later(10_000)) == []


@pytest.mark.parametrize("word", ["in_progress", "ended"])
def test_call_is_refreshed_when_the_clock_was_set_back(line, word):
    # Given a call whose last message and refresh lie an hour ahead of now
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


def test_call_is_refreshed_when_its_hold_expires_despite_a_recent_message(line):
    line.reserve(seconds=30)
    line.hear(line.call(), "ringing", later(OVER - 1))
    assert sweep(line, later(OVER - 0.1)) == []
    assert sweep(line, later(OVER)) == ["c1"]
    assert line.hold().status == "open", "an unanswered question gives nothing back"


def test_call_that_is_settled_or_has_no_provider_id_is_not_refreshed(line):
    line.reserve("c1")
    line.settle_by_api("c1", 1)
    line.reserve("c2", provider=None)
    assert sweep(line, later(SILENT + 1)) == []


def test_sweeps_at_once_refresh_once_and_skip_locked_calls(line):
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


# Which holds expire without a refresh


def test_holds_of_calls_without_a_provider_id_expire_in_one_batch(line):
    # Given a call without the provider's ID, a hold without a call, and a call that can be
    # refreshed
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
    # And nothing is left to expire or to sweep
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


# The provider's response


def test_absence_is_not_believed_early_nor_before_the_hold_expires(line):
    line.reserve(seconds=30)
    absent(line, later(ABSENT_SECONDS - 0.1))
    assert (line.call().oddities, line.hold().status) == ([], "open")
    absent(line, later(ABSENT_SECONDS))
    assert (line.call().oddities, line.hold().status) == (["absent"], "open")
    assert line.call().settled_at is None
    absent(line, later(OVER))
    assert (line.hold().status, line.call().settled_by) == ("expired", "expiry")
    assert line.cents() == (100, 0, 0)


def test_early_absence_is_not_believed_even_when_the_hold_has_expired(line):
    # Given a call that its provider may not know yet, and a hold that has expired nevertheless
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
def test_absent_call_that_talked_keeps_its_hold_and_needs_an_operator(line, word):
    line.reserve(seconds=30)
    line.hear(line.call(), word, later(5))
    for now in (200, 5_000):
        absent(line, later(now))
    assert line.cents() == (100, 30, 0)
    (alert,) = line.alerts("call_unsettled")
    assert "no longer knows it" in alert.details["why"]
    assert line.call().settled_at is None


def test_absent_call_that_ended_costs_what_our_meter_measured(line):
    line.reserve(seconds=30)
    line.hear(line.call(), "in_progress", later(5))
    line.hear(line.call(), "ended", later(25))
    absent(line, later(200))
    assert line.cents() == (80, 0, 0)
    assert line.call().oddities == ["absent", "metered_by_us"]


def test_absent_call_that_ended_and_was_never_metered_needs_an_operator(line):
    line.reserve(seconds=30)
    line.hear(line.call(), "ended", later(25))
    absent(line, later(5_000))
    assert line.cents() == (100, 30, 0)
    assert len(line.alerts("call_unsettled")) == 1


def test_repeated_absence_changes_nothing(line):
    line.reserve(seconds=30)
    for now in (OVER, OVER + 1):
        absent(line, later(now))
    absent(line, later(OVER + 2), "another")
    assert line.timeline().count("expired") == 1


def test_hold_of_a_live_call_is_postponed(line):
    line.reserve(seconds=30)
    line.do(lambda s: watch.postpone_expiry(s, line.id, "c1", later(OVER)))
    assert line.hold().expires_at == later(OVER + 900)
    # Never earlier
    line.do(lambda s: watch.postpone_expiry(s, line.id, "c1", later(10)))
    assert line.hold().expires_at == later(OVER + 900)


def test_failed_refresh_keeps_the_hold_and_its_alert_until_a_response(line):
    line.reserve(seconds=30)
    for _ in range(2):
        line.do(lambda s: watch.alert_unanswered(s, line.id, "c1", "503 " * 100, later(OVER)))
    (alert,) = line.alerts("hold_unanswered")
    assert len(alert.details["why"]) == 200
    assert line.hold().status == "open"
    line.refresh(line.call(), "in_progress", later(OVER + 60))
    assert line.alerts("hold_unanswered") == []


def test_alert_of_a_failed_refresh_is_cleared_when_a_report_settles(line):
    line.reserve(seconds=10)
    line.hear(line.call(), "in_progress")
    line.do(lambda s: watch.alert_unanswered(s, line.id, "c1", "503", later(OVER)))
    line.report(line.call(), 4, later(OVER + 1))
    assert line.call().settled_by == "report"
    assert line.alerts("hold_unanswered") == []


def test_failed_refresh_of_a_call_settled_meanwhile_raises_no_alert(line):
    # Given a call that was settled during its refresh
    line.reserve()
    line.settle_by_api("c1", 1_000)
    # When the refresh fails, Then there is no alert, which nothing would ever clear
    line.do(lambda s: watch.alert_unanswered(s, line.id, "c1", "no answer", later(1)))
    assert line.alerts("hold_unanswered") == []
