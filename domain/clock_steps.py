"""Handle a step of the database's clock: correct the waits and raise an alert."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.log import get_logger
from db.clock_shift import shift_waits
from db.clock_watch import Step
from domain.alerts.alerts import AlertKind, Severity, raise_alert

log = get_logger(__name__)

#: The alert of a step is cleared after this time, unless an operator clears it earlier.
ALERT_HOURS = 24
_BACK_MEANING = (
    "The database's clock stepped back. Waits, the meters of live calls and the ends of newer holds"
    " were moved with it. Older holds expire later by as much, and so does an operator's override"
    " of a freeze. Calls are charged for the duration that their provider reports."
)
_FORWARD_MEANING = (
    "The database's clock stepped forward. Live calls count as longer by as much until they end:"
    " they are extended from their wallet, or ended early. Holds expire earlier, after their"
    " provider was asked. Calls are charged for the duration that their provider reports."
)


def correct_clock_step(session: Session, step: Step) -> None:
    """Raise an alert for a step of the clock; after a step back, correct the waits."""
    moved: dict[str, int] = {}
    if step.seconds < 0:
        moved = shift_waits(
            session,
            seconds=-step.seconds,
            within_seconds=step.within_seconds,
            now=step.after,
        )
    details = {
        "from": step.before.isoformat(),
        "to": step.after.isoformat(),
        "seconds": round(step.seconds, 3),
        "meaning": _BACK_MEANING if step.seconds < 0 else _FORWARD_MEANING,
        "next": "Find out why the server's clock was set; make it slew instead of step.",
        **{f"{name}_moved": count for name, count in moved.items()},
    }
    raise_alert(
        session,
        AlertKind.CLOCK_STEPPED,
        None,
        step.before.isoformat(),
        severity=Severity.CRITICAL,
        details=details,
        now=step.after,
    )
    log.error("database_clock_stepped", **details)


def clear_old_alerts(session: Session) -> None:
    """Clear the alerts of clock steps that are at least a day old."""
    session.execute(
        text(
            "UPDATE alerts SET cleared_at = clock_timestamp() WHERE kind = :kind"
            " AND cleared_at IS NULL"
            " AND raised_at <= clock_timestamp() - make_interval(hours => :hours)"
        ),
        {"kind": str(AlertKind.CLOCK_STEPPED), "hours": ALERT_HOURS},
    )
