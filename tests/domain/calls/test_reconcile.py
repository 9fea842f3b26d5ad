"""Reconciling calls: silent calls are refreshed, or their holds expire.

A call without the provider's ID cannot be refreshed.
"""

from __future__ import annotations

import pytest

from db.models import Job
from domain.calls import reconcile as watch
from domain.calls.reconcile import ABSENT_SECONDS
from domain.wallet import holds
from tests.db.support import at_once, holding, with_retries
from tests.domain.calls.support import CENT, OVER, execute, report_absent
from tests.domain.support import forget_jobs, later
from tests.domain.wallet.hold_support import reserve

#: Seconds to wait for a report after a call's end, and for a message about a live call.
REPORT, SILENT = 120, 180


def sweep(customer, now, *, still_owed=False):
    """Sweep and return the refreshes and expiries staged for this organization.

    Earlier jobs are removed first, as if they were done. With `still_owed` they stay.
    """
    if not still_owed:
        forget_jobs(customer.database, customer.id)
    before = customer.do(lambda s: {job.id for job in s.query(Job).all()})

    def work(session):
        watch.sweep(session, now, report_seconds=REPORT, silent_seconds=SILENT)
        new = [job for job in session.query(Job).order_by(Job.id) if job.id not in before]
        return sorted(
            job.kwargs.get("call_id", job.name)
            for job in new
            if job.kwargs["organization_id"] == customer.id
        )

    return customer.do(work)


def expire(customer, now):
    return customer.do(lambda s: watch.expire_unreported(s, customer.id, now))


# Which calls are refreshed


def test_silent_call_is_refreshed_once_a_minute(customer):
    customer.reserve()
    assert sweep(customer, later(SILENT)) == []
    assert sweep(customer, later(SILENT + 1)) == ["c1"]
    assert customer.call().asked_at == later(SILENT + 1)
    assert sweep(customer, later(SILENT + 61)) == []
    assert sweep(customer, later(SILENT + 62)) == ["c1"]


def test_call_whose_refresh_still_waits_is_alerted_and_not_refreshed_twice(customer):
    # Given a provider that is unavailable for minutes, so that the refresh waits
    customer.reserve()
    assert sweep(customer, later(SILENT + 1)) == ["c1"]
    assert customer.alerts("hold_unanswered") == []
    # When the sweeps continue
    for minute in range(1, 6):
        assert sweep(customer, later(SILENT + 1 + 61 * minute), still_owed=True) == []
    # Then one refresh is staged, and an alert is raised
    assert customer.jobs("look_at_call") == ["c1"]
    (alert,) = customer.alerts("hold_unanswered")
    assert alert.details["why"] == "the call's refresh is still waiting"
    # And once that refresh is done, the call is refreshed again
    assert sweep(customer, later(SILENT + 400)) == ["c1"]


def test_call_with_a_recent_message_is_not_refreshed(customer):
    customer.reserve()
    customer.report_status(customer.call(), "in_progress", later(170))
    assert sweep(customer, later(350)) == []
    assert sweep(customer, later(351)) == ["c1"]


def test_ended_call_is_refreshed_when_its_report_is_late(customer):
    customer.reserve()
    customer.report_status(customer.call(), "ended", later(20))
    assert sweep(customer, later(20 + REPORT)) == []
    assert sweep(customer, later(21 + REPORT)) == ["c1"]
    customer.report(customer.call(), 10, later(150))
    assert sweep(customer, later(10_000)) == []


@pytest.mark.parametrize("status", ["in_progress", "ended"])
def test_call_is_refreshed_when_the_clock_was_set_back(customer, status):
    # Given a call whose last message and refresh lie an hour ahead of now
    customer.reserve()
    customer.report_status(customer.call(), status, later(20))
    execute(
        customer.database,
        "UPDATE calls SET asked_at = :at WHERE organization_id = :org",
        at=later(20),
        org=customer.id,
    )
    assert sweep(customer, later(20 - 3_600)) == ["c1"]
    assert sweep(customer, later(21 - 3_600)) == []


def test_call_is_refreshed_when_its_hold_expires_despite_a_recent_message(customer):
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "ringing", later(OVER - 1))
    assert sweep(customer, later(OVER - 0.1)) == []
    assert sweep(customer, later(OVER)) == ["c1"]
    assert customer.hold().status == "open", "an unanswered question gives nothing back"


def test_call_that_is_settled_or_has_no_provider_id_is_not_refreshed(customer):
    customer.reserve("c1")
    customer.settle_by_api("c1", 1)
    customer.reserve("c2", provider=None)
    assert sweep(customer, later(SILENT + 1)) == []


def test_sweeps_at_once_refresh_once_and_skip_locked_calls(customer):
    customer.reserve("c1", seconds=10)
    customer.reserve("c2", seconds=10)
    assert sweep(customer, later(SILENT + 1)) == ["c1", "c2"]
    with holding(customer.database, lambda s: watch.lock_call(s, customer.id, "c1")):
        assert sweep(customer, later(SILENT + 70)) == ["c2"]
    jobs = [
        lambda: customer.do(
            lambda s: watch.sweep(
                s, later(SILENT + 200), report_seconds=REPORT, silent_seconds=SILENT
            )
        )
    ] * 6
    forget_jobs(customer.database, customer.id)
    at_once(jobs)
    assert customer.jobs("look_at_call") == ["c1", "c2"]


# Which holds expire without a refresh


