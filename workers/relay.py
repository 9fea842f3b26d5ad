"""The relay: rings for every job whose bell is due and that nobody rang for, or nobody heard, and
stages periodic work when its time has come.

Any number may run: each takes other rows. It holds nothing in memory, so killing it loses nothing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from types import FrameType

import redis

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from base.settings import Settings
from db.clock_watch import ClockWatch
from db.engine import Database
from db.heartbeat import Heartbeat
from db.jobs import notifications as bells
from db.redis import capacity as ring_room
from db.redis.capacity import Memory
from db.redis.client import EPOCH_KEY, connect, push, run_id
from domain.alerts import process_faults
from domain.clock_steps import clear_old, settle_step
from domain.jobs import schedules
from domain.jobs.schedules import SCHEDULES, Schedule

log = get_logger(__name__)

#: Seconds between two looks at what is due.
_POLL_SECONDS = 0.25
#: Jobs rung in one transaction at most. What a batch costs hardly depends on its size (in a
#: prototype 100,000 bells took 13 s by 200, 4 s by 1000, 2 s by 5000).
_BATCH = 5_000
#: Messages that may always wait in a queue, however full Redis is.
_FEW = 200
#: The share of Redis' memory up to which urgent jobs, and all others, are notified in full batches.
_URGENT_SHARE = 0.9
_SHARE = 0.75
#: Jobs made due again in one transaction at most, after Redis may have lost their bells.
_AGAIN_BATCH = 5_000
#: Seconds after another process of Redis was seen before a next one counts: behind a proxy there
#: may be several that take turns.
_OTHER_SECONDS = 60.0
#: Seconds between two looks at the schedules, and between two declarations of them.
_TICK_SECONDS = 1.0
_DECLARE_SECONDS = 60.0
#: Longest transaction, in seconds: several statements at their limit. A host that has vanished
#: does not hang up, and a relay that waits for it would ring for nobody.
_LONGEST_SECONDS = 15.0
#: Seconds that one pass may take before the relay counts as stuck: the longest transactions of one.
_STUCK_SECONDS = 60.0
#: Seconds after a lost connection to Redis or PostgreSQL before the next try.
_AWAY_SECONDS = 1.0


class Relay:
    """One pass at a time over the jobs whose bell is due."""

    def __init__(
        self,
        database: Database,
        client: redis.Redis,
        declared: Iterable[Schedule] = SCHEDULES,
    ) -> None:
        self._database = database
        self._client = client
        self._schedules = tuple(declared)
        self._next_tick = 0.0
        self._next_declaration = 0.0
        self._next_other = 0.0
        self._clock = ClockWatch(database, settle_step)
        self._redis_away_since: float | None = None
        self._passed_at = time.monotonic()

    @property
    def redis_away_seconds(self) -> float | None:
        """For how long Redis has taken nothing; None while it does."""
        since = self._redis_away_since
        return None if since is None else time.monotonic() - since

    @property
    def is_working(self) -> bool:
        """Whether the loop still goes round: a relay that hangs notifies nobody."""
        return time.monotonic() - self._passed_at < _STUCK_SECONDS

    def tick(self) -> None:
        """This function will stage the periodic work that is due, about once a second.

        Raises: NotYet, OutcomeUnknown when PostgreSQL is away.
        """
        # First: a step of the clock would have waits last longer, and schedules stop.
        self._clock.check()
        now = time.monotonic()
        if now >= self._next_declaration:
            self._database.run(lambda session: schedules.declare(session, self._schedules))
            self._database.run(clear_old)
            self._database.run(bells.ring_set_back)
            self._next_declaration = now + _DECLARE_SECONDS
        if now >= self._next_tick:
            for job_id in self._database.run(
                lambda session: schedules.tick(session, self._schedules)
            ):
                log.info("periodic job staged", job=job_id)
            self._next_tick = now + _TICK_SECONDS

    def run_once(self) -> int:
        """Notify what is due, at most a batch of each kind, and give how many jobs.

        What is urgent comes first, so that it waits behind no backlog of other work. Where Redis
        may have lost notifications, all jobs that were notified and not claimed are due again. A
        Redis that is full of messages is emptied, because workers cannot fetch from it. Raises:
        redis.RedisError, NotYet, OutcomeUnknown when one of the two is away or takes nothing.
        """
        try:
            memory = ring_room.read_memory(self._client)
            if memory.room(1.0) < 0:
                self._make_room()
                memory = ring_room.read_memory(self._client)
            return self._run_once(memory)
        except redis.RedisError as error:
            if ring_room.is_full(error):
                self._make_room()
            raise

    def _run_once(self, memory: Memory) -> int:
        rung = 0
        known, server = self._client.get(EPOCH_KEY), run_id(self._client)
        is_other = known is not None and known != server.encode()
        if known is None or (is_other and time.monotonic() >= self._next_other):
            # Emptied, it lost all; started again or followed by a replica, what was pushed last.
            again = self._ring_all_again(urgent=True)
            rung = self._ring_urgent(memory)
            again += self._ring_all_again(urgent=False)
            # Set last: killed in between, the next relay finds it as it was and does it once more.
            self._client.set(EPOCH_KEY, server)
            if is_other:
                self._next_other = time.monotonic() + _OTHER_SECONDS
            log.warning("redis may have lost bells; rung jobs are due again", jobs=again)
        return rung + self._ring_urgent(memory) + self._ring_others(memory)

    def _make_room(self) -> None:
        if ring_room.drop_messages(self._client):
            log.error("redis_was_full", dropped="all messages", jobs="are notified again")

    def _ring_urgent(self, memory: Memory) -> int:
        return self._ring(max(_FEW, min(_BATCH, memory.room(_URGENT_SHARE))), urgent=True)

    def _ring_others(self, memory: Memory) -> int:
        """Leave the last part of Redis' memory to urgent work and to what workers write."""
        room = memory.room(_SHARE)
        if room >= _FEW:
            return self._ring(min(_BATCH, room), urgent=False)
        # Other users may have filled Redis. Queues that are nearly empty are still notified.
        queues = ring_room.short_queues(self._client, _FEW)
        return self._ring(_FEW, urgent=False, queues=queues) if queues else 0

    def _ring(self, limit: int, *, urgent: bool, queues: Sequence[str] | None = None) -> int:
        due = self._database.run(
            lambda session: bells.ring_due(session, limit, urgent=urgent, queues=queues)
        )
        if due:
            try:
                push(self._client, due)
            except redis.RedisError:
                ids = [job.job_id for job in due]
                self._database.run(lambda session: bells.unring(session, ids))
                raise
        return len(due)

    def _ring_all_again(self, *, urgent: bool) -> int:
        """In transactions of a bounded size: all at once would run into the statement's limit."""
        total = 0
        while True:
            batch = self._database.run(
                lambda session: bells.ring_all_again(session, _AGAIN_BATCH, urgent=urgent)
            )
            total += batch
            if batch < _AGAIN_BATCH:
                return total

    def run_until(self, stop: threading.Event) -> None:
        """This function will ring until told to stop; Redis or PostgreSQL may be away meanwhile."""
        while not stop.is_set():
            self._passed_at = time.monotonic()
            try:
                try:
                    # First: work that is due is staged although Redis may be away.
                    self.tick()
                finally:
                    # What ends a call waits for no schedule: it is rung although those are locked.
                    rung = self.run_once()
                self._redis_away_since = None
            except (redis.RedisError, NotYet, OutcomeUnknown) as error:
                if isinstance(error, redis.RedisError) and self._redis_away_since is None:
                    self._redis_away_since = time.monotonic()
                log.warning("relay waits", error=str(error))
                stop.wait(_AWAY_SECONDS)
                continue
            if rung < _BATCH:
                stop.wait(_POLL_SECONDS)


def serve(settings: Settings) -> None:
    """This function will run a relay until SIGTERM or SIGINT."""
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    database = Database(
        settings.database_url, name="relay", pool_size=3, longest_seconds=_LONGEST_SECONDS
    )
    client = connect(settings.redis_url)
    log.info("relay started")
    relay = Relay(database, client)
    heartbeat = Heartbeat(
        database,
        "relay",
        redis_away_seconds=lambda: relay.redis_away_seconds,
        is_working=lambda: relay.is_working,
        check=process_faults.check,
    )
    heartbeat.start()
    with contextlib.closing(client):
        relay.run_until(stop)
    heartbeat.stop()
    database.close()
    log.info("relay stopped")
