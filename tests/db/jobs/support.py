"""Steps of a job's life for tests, each in a separate transaction."""

from __future__ import annotations

from sqlalchemy import text

from db.jobs import lifecycle as jobs
from db.jobs import notifications, staging
from db.models import Job, JobAttempt

#: A wait or lease that is longer than any test, in seconds.
WAIT = 60.0


def stage(database, *, delay=0.0, name="work", queue="safety", kwargs=None):
    return database.run(
        lambda session: staging.insert(
            session,
            name=name,
            queue=queue,
            kwargs=kwargs or {},
            organization_id=None,
            delay_seconds=delay,
        )
    )


def claim(database, job_id, *, worker="w", lease=WAIT):
    return database.run(
        lambda session: jobs.claim(session, job_id, worker=worker, lease_seconds=lease)
    )


def row(database, job_id):
    return database.run(lambda session: session.get_one(Job, job_id))


def attempts(database, job_id):
    def read(session):
        found = session.query(JobAttempt).filter_by(job_id=job_id).order_by(JobAttempt.attempt)
        return [(one.attempt, one.worker, one.outcome, one.error) for one in found]

    return database.run(read)


def change(database, job_id, assignments):
    """Set columns to values that would otherwise take time to reach."""
    database.run(
        lambda session: session.execute(
            text(f"UPDATE jobs SET {assignments} WHERE id = :id"), {"id": job_id}
        )
    )


def seconds_until(database, job_id, column):
    query = f"SELECT extract(epoch FROM {column} - clock_timestamp()) FROM jobs WHERE id = :id"
    found = database.run(lambda s: s.execute(text(query), {"id": job_id}).scalar_one())
    return None if found is None else float(found)


def abandon(database, job_id):
    change(database, job_id, "lease_until = clock_timestamp(), ring_at = clock_timestamp()")


def finish(database, claimed, **more):
    return database.run(lambda session: jobs.finish(session, claimed, worker="w", **more))


def postpone(database, claimed):
    return database.run(
        lambda session: jobs.postpone(
            session, claimed, worker="w", delay_seconds=WAIT, detail="not yet"
        )
    )


def fail(database, claimed, retry=WAIT):
    return database.run(
        lambda session: jobs.fail(
            session, claimed, worker="w", error="boom", traceback="trace", retry_seconds=retry
        )
    )


def notify_due(database, limit=500):
    """Notify of the due jobs in the queue that `stage` uses by default."""
    staged = database.run(lambda session: notifications.notify_due(session, limit, urgent=True))
    return [one.job_id for one in staged]