def test_holds_of_calls_without_a_provider_id_expire_in_one_batch(customer):
    # Given a call without the provider's ID, a hold without a call, and a call that can be
    # refreshed
    customer.reserve("c1", seconds=10, provider=None)
    reserve(customer.database, customer.id, 10 * CENT, "c2", until=later(910))
    customer.reserve("c3", seconds=10)
    assert sweep(customer, later(909)) == ["c3"]
    assert sweep(customer, later(970)) == ["c3", "expire_holds"]
    assert expire(customer, later(909)) == []
    assert expire(customer, later(970)) == ["c1", "c2"]
    assert customer.cents() == (100, 10, 0)
    call = customer.call("c1")
    assert (call.settled_by, call.cost_micros, call.tick_at) == ("expiry", 0, None)
    assert customer.timeline("c1") == ["reserved", "expired"]
    # And nothing is left to expire or to sweep
    assert expire(customer, later(970)) == []
    assert sweep(customer, later(980)) == []


def test_a_hold_that_was_put_off_meanwhile_is_not_given_back(customer):
    customer.reserve("c1", seconds=10, provider=None)
    customer.do(
        lambda s: holds.postpone_expiry(
            s, customer.id, "c1", expires_at=later(2_000), now=later(950)
        )
    )
    assert expire(customer, later(970)) == []
    assert customer.hold().status == "open"


def test_expiring_many_times_at_once_gives_back_once(customer):
    customer.reserve("c1", seconds=10, provider=None)
    results = at_once([with_retries(lambda: expire(customer, later(970)))] * 8)
    assert sorted(results) == [[]] * 7 + [["c1"]]
    assert customer.timeline("c1").count("expired") == 1


# The provider's response


def test_absence_is_not_believed_early_nor_before_the_hold_expires(customer):
    customer.reserve(seconds=30)
    report_absent(customer, later(ABSENT_SECONDS - 0.1))
    assert (customer.call().oddities, customer.hold().status) == ([], "open")
    report_absent(customer, later(ABSENT_SECONDS))
    assert (customer.call().oddities, customer.hold().status) == (["absent"], "open")
    assert customer.call().settled_at is None
    report_absent(customer, later(OVER))
    assert (customer.hold().status, customer.call().settled_by) == ("expired", "expiry")
    assert customer.cents() == (100, 0, 0)


def test_early_absence_is_not_believed_even_when_the_hold_has_expired(customer):
    # Given a call that its provider may not know yet, and a hold that has expired nevertheless
    customer.reserve(seconds=30)
    execute(
        customer.database,
        "UPDATE calls SET created_at = :at WHERE organization_id = :org",
        org=customer.id,
        at=later(OVER),
    )
    report_absent(customer, later(OVER + ABSENT_SECONDS - 0.1))
    assert customer.hold().status == "open"
    report_absent(customer, later(OVER + ABSENT_SECONDS))
    assert customer.hold().status == "expired"


@pytest.mark.parametrize("status", ["in_progress", "forwarding"])
def test_absent_call_that_talked_keeps_its_hold_and_needs_an_operator(customer, status):
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), status, later(5))
    for now in (200, 5_000):
        report_absent(customer, later(now))
    assert customer.cents() == (100, 30, 0)
    (alert,) = customer.alerts("call_unsettled")
    assert "no longer knows it" in alert.details["why"]
    assert customer.call().settled_at is None


def test_absent_call_that_ended_costs_what_our_meter_measured(customer):
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress", later(5))
    customer.report_status(customer.call(), "ended", later(25))
    report_absent(customer, later(200))
    assert customer.cents() == (80, 0, 0)
    assert customer.call().oddities == ["absent", "metered_by_us"]


def test_absent_call_that_ended_and_was_never_metered_needs_an_operator(customer):
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "ended", later(25))
    report_absent(customer, later(5_000))
    assert customer.cents() == (100, 30, 0)
    assert len(customer.alerts("call_unsettled")) == 1


def test_repeated_absence_changes_nothing(customer):
    customer.reserve(seconds=30)
    for now in (OVER, OVER + 1):
        report_absent(customer, later(now))
    report_absent(customer, later(OVER + 2), "another")
    assert customer.timeline().count("expired") == 1


def test_hold_of_a_live_call_is_postponed(customer):
    customer.reserve(seconds=30)
    customer.do(lambda s: watch.postpone_expiry(s, customer.id, "c1", later(OVER)))
    assert customer.hold().expires_at == later(OVER + 900)
    # Never earlier
    customer.do(lambda s: watch.postpone_expiry(s, customer.id, "c1", later(10)))
    assert customer.hold().expires_at == later(OVER + 900)


def test_failed_refresh_keeps_the_hold_and_its_alert_until_a_response(customer):
    customer.reserve(seconds=30)
    for _ in range(2):
        customer.do(
            lambda s: watch.alert_unanswered(s, customer.id, "c1", "503 " * 100, later(OVER))
        )
    (alert,) = customer.alerts("hold_unanswered")
    assert len(alert.details["why"]) == 200
    assert customer.hold().status == "open"
    customer.refresh(customer.call(), "in_progress", later(OVER + 60))
    assert customer.alerts("hold_unanswered") == []


def test_alert_of_a_failed_refresh_is_cleared_when_a_report_settles(customer):
    customer.reserve(seconds=10)
    customer.report_status(customer.call(), "in_progress")
    customer.do(lambda s: watch.alert_unanswered(s, customer.id, "c1", "503", later(OVER)))
    customer.report(customer.call(), 4, later(OVER + 1))
    assert customer.call().settled_by == "report"
    assert customer.alerts("hold_unanswered") == []


def test_failed_refresh_of_a_call_settled_meanwhile_raises_no_alert(customer):
    # Given a call that was settled during its refresh
    customer.reserve()
    customer.settle_by_api("c1", 1_000)
    # When the refresh fails, Then there is no alert, which nothing would ever clear
    customer.do(lambda s: watch.alert_unanswered(s, customer.id, "c1", "no answer", later(1)))
    assert customer.alerts("hold_unanswered") == []
