"""Jobs that refresh one object at its provider: at most one of them waits."""

from __future__ import annotations

import secrets
import threading

import pytest

from base.enums import Provider
from base.facts import DisputeReport, PaymentReport, SubscriptionReport
from db.jobs import lifecycle as jobs
from db.jobs import operator as job_operator
from db.models import Job
from domain import subscriptions
from domain.jobs.staging import stage, stage_many
from domain.jobs.types import CONVERGE_TWILIO, REFRESH_CALL, REFRESH_PAYMENT
from domain.payments import disputes, payments
from tests.db.jobs import support as job_support
from tests.db.jobs.support import claim, row, seconds_until
from tests.db.support import at_once
from tests.domain.calls.support import customer
from tests.domain.support import later

__all__ = ["customer"]


@pytest.fixture
def call_id():
    return f"c-{secrets.token_hex(6)}"


def refresh(database, call_id, *, delay=0.0):
    return database.run(
        lambda s: stage(
            s, REFRESH_CALL, "o", delay_seconds=delay, organization_id="o", call_id=call_id
        )
    )


def open_jobs(database, **arguments):
    """List the IDs of the open jobs with these arguments."""
    found = database.run(lambda s: s.query(Job).filter(Job.ring_at.is_not(None)).all())
    return [job.id for job in found if arguments.items() <= job.kwargs.items()]


def fail(database, claimed, seconds=60.0):
    return database.run(
        lambda s: jobs.fail(
            s, claimed, worker="w", error="away", traceback=None, retry_seconds=seconds
        )
    )


def test_refreshes_of_one_object_are_one_job(shared, call_id):
    first = refresh(shared, call_id)
    assert {refresh(shared, call_id) for _ in range(20)} == {first}
    assert open_jobs(shared, call_id=call_id) == [first]
    assert refresh(shared, f"{call_id}-2") != first


def test_refreshes_of_one_object_at_once_are_one_job(shared, call_id):
    made = at_once([lambda: refresh(shared, call_id)] * 8)
    assert len(set(made)) == 1
    assert open_jobs(shared, call_id=call_id) == made[:1]


def test_refreshes_staged_together_name_one_job_for_each_object(shared, call_id):
    many = [
        ("o", {"organization_id": "o", "call_id": one})
        for one in (call_id, f"{call_id}-2", call_id)
    ]
    ids = shared.run(lambda s: stage_many(s, REFRESH_CALL, many))
    assert ids[0] == ids[2] != ids[1]
    assert open_jobs(shared, call_id=call_id) == [ids[0]]


def test_other_jobs_are_staged_as_often_as_requested(shared):
    ids = {
        shared.run(lambda s: stage(s, CONVERGE_TWILIO, "o", brand_id="refresh")) for _ in range(3)
    }
    assert len(ids) == 3


def test_refresh_that_has_begun_does_not_replace_a_later_one(shared, call_id):
    # Given a refresh in progress, which may have read before the next change
    first = refresh(shared, call_id)
    assert claim(shared, first) is not None
    second = refresh(shared, call_id)
    assert second != first
    assert refresh(shared, call_id) == second


@pytest.mark.parametrize("ends_by", ["failure", "postponement"])
def test_refresh_that_would_wait_beside_another_is_done(shared, call_id, ends_by):
    first = refresh(shared, call_id)
    claimed = claim(shared, first)
    second = refresh(shared, call_id, delay=3_600)
    if ends_by == "failure":
        assert fail(shared, claimed)
    else:
        assert shared.run(
            lambda s: jobs.postpone(s, claimed, worker="w", delay_seconds=60.0, detail="away")
        )
    # Then one waits, and no longer than the first would have waited
    assert open_jobs(shared, call_id=call_id) == [second]
    assert row(shared, first).outcome == "done"
    assert "another job refreshes the same object" in row(shared, first).last_error
    assert 50 < seconds_until(shared, second, "due_at") < 61


def test_a_refresh_that_failed_alone_waits(shared, call_id):
    first = refresh(shared, call_id)
    assert fail(shared, claim(shared, first))
    assert open_jobs(shared, call_id=call_id) == [first]
    # And a new request does not wait as long as the failed job
    assert refresh(shared, call_id) == first
    assert seconds_until(shared, first, "due_at") <= 0


def test_a_refresh_that_waits_for_its_time_is_brought_forward(shared):
    given = {"provider": "paypal", "kind": "refund", "external_id": f"R-{secrets.token_hex(6)}"}
    first = shared.run(lambda s: stage(s, REFRESH_PAYMENT, None, delay_seconds=21_600, **given))
    assert seconds_until(shared, first, "ring_at") > 21_000
    assert shared.run(lambda s: stage(s, REFRESH_PAYMENT, "o", **given)) == first
    assert seconds_until(shared, first, "due_at") <= 0
    assert seconds_until(shared, first, "ring_at") <= 2
    assert row(shared, first).organization_id == "o"
    # And a job that is due is not postponed
    shared.run(lambda s: stage(s, REFRESH_PAYMENT, None, delay_seconds=21_600, **given))
    assert seconds_until(shared, first, "due_at") <= 0


def test_refresh_is_not_begun_before_its_request_is_committed(shared, call_id):
    first = refresh(shared, call_id)
    staged, release = threading.Event(), threading.Event()

    def ask(session):
        stage(session, REFRESH_CALL, "o", organization_id="o", call_id=call_id)
        staged.set()
        assert release.wait(20)

    thread = threading.Thread(target=lambda: shared.run(ask))
    thread.start()
    assert staged.wait(20)
    assert claim(shared, first) is None
    release.set()
    thread.join()
    assert claim(shared, first) is not None


def test_dead_refresh_is_not_redriven_beside_a_waiting_one(shared, call_id):
    first = refresh(shared, call_id)
    assert fail(shared, claim(shared, first), None)
    second = refresh(shared, call_id)
    assert second != first
    assert not shared.run(lambda s: job_operator.redrive(s, first))
    job_support.change(shared, second, "ring_at = NULL, done_at = now(), outcome = 'done'")
    assert shared.run(lambda s: job_operator.redrive(s, first))


def test_the_events_of_one_object_are_one_job(shared):
    mark = secrets.token_hex(6)
    for number in range(3):
        at = later(number)
        subscription = SubscriptionReport(Provider.PAYPAL, f"I-{mark}", False, at)
        payment = PaymentReport(Provider.PAYPAL, "capture", f"P-{mark}")
        dispute = DisputeReport(Provider.PAYPAL, f"D-{mark}", (), True)
        shared.run(lambda s, one=subscription, at=at: subscriptions.apply_event(s, one, at, at))
        shared.run(lambda s, one=payment: payments.stage_reported_refresh(s, one))
        shared.run(lambda s, one=dispute, at=at: disputes.apply_event(s, one, at))
    for name in (f"I-{mark}", f"P-{mark}", f"D-{mark}"):
        assert len(open_jobs(shared, external_id=name)) == 1, name


def test_hour_of_ticks_stages_one_refresh_for_each_call(customer):
    # Given twenty reserved calls without any message from their provider
    customer.pay(10_000)
    ids = [f"c{number}" for number in range(20)]
    for call_id in ids:
        customer.reserve(call_id, seconds=60)
    # When ticks request refreshes for an hour, and no job runs
    for seconds in range(0, 3_600, 30):
        customer.tick(later(seconds))
    # Then one refresh waits for each call
    assert customer.jobs("look_at_call") == sorted(ids)
