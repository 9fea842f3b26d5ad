"""Runs one worker process: its broker, its Dramatiq actors and its threads.

Dramatiq's Retries, AgeLimit and Pipelines are not loaded, because only the job's row decides about
retries.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import dramatiq
from dramatiq.middleware import ShutdownNotifications, TimeLimit
from dramatiq.worker import Worker

from base.enums import Queue
from base.log import get_logger
from base.settings import Settings
from db.engine import Database
from db.heartbeat import Heartbeat, process_name
from db.redis.circuits import POLICY, CircuitPolicy, Circuits
from db.redis.client import NAMESPACE, Notifier, connect
from domain.alerts import process_faults
from domain.jobs.types import JOB_TYPES
from providers.registry import build as build_providers
from workers.actors import ACTORS
from workers.consumer.broker import UNKNOWN_JOB, NotificationBroker
from workers.consumer.fallback import THREADS as FALLBACK_THREADS
from workers.consumer.fallback import Fallback
from workers.consumer.probe import RedisProbe
from workers.executor import Executor
from workers.meter import Meter
from workers.provider_waits import PRODUCTION_WAITS, ProviderWaits
from workers.shutdown import StopSignals, stop_worker

log = get_logger(__name__)

#: Connection retries of a worker's Redis client: about a minute of a Redis that is away.
_REDIS_RETRIES = 60
#: Milliseconds without a heartbeat after which a worker's unacknowledged messages go to others.
_HEARTBEAT_TIMEOUT_MS = 10_000
#: Time limit in seconds for the run that finds that a job's name is unknown.
_UNKNOWN_LIMIT_SECONDS = 10
#: Seconds by which a transaction may exceed the longest job's time limit. A thread that waits for a
#: silent server is not interrupted, and would wait for as long as the network does.
_TRANSACTION_MARGIN_SECONDS = 5
#: Seconds that the meter has to finish its current wallet.
_METER_STOP_SECONDS = 6
#: Time limit in seconds for taking a due job from PostgreSQL in the fallback. It is longer than the
#: server's limit for this query, and far shorter than a job's. While one thread waits, no other
#: thread queries.
_TAKE_SECONDS = 3.0
#: Connections for these queries: one for each of the fallback's two kinds of jobs.
_TAKE_CONNECTIONS = 2
#: Further connections of a safety worker: the meter's, and those of the fallback's threads.
_SAFETY_CONNECTIONS = 1 + FALLBACK_THREADS
#: Milliseconds for which an idle worker waits in Redis for messages before it checks whether to
#: stop. Each fetch is also a heartbeat, so this must be far below the heartbeat's timeout.
_IDLE_WAIT_MS = 500


def build_broker(redis_url: str, executor: Executor, queues: set[Queue]) -> NotificationBroker:
    """Make the broker with an actor for every job type, and one for unknown names.

    An unknown name belongs to a newer version. Its job is left to a worker that knows it.
    """
    broker = NotificationBroker(  # type: ignore[no-untyped-call]
        client=connect(redis_url, retries=_REDIS_RETRIES),
        middleware=[TimeLimit(), ShutdownNotifications()],
        namespace=NAMESPACE,
        # Dramatiq's maintenance gives a dead worker's messages to others. By default it runs only
        # at random and rarely.
        maintenance_chance=1_000_000,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT_MS,
    )
    limits = {job.name: job.limit_seconds for job in JOB_TYPES.values()}
    queue_of = {job.name: str(job.queue) for job in JOB_TYPES.values()}

    def execute(job_id: str) -> None:
        # The outcome is not returned, because Dramatiq logs a warning for every returned value.
        executor.execute(job_id)

    for name in (*JOB_TYPES, UNKNOWN_JOB):
        dramatiq.Actor(
            execute,
            broker=broker,
            actor_name=name,
            queue_name=queue_of.get(name, str(Queue.MAINTENANCE)),
            priority=0,
            options={"time_limit": limits.get(name, _UNKNOWN_LIMIT_SECONDS) * 1000},
        )
    for queue in queues:
        broker.declare_queue(str(queue))
    return broker


def serve(
    settings: Settings,
    queues: set[Queue],
    threads: int,
    *,
    waits: ProviderWaits = PRODUCTION_WAITS,
    circuit: CircuitPolicy = POLICY,
) -> None:
    """Work on the queues until SIGTERM or SIGINT, then stop gracefully.

    Messages that were only fetched go back to their queues at once. Running jobs may finish within
    the longest job's time limit; a second signal ends the wait. Units: `threads` jobs run at once.
    """
    signals = StopSignals()
    circuits = Circuits.from_settings(settings, circuit)
    notifier = Notifier(settings.redis_url)
    name = process_name()
    longest = max(job.limit_seconds for job in JOB_TYPES.values())
    database = Database(
        settings.database_url,
        name=name,
        # One more than the threads, for the heartbeat.
        pool_size=threads + 1 + (_SAFETY_CONNECTIONS if Queue.SAFETY in queues else 0),
        longest_seconds=longest + _TRANSACTION_MARGIN_SECONDS,
        after_commit=notifier.notify,
    )
    providers = build_providers(settings, circuits)
    executor = Executor(database, providers, settings, ACTORS, name, waits=waits)
    broker = build_broker(settings.redis_url, executor, queues)
    worker = Worker(
        broker,
        queues={str(queue) for queue in queues},
        worker_threads=threads,
        worker_timeout=_IDLE_WAIT_MS,
    )
    # One message per thread, so that none waits behind a slow job while another worker is idle.
    worker.queue_prefetch = threads
    # Dramatiq's own command line emits this, and is not used. It starts the time limits' clock.
    broker.emit_after("process_boot")
    worker.start()
    safety = SafetyThreads(settings, database, executor, name) if Queue.SAFETY in queues else None
    heartbeat = Heartbeat(
        database,
        "worker",
        queues=[str(queue) for queue in queues],
        redis_away_seconds=safety.redis_away_seconds if safety else lambda: None,
        check=process_faults.check if safety else None,
    )
    heartbeat.start()
    log.info("worker_started", queues=sorted(queues), threads=threads, worker=name)
    signals.wait()
    log.info("worker_stopping", worker=name)
    limit_seconds = longest + 5
    if safety is not None:
        safety.stop_taking()
    unfinished = stop_worker(worker, limit_seconds=limit_seconds, hurry=lambda: signals.count > 1)
    if safety is not None:
        unfinished += safety.stop(limit_seconds, hurry=lambda: signals.count > 1)
    heartbeat.stop()
    notifier.close()
    if unfinished:
        # Their transactions end with the process. Their leases are left to expire, because it
        # is unknown what their requests did at the provider.
        log.error("worker_stopped_with_unfinished_jobs", jobs=unfinished, worker=name)
        os._exit(1)
    broker.close()
    providers.close()
    circuits.close()
    database.close()
    log.info("worker_stopped", worker=name)


class SafetyThreads:
    """The threads of a safety worker beside its jobs: the meter and the fallback."""

    def __init__(
        self, settings: Settings, database: Database, executor: Executor, name: str
    ) -> None:
        self._meter = Meter(database)
        self._takes = Database(
            settings.database_url,
            name=f"{name} fallback",
            pool_size=_TAKE_CONNECTIONS,
            longest_seconds=_TAKE_SECONDS,
        )
        self._fallback = Fallback(
            self._takes, RedisProbe(settings.redis_url, name), executor.execute
        )
        self._meter.start()
        self._fallback.start()

    def redis_away_seconds(self) -> float | None:
        return self._fallback.away_seconds

    def stop_taking(self) -> None:
        self._fallback.stop_taking()
        self._meter.stop(_METER_STOP_SECONDS)

    def stop(self, limit_seconds: float, hurry: Callable[[], bool]) -> int:
        """Wait for the fallback's jobs; return how many threads did not end in time."""
        unfinished = self._fallback.stop(limit_seconds, hurry)
        self._takes.close()
        return unfinished
