"""Runs due safety jobs straight from PostgreSQL while Redis takes no work.

Redis only notifies. Without Redis, the jobs are still in PostgreSQL, and a closing event must not
wait. Dramatiq's threads cannot run them: they may be blocked in calls to a silent Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from base.clock import wait_until
from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from db.engine import Database
from db.jobs.due import take_due_safety
from domain.jobs.types import JOB_TYPES
from workers.consumer.probe import RedisProbe

log = get_logger(__name__)

#: Threads for jobs that use only our database, and threads for jobs that call a provider. They are
#: separate, so that a provider that does not answer delays no freeze.
OWN_THREADS = 4
PROVIDER_THREADS = 4
THREADS = OWN_THREADS + PROVIDER_THREADS


@dataclass(frozen=True)
class Limits:
    """Seconds between checks, and seconds by which the fallback outlasts an outage."""

    probe_seconds: float = 0.25
    poll_seconds: float = 0.15
    #: Longer than the relay takes to notify a job whose first notification was lost.
    after_seconds: float = 3.0


@dataclass(frozen=True)
class _Orders:
    """Events for the threads: take jobs from PostgreSQL; stop."""

    taking: threading.Event
    stopped: threading.Event


class Outage:
    """An outage of Redis: from a failed probe until Redis has worked for a while."""

    def __init__(self, after_seconds: float) -> None:
        self._after_seconds = after_seconds
        self._back_at: float | None = None
        #: When it began; None while there is none.
        self.away_since: float | None = None

    def note(self, takes_work: bool, now: float) -> bool:
        """Record a probe's result at a monotonic time; return whether there is an outage."""
        if not takes_work:
            self._back_at = None
            if self.away_since is None:
                self.away_since = now
                log.warning("redis_takes_no_work", safety_jobs="claimed from PostgreSQL")
        elif self.away_since is not None:
            if self._back_at is None:
                self._back_at = now
            if now - self._back_at >= self._after_seconds:
                away = round(self._back_at - self.away_since, 1)
                log.info("redis_takes_work_again", away_seconds=away)
                self.away_since = self._back_at = None
        return self.away_since is not None


class Fallback:
    """Watches Redis, and runs safety jobs with `execute` while it is away.

    Jobs are taken through `database`. Its time limit must be far shorter than a job's, because
    while one thread waits for a silent server, no other thread queries it.
    """

    def __init__(
        self,
        database: Database,
        probe: RedisProbe,
        execute: Callable[[str], str],
        limits: Limits | None = None,
    ) -> None:
        self._probe = probe
        self._limits = limits or Limits()
        self._signals = _Orders(threading.Event(), threading.Event())
        self._outage = Outage(self._limits.after_seconds)
        self._threads = [threading.Thread(target=self._watch, name="redis-probe", daemon=True)]
        for calls_provider, count in ((False, OWN_THREADS), (True, PROVIDER_THREADS)):
            names = [job.name for job in JOB_TYPES.values() if job.calls_provider is calls_provider]
            source = _JobSource(database, names, self._limits.poll_seconds, self._signals)
            self._threads += [
                threading.Thread(
                    target=_work, args=(source, execute), name=f"fallback-{number}", daemon=True
                )
                for number in range(count)
            ]

    @property
    def away_seconds(self) -> float | None:
        """Seconds for which Redis has taken no work; None while it does."""
        since = self._outage.away_since
        return None if since is None else time.monotonic() - since

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop_taking(self) -> None:
        """Start no further job. Running jobs continue."""
        self._signals.stopped.set()

    def stop(self, limit_seconds: float, hurry: Callable[[], bool] = lambda: False) -> int:
        """Wait until the running jobs end; return how many threads did not end in time."""
        self.stop_taking()

        def running() -> int:
            return sum(thread.is_alive() for thread in self._threads)

        wait_until(lambda: hurry() or not running(), limit_seconds=limit_seconds)
        self._probe.close()
        return running()

    def _watch(self) -> None:
        taking, stopped = self._signals.taking, self._signals.stopped
        while not stopped.is_set():
            if self._outage.note(self._takes_work(), time.monotonic()):
                taking.set()
            else:
                taking.clear()
            stopped.wait(self._limits.probe_seconds)
        # Wake the threads that wait for an outage, so that they end too.
        taking.set()

    def _takes_work(self) -> bool:
        try:
            return self._probe.takes_work()
        except Exception:
            # If this thread ended, no later outage would be noticed.
            log.exception("redis_probe_failed")
            return False


class _JobSource:
    """Finds the next due job of these names, for one thread at a time."""

    def __init__(
        self, database: Database, names: Sequence[str], poll_seconds: float, signals: _Orders
    ) -> None:
        self._database = database
        self._names = names
        self._poll_seconds = poll_seconds
        self._signals = signals
        self._turn = threading.Lock()

    @property
    def is_over(self) -> bool:
        return self._signals.stopped.is_set()

    def pause(self) -> None:
        self._signals.stopped.wait(self._poll_seconds)

    def next_job(self) -> str | None:
        """Wait until Redis is away, and return a due job; None if there is none now."""
        with self._turn:
            self._signals.taking.wait()
            if self.is_over:
                return None
            found = self._database.run(lambda session: take_due_safety(session, self._names))
            if not found:
                # The lock is held during the pause, so that only one thread queries PostgreSQL.
                self.pause()
            return found[0] if found else None


def _work(source: _JobSource, execute: Callable[[str], str]) -> None:
    while not source.is_over:
        try:
            job_id = source.next_job()
            if job_id is not None and execute(job_id) in ("taken", "unknown"):
                source.pause()
        except (NotYet, OutcomeUnknown) as error:
            log.warning("fallback_take_failed", error=str(error))
            source.pause()
        except Exception:
            # If this thread ended, no one would notice before the next outage.
            log.exception("fallback_failed")
            source.pause()
