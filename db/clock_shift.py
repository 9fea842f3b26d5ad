"""Move stored waits back after the database's clock has stepped back.

Each wait then keeps its length. Instants of past events stay as they were written.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.waits import LEASE_SECONDS_MAX

#: Every open job may have to be moved, which can take longer than the application's usual limit.
#: The statement waits for a locked row. If it skipped the row, the row's wait would stay too long.
_SET_TIMEOUTS = text(
    "SELECT set_config('statement_timeout', '60s', true), set_config('lock_timeout', '5s', true)"
)
# The meter computes a live call's talk time from `metered_from`. The value stays for a call that
# began after the step. Every live call becomes due for a tick.
_SHIFT_CALLS = text(
    "WITH live AS MATERIALIZED (SELECT organization_id, id FROM calls WHERE tick_at IS NOT NULL"
    " ORDER BY organization_id, id FOR NO KEY UPDATE)"
    " UPDATE calls SET tick_at = :now, metered_from = CASE"
    " WHEN metered_from > CAST(:now AS timestamptz) - make_interval(secs => :within)"
    " AND metered_from <= :now THEN metered_from"
    " ELSE metered_from - make_interval(secs => :seconds) END"
    " FROM live WHERE calls.organization_id = live.organization_id AND calls.id = live.id"
    " RETURNING calls.id"
)
# A job that was staged after the step stays. A lease that was taken after the step is recognized
# by its length, which does not exceed the longest lease.
_SHIFT_JOBS = text(
    "WITH waiting AS MATERIALIZED (SELECT id FROM jobs WHERE ring_at IS NOT NULL"
    " AND greatest(due_at, ring_at, lease_until) > CAST(:now AS timestamptz)"
    " AND NOT (staged_at > CAST(:now AS timestamptz) - make_interval(secs => :within)"
    " AND staged_at <= CAST(:now AS timestamptz) + interval '1 second')"
    " ORDER BY id FOR NO KEY UPDATE)"
    " UPDATE jobs SET"
    " due_at = CASE WHEN due_at > :now THEN due_at - step ELSE due_at END,"
    " ring_at = CASE WHEN ring_at > :now THEN ring_at - step ELSE ring_at END,"
    " lease_until = CASE"
    " WHEN lease_until > CAST(:now AS timestamptz) + make_interval(secs => :lease)"
    " THEN lease_until - step ELSE lease_until END"
    " FROM waiting, make_interval(secs => :seconds) AS step WHERE jobs.id = waiting.id"
    " RETURNING jobs.id"
)
# Only the ledger's functions may change holds. Holds that were made after the step stay.
_SHIFT_HOLDS = text("SELECT shift_call_holds(CAST(:now AS timestamptz), :seconds)")
_SHIFT_BRANDS = text(
    "UPDATE brands SET twilio_lease_until = CASE"
    " WHEN twilio_lease_until > CAST(:now AS timestamptz) + make_interval(secs => :lease)"
    " THEN twilio_lease_until - step ELSE twilio_lease_until END,"
    " twilio_unsure_until = CASE WHEN twilio_unsure_until > :now"
    " THEN greatest(twilio_unsure_until - step, least(twilio_unsure_until, :now))"
    " ELSE twilio_unsure_until END"
    " FROM make_interval(secs => :seconds) AS step"
    " WHERE greatest(twilio_lease_until, twilio_unsure_until) > :now"
)
_SHIFT_SUBSCRIPTIONS = text(
    "UPDATE subscriptions SET look_lease_until = look_lease_until"
    " - make_interval(secs => :seconds) WHERE look_lease_until"
    " > CAST(:now AS timestamptz) + make_interval(secs => :lease)"
)
_SHIFT_SCHEDULES = text(
    "UPDATE schedules SET next_at = next_at - make_interval(secs => :seconds)"
    " WHERE next_at > CAST(:now AS timestamptz) + make_interval(secs => every_seconds)"
)


def shift_waits(
    session: Session, *, seconds: float, within_seconds: float, now: datetime
) -> dict[str, int]:
    """Shift every wait by `seconds`, and make every live call due for a tick now.

    Rows that were written within the last `within_seconds` may have been written after the step.
    Returns the number of calls, jobs and holds that were moved. Raises: OperationalError if a row
    stays locked for 5 s; nothing is moved then.
    """
    session.execute(_SET_TIMEOUTS)
    values: dict[str, Any] = {
        "now": now,
        "seconds": float(seconds),
        "within": float(within_seconds),
        "lease": LEASE_SECONDS_MAX,
    }
    # The order follows the lock order: jobs, subscriptions, holds, calls, brands.
    jobs = session.execute(_SHIFT_JOBS, values).all()
    session.execute(_SHIFT_SCHEDULES, values)
    session.execute(_SHIFT_SUBSCRIPTIONS, values)
    holds = session.execute(_SHIFT_HOLDS, values).scalar_one()
    calls = session.execute(_SHIFT_CALLS, values).all()
    session.execute(_SHIFT_BRANDS, values)
    return {"calls": len(calls), "jobs": len(jobs), "holds": holds}
