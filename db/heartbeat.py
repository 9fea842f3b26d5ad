"""Write a process's heartbeat to PostgreSQL every two seconds."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from base.ids import new_id
from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from db import processes
from db.engine import Database
from db.processes import Kind

log = get_logger(__name__)

#: Longest time between two writes, in seconds.
EVERY_SECONDS = 2.0
#: Each wait is shortened randomly by up to this fraction, so that the processes do not all write at
#: once.
_JITTER_FRACTION = 0.2
#: Seconds that a stopping process waits for the thread.
_STOP_SECONDS = 3.0


def process_name(process_id: int | None = None) -> str:
    """Build the name of a process of this host, by default the current one: host:pid."""
    return f"{socket.gethostname()}:{process_id or os.getpid()}"


class Heartbeat:
    """The thread that writes this process's row from start() until stop().

    At the end, the thread deletes the row. When a check of all processes is due, the thread runs
    `check` in a separate transaction. While `is_working` returns False, the thread writes nothing,
    so that a process that hangs shows as silent.
    """

    def __init__(
        self,
        database: Database,
        kind: Kind,
        *,
        queues: Sequence[str] = (),
        redis_away_seconds: Callable[[], float | None] = lambda: None,
        is_working: Callable[[], bool] = lambda: True,
        check: Callable[[Session, str], None] | None = None,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.process_id = new_id("prc")
        self._database = database
        self._kind: Kind = kind
        self._queues = sorted(queues)
        self._redis_away_seconds = redis_away_seconds
        self._is_working = is_working
        self._check = check
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, which then deletes the row; wait for it at most 3 seconds."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def beat(self, session: Session) -> bool:
        """Write the row in the caller's transaction; return whether a check is due."""
        return processes.write_heartbeat(
            session,
            self.process_id,
            kind=self._kind,
            name=process_name(),
            queues=self._queues,
            redis_away_seconds=self._redis_away_seconds(),
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                if self._is_working():
                    self._beat_and_check()
            except (NotYet, OutcomeUnknown) as error:
                log.warning("heartbeat_not_written", error=str(error))
            except Exception:
                # If the thread ended, a working process would be reported as dead.
                log.exception("heartbeat_failed")
            wait = self._every_seconds * random.uniform(1 - _JITTER_FRACTION, 1)  # noqa: S311
            self._stopped.wait(wait)

        try:
            self._database.run(lambda session: processes.delete_process(session, self.process_id))
        except (NotYet, OutcomeUnknown, SQLAlchemyError) as error:
            log.warning("process_row_left", error=str(error))

    def _beat_and_check(self) -> None:
        check = self._check
        if self._database.run(self.beat) and check is not None:
            self._database.run(lambda session: check(session, self.process_id))
