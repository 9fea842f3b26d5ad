"""What the demo counts and how long it waits, while schedules may stage jobs."""

from __future__ import annotations

from sqlalchemy import text

from db.jobs.staging import Cause, set_cause
from db.models import Job
from domain.jobs.schedules import Schedule, declare, tick
from domain.jobs.staging import stage
from domain.jobs.types import RECONCILE_TWILIO
from local.demo.report import Report
from local.demo.system import DemoSystem


def test_event_jobs_leave_out_what_a_schedule_led_to(database):
    system = DemoSystem(None, database, None, None, None)
    # Given a job staged by a webhook, one staged by a schedule, and one staged by the latter
    every_second = (Schedule("often", 1, RECONCILE_TWILIO),)

    def stage_from(cause: Cause) -> None:
        def work(session):
            set_cause(session, cause)
            stage(session, RECONCILE_TWILIO, None)

        database.run(work)

    stage_from(Cause("inbox:1", "cor_event"))
    assert system.event_jobs() == 1
    database.run(lambda session: declare(session, every_second))
    set_due(database)
    (job_id,) = database.run(lambda session: tick(session, every_second))
    (correlation_id,) = database.run(
        lambda session: session.execute(
            text("SELECT correlation_id FROM jobs WHERE id = :id"), {"id": job_id}
        ).scalars()
    )
    stage_from(Cause(job_id, correlation_id))

    # Then only the webhook's job counts
    assert system.count(Job) == 3
    assert system.event_jobs() == 1


def test_eventually_keeps_what_it_found_when_it_changes_again():
    report = Report(None)
    report.scene("a job is staged right after the look that found none")
    looks = iter([1, 0, 1])
    report.eventually("no job is left", lambda: next(looks), 0)
    assert report.failed == 0


def set_due(database):
    statement = "UPDATE schedules SET next_at = clock_timestamp()"
    database.run(lambda session: session.execute(text(statement)))
