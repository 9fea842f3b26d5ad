"""Keeps events that concern nobody from the threads: what is fetched at once is ended at once.

It decides nothing else. Whatever is not ended here goes the usual way, which finds out from the row
what is owed, so that an error of one event, or of the whole batch, does no harm to any other.
"""

from __future__ import annotations

import threading

import psycopg

from base.enums import Queue
from base.facts import OtherReport
from base.log import get_logger
from db.inbox.ignoring import IgnoredEvents, Owed
from workers.actors.events import report_of

log = get_logger(__name__)

#: Where ingress puts what most likely concerns nobody. In the others nearly every event concerns
#: somebody, and none waits for the rest of its batch.
SIFTED_QUEUES = frozenset({Queue.CALLBACKS, Queue.MAINTENANCE})


class Sieve:
    """One connection of a process; its queues take turns."""

    def __init__(self, database_url: str, worker: str) -> None:
        self._events = IgnoredEvents(database_url)
        self._worker = worker
        self._turn = threading.Lock()

    def end_ignored(self, job_ids: list[str]) -> set[str]:
        """This function will end the jobs whose events concern nobody, and give their ids.

        Replay: none, since a job that is over is left to the usual way. It raises nothing.
        """
        with self._turn:
            try:
                owed = self._events.read(job_ids)
                ignored = [event for event in owed if _concerns_nobody(event)]
                return self._events.end(ignored, self._worker) if ignored else set()
            except psycopg.Error as error:
                log.warning("events left to the threads", jobs=len(job_ids), error=repr(error))
                return set()

    def close(self) -> None:
        """This function will close the connection. Replay: nothing happens."""
        with self._turn:
            self._events.close()


def _concerns_nobody(event: Owed) -> bool:
    try:
        return isinstance(report_of(event.source, event.event_type, event.body), OtherReport)
    except Exception:
        # Malformed, or a bug: its own attempt says so, and the others have nothing to do with it.
        return False
