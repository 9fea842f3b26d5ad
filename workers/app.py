"""The broker, built from settings; one Dramatiq actor for each declared job; one worker process.

Dramatiq's Retries, AgeLimit and Pipelines are not loaded: the job's row is the one retry authority.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from types import FrameType

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import ShutdownNotifications, TimeLimit
from dramatiq.worker import Worker

from base.enums import Queue
from base.log import get_logger
from base.settings import Settings
from db.engine import Database
from db.ring import NAMESPACE, Ringer, connect
from domain.jobs import JOB_TYPES
from providers.registry import Providers
from workers.actors import ACTORS
from workers.execute import Executor

log = get_logger(__name__)

#: Connection retries of a worker's client: about a minute of a Redis that is away.
_REDIS_RETRIES = 60
#: After so long without a word, a worker's unacknowledged messages go to others, in milliseconds.
_HEARTBEAT_TIMEOUT_MS = 10_000
#: How often an idle worker asks for messages, in milliseconds.
_IDLE_POLL_MS = 50


def build_broker(redis_url: str, executor: Executor, queues: set[Queue]) -> RedisBroker:
    """This function will make the broker with an actor for every declared job.

    A message for a name that is not declared would be dead-lettered by Dramatiq; the job's row
    would then be rung again until a worker that knows it is there.
    """
    broker = RedisBroker(  # type: ignore[no-untyped-call]
        client=connect(redis_url, retries=_REDIS_RETRIES),
        middleware=[TimeLimit(), ShutdownNotifications()],
        namespace=NAMESPACE,
        # Maintenance hands a dead worker's messages on; by default it waits for a rare draw.
        maintenance_chance=1_000_000,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT_MS,
    )

    def execute(job_id: str) -> None:
        # Its word is not handed on: Dramatiq writes a warning for every value an actor gives.
        executor.execute(job_id)

    for job in JOB_TYPES.values():
        dramatiq.Actor(
            execute,
            broker=broker,
            actor_name=job.name,
            queue_name=str(job.queue),
            priority=0,
            options={"time_limit": job.limit_seconds * 1000},
        )
    for queue in queues:
        broker.declare_queue(str(queue))
    return broker


def worker_name() -> str:
    """This function will name this process for people: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def serve(settings: Settings, providers: Providers, queues: set[Queue], threads: int) -> None:
    """This function will work on the queues until SIGTERM or SIGINT, then stop gracefully.

    What is running is finished within the longest actor's limit; what was only fetched is put
    back. Units: `threads` jobs run at once.
    """
    ringer = Ringer(settings.redis_url)
    name = worker_name()
    database = Database(
        settings.database_url, name=name, pool_size=threads, after_commit=ringer.ring
    )
    executor = Executor(database, providers, settings, ACTORS, name)
    broker = build_broker(settings.redis_url, executor, queues)
    worker = Worker(
        broker,
        queues={str(queue) for queue in queues},
        worker_threads=threads,
        worker_timeout=_IDLE_POLL_MS,
    )
    # One message a thread, so that none waits behind a slow one while another worker is idle.
    worker.queue_prefetch = threads
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    worker.start()
    log.info("worker started", queues=sorted(queues), threads=threads, worker=name)
    stop.wait()
    longest = max(job.limit_seconds for job in JOB_TYPES.values())
    worker.stop(timeout=int((longest + 5) * 1000))
    broker.close()
    ringer.close()
    database.close()
    log.info("worker stopped", worker=name)
