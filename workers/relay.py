"""The relay: notifies workers of due jobs, and stages periodic jobs.

It repeats a notification that was lost or not acted on. Any number of relays may run, because each
takes other rows. A relay keeps no state that matters, so killing it loses nothing.
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
from db.jobs import notifications
from db.redis import capacity
from db.redis.backlog import heads_of_long_queues
from db.redis.capacity import Memory
from db.redis.client import EPOCH_KEY, connect, push, run_id
from domain.alerts import process_faults
from domain.clock_steps import clear_old_alerts, correct_clock_step
from domain.jobs import schedules
from domain.jobs.schedules import SCHEDULES, Schedule

log = get_logger(__name__)

#: Seconds between two searches for due jobs.
_POLL_SECONDS = 0.25
#: The most jobs that are notified in one transaction. The size hardly changes a batch's cost: in a
#: prototype, 100,000 notifications took 13 s by 200, 4 s by 1000, 2 s by 5000.
_BATCH = 5_000
#: Messages that may always wait in a queue, even if Redis is nearly full.
_FEW_MESSAGES = 200
#: The share of Redis' memory up to which urgent jobs, and other jobs, are notified in full batches.
_URGENT_SHARE = 0.9
_OTHERS_SHARE = 0.75
#: The most jobs that one transaction makes due again after Redis may have lost notifications.
_AGAIN_BATCH = 5_000
#: Seconds after a change of Redis' run ID in which further changes are ignored. A proxy may
#: alternate between several servers.
_SERVER_CHANGE_SECONDS = 60.0
#: Seconds between two checks of the schedules, and between two declarations of them.
_TICK_SECONDS = 1.0
_DECLARE_SECONDS = 60.0
#: Seconds of the longest transaction: several statements at their time limits. A vanished host does
#: not close its connection, and a relay that waits for it would notify no worker.
_LONGEST_SECONDS = 15.0
#: Seconds in one pass after which the relay counts as stuck: the sum of its longest transactions.
_STUCK_SECONDS = 60.0
#: Seconds between a lost connection to Redis or PostgreSQL and the next try.
_AWAY_SECONDS = 1.0


class Relay:
    """Notifies workers of due jobs, one pass at a time."""

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
        self._server_change_ignored_until = 0.0
        self._clock = ClockWatch(database, correct_clock_step)
        self._redis_away_since: float | None = None
        self._pass_began_at = time.monotonic()

    @property
    def redis_away_seconds(self) -> float | None:
        """Seconds for which Redis has taken no notifications; None while it does."""
        since = self._redis_away_since
        return None if since is None else time.monotonic() - since

    @property
    def is_working(self) -> bool:
        """Whether the loop still makes passes. A relay that hangs notifies no worker."""
        return time.monotonic() - self._pass_began_at < _STUCK_SECONDS

    def tick(self) -> None:
        """Stage the periodic jobs that are due, about once a second.

        Raises: NotYet, OutcomeUnknown if PostgreSQL is away.
        """
        # First, because a step of the clock would make waits longer and stop schedules.
        self._clock.check()
        now = time.monotonic()
        if now >= self._next_declaration:
            self._database.run(lambda session: schedules.declare(session, self._schedules))
            self._database.run(clear_old_alerts)
            self._database.run(notifications.pull_notifications_back)
            self._next_declaration = now + _DECLARE_SECONDS
        if now >= self._next_tick:
            for job_id in self._database.run(
                lambda session: schedules.tick(session, self._schedules)
            ):
                log.info("periodic_job_staged", job=job_id)
            self._next_tick = now + _TICK_SECONDS

    def run_once(self) -> int:
        """Notify due jobs, at most a batch of each kind, and return how many.

        Urgent jobs are first, so that they wait behind no backlog of other jobs. If Redis may have
        lost notifications, all jobs that were notified and not claimed become due again. A Redis
        that is full of messages is emptied, because workers cannot fetch from it.
        Raises: redis.RedisError, NotYet, OutcomeUnknown if Redis or PostgreSQL is away or refuses
        writes.
        """
        try:
            memory = capacity.read_memory(self._client)
            if memory.room(1.0) < 0:
                self._make_room()
                memory = capacity.read_memory(self._client)
            return self._run_once(memory)
        except redis.RedisError as error:
            if capacity.is_full(error):
                self._make_room()
            raise

    def _run_once(self, memory: Memory) -> int:
        notified = 0
        stored_id, server = self._client.get(EPOCH_KEY), run_id(self._client)
        server_changed = stored_id is not None and stored_id != server.encode()
        if stored_id is None or (
            server_changed and time.monotonic() >= self._server_change_ignored_until
        ):
            # An emptied Redis lost everything. A restarted one, or a replica, lost the last writes.
            again = self._notify_all_again(urgent=True)
            notified = self._notify_urgent(memory)
            again += self._notify_all_again(urgent=False)
            # Set last: if the relay is killed before that, the next relay repeats all of it.
            self._client.set(EPOCH_KEY, server)
            if server_changed:
                self._server_change_ignored_until = time.monotonic() + _SERVER_CHANGE_SECONDS
            log.warning("redis_lost_notifications", jobs=again)
        return notified + self._notify_urgent(memory) + self._notify_others(memory)

    def _make_room(self) -> None:
        if capacity.drop_messages(self._client):
            log.error("redis_was_full", action="drop_messages_and_notify_again")

    def _notify_urgent(self, memory: Memory) -> int:
        return self._notify(
            max(_FEW_MESSAGES, min(_BATCH, memory.room(_URGENT_SHARE))), urgent=True
        )

    def _notify_others(self, memory: Memory) -> int:
        """Notify other jobs. Leave the last part of Redis' memory to urgent ones.

        What workers write to Redis needs that part too.
        """
        room = memory.room(_OTHERS_SHARE)
        if room >= _FEW_MESSAGES:
            return self._notify(min(_BATCH, room), urgent=False)
        # Other users may have filled Redis. Queues that are nearly empty are still notified.
        queues = capacity.short_queues(self._client, _FEW_MESSAGES)
        return self._notify(_FEW_MESSAGES, urgent=False, queues=queues) if queues else 0

    def _notify(self, limit: int, *, urgent: bool, queues: Sequence[str] | None = None) -> int:
        # An urgent job is notified again even if its message may still wait.
        heads = {} if urgent else heads_of_long_queues(self._client)
        due = self._database.run(
            lambda session: notifications.notify_due(
                session, limit, urgent=urgent, queues=queues, heads=heads
            )
        )
        if due:
            try:
                push(self._client, due)
            except redis.RedisError:
                ids = [job.job_id for job in due]
                self._database.run(lambda session: notifications.retry_notifications(session, ids))
                raise
        return len(due)

    def _notify_all_again(self, *, urgent: bool) -> int:
        """Make jobs due again in bounded batches, each within a statement's time limit."""
        total = 0
        while True:
            batch = self._database.run(
                lambda session: notifications.notify_all_again(session, _AGAIN_BATCH, urgent=urgent)
            )
            total += batch
            if batch < _AGAIN_BATCH:
                return total

    def run_until(self, stop: threading.Event) -> None:
        """Notify jobs until `stop` is set; Redis or PostgreSQL may be away meanwhile."""
        while not stop.is_set():
            self._pass_began_at = time.monotonic()
            try:
                try:
                    # First, so that due work is staged even if Redis is away.
                    self.tick()
                finally:
                    # Notified even if the schedules are locked, because jobs that end calls cannot
                    # wait for them.
                    notified = self.run_once()
                self._redis_away_since = None
            except (redis.RedisError, NotYet, OutcomeUnknown) as error:
                if isinstance(error, redis.RedisError) and self._redis_away_since is None:
                    self._redis_away_since = time.monotonic()
                log.warning("relay_pass_failed", error=str(error))
                stop.wait(_AWAY_SECONDS)
                continue
            if notified < _BATCH:
                stop.wait(_POLL_SECONDS)


def serve(settings: Settings) -> None:
    """Run a relay until SIGTERM or SIGINT."""
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    database = Database(
        settings.database_url, name="relay", pool_size=3, longest_seconds=_LONGEST_SECONDS
    )
    client = connect(settings.redis_url)
    log.info("relay_started")
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
    log.info("relay_stopped")
