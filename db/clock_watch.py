"""Detect a step of the database's clock, once for all processes that watch it.

Each process compares the progress of that clock with its own monotonic clock. The highest instant
that any process has seen is stored in the database. Therefore a step back is detected even if no
process was running at that time. For the same reason, only the first process to detect a step
settles it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.log import get_logger
from db.engine import Database

log = get_logger(__name__)

#: Seconds between two comparisons.
EVERY_SECONDS = 1.0
#: Largest deviation that is not a step, in seconds. A call's margin covers it.
_TOLERANCE_SECONDS = 2.0
#: The stored instant is updated only if it is older than this, in seconds.
_STORE_SECONDS = 0.5

_READ = text("SELECT clock_timestamp() AS now, seen_at FROM database_clock")
_BEGIN = text(
    "INSERT INTO database_clock (seen_at) VALUES (clock_timestamp())"
    " ON CONFLICT (one) DO UPDATE SET seen_at = database_clock.seen_at"
    " RETURNING clock_timestamp() AS now, seen_at"
)
_LOCK = text("SELECT clock_timestamp() AS now, seen_at FROM database_clock FOR UPDATE")
_STORE = text("UPDATE database_clock SET seen_at = :now WHERE seen_at < :now")
_SET = text("UPDATE database_clock SET seen_at = :now")


@dataclass(frozen=True)
class Step:
    """One step of the clock, from `before` to `after`.

    `seconds` is `after` minus `before`. It is negative if the clock stepped back. The step happened
    at most `within_seconds` ago.
    """

    before: datetime
    after: datetime
    seconds: float
    within_seconds: float


class _Sample(NamedTuple):
    now: datetime
    monotonic: float


class ClockWatch:
    """A watch that compares the clocks at intervals and has each step settled.

    `settle` receives the step, in the transaction that also stores the new instant. If it fails,
    the transaction is rolled back and the next comparison detects the step again.
    """

    def __init__(
        self,
        database: Database,
        settle: Callable[[Session, Step], None],
        *,
        every_seconds: float = EVERY_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._settle_step = settle
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._next = 0.0
        self._base: _Sample | None = None

    def check(self) -> Step | None:
        """Compare the clocks if the interval has passed, and settle a step.

        Returns the step if this process has settled one. Errors are logged and not raised, because
        the caller's own work must go on.
        """
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + self._every_seconds
        try:
            return self._compare()
        except Exception as error:
            log.warning("clock_not_checked", error=repr(error))
            return None

    def _compare(self) -> Step | None:
        sample, seen_at, uncertain_seconds = self._database.run(self._read)
        deviation = self._deviation(sample)
        behind = (seen_at - sample.now).total_seconds() > _TOLERANCE_SECONDS
        step = None
        if behind or abs(deviation) > _TOLERANCE_SECONDS + uncertain_seconds:
            sample, step = self._database.run(self._settle)
        elif (sample.now - seen_at).total_seconds() > _STORE_SECONDS:
            now = sample.now
            self._database.run(lambda session: session.execute(_STORE, {"now": now}))
        self._base = sample
        return step

    def _read(self, session: Session) -> tuple[_Sample, datetime, float]:
        began = self._monotonic()
        row = session.execute(_READ).one_or_none()
        ended = self._monotonic()
        if row is None:
            row = session.execute(_BEGIN).one()
        return _Sample(row.now, (began + ended) / 2), row.seen_at, (ended - began) / 2

    def _deviation(self, sample: _Sample) -> float:
        """Compute the seconds that the clock has gained since the last comparison.

        The result is negative if the clock has lost time.
        """
        if self._base is None:
            return 0.0
        progress = (sample.now - self._base.now).total_seconds()
        return progress - (sample.monotonic - self._base.monotonic)

    def _settle(self, session: Session) -> tuple[_Sample, Step | None]:
        """Decide, under the lock of the row, whether this is a step not settled yet."""
        row = session.execute(_LOCK).one()
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        sample = _Sample(now, self._monotonic())
        deviation = self._deviation(sample)
        unseen = (now - row.seen_at).total_seconds()
        seconds = 0.0
        if unseen < -_TOLERANCE_SECONDS:
            # The stored instant may be as old as the last comparison of its process. The deviation
            # that this process measured may show a larger step.
            seconds = min(deviation, unseen)
        elif deviation > _TOLERANCE_SECONDS and unseen > _TOLERANCE_SECONDS:
            # A process that was suspended also measures a step. Then other processes have stored
            # later instants, and `unseen` is small.
            seconds = min(deviation, unseen)
        session.execute(_SET, {"now": now})
        if not seconds:
            return sample, None
        within = self._every_seconds if self._base is None else 0.0
        if self._base is not None:
            within = sample.monotonic - self._base.monotonic
        step = Step(now - timedelta(seconds=seconds), now, seconds, within)
        self._settle_step(session, step)
        return sample, step
