"""The meter: ticks over all live calls, by a thread in every worker for safety.

Any number of them may run: each looks for wallets with a call that is due, and whoever locks a
wallet first does its tick; the next finds nothing due. None of them is a leader.
"""

from __future__ import annotations

import random
import threading

from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from db.clock_watch import ClockWatch
from db.engine import Database, clock
from domain.calls.tick import Ticked, due_organizations, tick
from domain.clock_steps import settle_step

log = get_logger(__name__)

#: How often due calls are looked for, in seconds; the share of it that is left to chance keeps
#: several meters from looking at the same instant.
POLL_SECONDS = 0.25
_JITTER = 0.3
#: How long the meter waits for a wallet that somebody else has locked.
_PATIENCE = "SELECT set_config('lock_timeout', '250ms', true)"
#: Wallets whose calls one look takes at most.
WALLETS_MAX = 200


def _tick(session: Session, organization_id: str) -> Ticked:
    # A wallet that somebody holds is left for the next look: the others' calls do not wait for it.
    session.connection().exec_driver_sql(_PATIENCE)
    return tick(session, organization_id, clock(session))


class Meter:
    """One thread, from start() to stop()."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = ClockWatch(database, settle_step)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        """This function will begin to tick."""
        self._thread.start()

    def stop(self, limit_seconds: float) -> None:
        """This function will end the thread after the wallet that it is at."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(limit_seconds)

    def tick_once(self) -> int:
        """Tick over every wallet that is due, and return how many there were.

        A step of the database's clock is settled first: elapsed times would be wrong.
        """
        self._clock.check()
        due = self._database.run(
            lambda session: due_organizations(session, clock(session), WALLETS_MAX)
        )
        # In another order than the other meters, so that they do not wait for each other's wallets.
        random.shuffle(due)
        for organization_id in due:
            if self._stopped.is_set():
                break
            self._tick(organization_id)
        return len(due)

    def _tick(self, organization_id: str) -> None:
        try:
            done = self._database.run(lambda session: _tick(session, organization_id))
        except (NotYet, OutcomeUnknown) as error:
            log.warning("wallet not ticked", organization=organization_id, error=str(error))
        except Exception:
            # One wallet's bug must not keep the others' calls from being ended.
            log.exception("tick failed", organization=organization_id)
        else:
            if done.ended or done.warned:
                log.info(
                    "calls metered",
                    organization=organization_id,
                    extended=done.extended,
                    warned=done.warned,
                    ended=done.ended,
                )

    def _run(self) -> None:
        while not self._stopped.is_set():
            found = 0
            try:
                found = self.tick_once()
            except Exception as error:
                # The database is away: its calls are capped at the platform meanwhile.
                log.warning("calls not metered", error=str(error))
            if found < WALLETS_MAX:
                self._stopped.wait(POLL_SECONDS * random.uniform(1 - _JITTER, 1))  # noqa: S311
