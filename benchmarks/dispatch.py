"""dispatch: time from the commit that stages a job to the start of its actor.

The machine is otherwise idle. The baseline is an empty actor of Dramatiq, timed from the push of
its message. Both run one job at a time, at irregular intervals.
"""

from __future__ import annotations

import contextlib
import random
import time
from contextlib import ExitStack

from redis import Redis

from benchmarks.empty_actors import LATENCIES, QUEUE
from benchmarks.measure import Timing, timing, wait
from benchmarks.system import System
from db.engine import Database
from db.jobs.staging import Staged
from db.redis.client import Notifier, connect, push
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION

_LIMIT = "goal: p50 under 20"
#: Jobs of a round, for each second of the requested duration.
_PER_SECOND = 15
_PAUSE_SECONDS = (0.02, 0.1)

_STARTED = """
    SELECT extract(epoch FROM a.started_at)::float8 FROM job_attempts a
    JOIN jobs j ON j.id = a.job_id WHERE a.job_id = %s AND j.outcome = 'done'
"""


def dispatch(system: System, rounds: int, seconds: float) -> list[Timing]:
    """Measure from commit to start, and Dramatiq's baseline from push to start."""
    count = max(20, round(_PER_SECOND * seconds))
    (organization_id,) = system.bench.make_wallets(1)
    with ExitStack() as stack:
        redis = stack.enter_context(contextlib.closing(connect(system.redis_url)))
        notifier = Notifier(system.redis_url)
        stack.callback(notifier.close)
        database = system.database(after_commit=notifier.notify)
        stack.callback(database.close)
        stack.enter_context(system.workers("safety", processes=1, threads=8))
        stack.enter_context(system.empty_workers(processes=1, threads=8))
        ours, theirs = [], []
        for _ in range(rounds):
            system.clear()
            ours.append([_ours(system, database, organization_id) for _ in range(count)])
            theirs.append([_theirs(redis) for _ in range(count)])
    return [timing("dispatch", _LIMIT, ours, theirs)]


def _ours(system: System, database: Database, organization_id: str) -> float:
    _pause()
    job_id = database.run(
        lambda session: stage(
            session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id
        )
    )
    committed_at = time.time()
    wait(lambda: system.ask(_STARTED, job_id) is not None, "the job", every_seconds=0.01)
    # Both times are from the same machine's clock. The job may start before this process learns of
    # its own commit, so the difference may be negative.
    return max(0.0, float(system.ask(_STARTED, job_id)) - committed_at)


def _theirs(redis: Redis) -> float:
    _pause()
    push(redis, [Staged(str(time.time()), "note", QUEUE)])
    wait(lambda: redis.llen(LATENCIES) > 0, "the actor", every_seconds=0.01)
    return float(redis.lpop(LATENCIES))  # type: ignore[arg-type]


def _pause() -> None:
    time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311
