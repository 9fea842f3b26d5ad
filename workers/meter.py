"""Ticks wallets with live calls, in one thread of each safety worker: the meter.

Any number of meters may run. Each looks for wallets with a due call. The first one to lock a wallet
runs its tick, and the next one finds nothing due. There is no leader.
"""

from __future__ import annotations

import random
import threading

from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from db.clock_watch import ClockWatch
from db.engine import Database, clock
from domain.calls.tick import TickResult, due_organizations, tick
from domain.clock_steps import correct_clock_step

log = get_logger(__name__)

#: Seconds between two searches for due calls. Each wait is shorter by a random share of at most
#: _JITTER_SHARE, so that several meters do not search at the same time.
POLL_SECONDS = 0.25
_JITTER_SHARE = 0.3
#: The meter skips a wallet that another transaction keeps locked for longer than this.
_SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', '250ms', true)"
#: The most wallets whose calls one search takes.
WALLETS_MAX = 200


def _tick_wallet(session: Session, organization_id: str) -> TickResult:
    # A locked wallet is left for the next search, so that other wallets' calls do not wait for it.
    session.connection().exec_driver_sql(_SET_LOCK_TIMEOUT)
    return tick(session, organization_id, clock(session))


class Meter:
    """One metering thread, from start() to stop()."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = ClockWatch(database, correct_clock_step)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, limit_seconds: float) -> None:
        """End the thread after its current wallet."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(limit_seconds)

    def tick_once(self) -> int:
        """Tick every wallet that has a due call, and return the number of these wallets.

        A step of the database's clock is settled first, because it makes elapsed times wrong.
        """
        self._clock.check()
        due = self._database.run(
            lambda session: due_organizations(session, clock(session), WALLETS_MAX)
        )
        # Each meter uses another order, so that meters do not wait for each other's wallets.
        random.shuffle(due)
        for organization_id in due:
            if self._stopped.is_set():
                break
            self._tick_and_log(organization_id)
        return len(due)

    def _tick_and_log(self, organization_id: str) -> None:
        try:
            result = self._database.run(lambda session: _tick_wallet(session, organization_id))
        except (NotYet, OutcomeUnknown) as error:
            log.warning("wallet_not_ticked", organization=organization_id, error=str(error))
        except Exception:
            # A bug in one wallet's tick must not keep other wallets' calls from being ended.
            log.exception("tick_failed", organization=organization_id)
        else:
            if result.ended or result.warned:
                log.info(
                    "calls_metered",
                    organization=organization_id,
                    extended=result.extended,
                    warned=result.warned,
                    ended=result.ended,
                )

    def _run(self) -> None:
        while not self._stopped.is_set():
            wallets = 0
            try:
                wallets = self.tick_once()
            except Exception as error:
                # The database is away. Meanwhile the time limit at the provider bounds each call.
                log.warning("calls_not_metered", error=str(error))
            if wallets < WALLETS_MAX:
                self._stopped.wait(POLL_SECONDS * random.uniform(1 - _JITTER_SHARE, 1))  # noqa: S311
