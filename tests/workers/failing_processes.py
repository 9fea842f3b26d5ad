"""Failures of workers and relays in mid-work, for tests to run as processes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Any

from base.enums import Queue
from base.log import configure
from base.settings import load_settings
from db.engine import Database
from db.jobs import notifications
from db.redis.circuits import CircuitPolicy
from db.redis.client import connect
from domain.jobs import schedules
from domain.jobs import types as domain_jobs
from providers import registry
from workers import process as app
from workers import relay
from workers.attempt import Run
from workers.executor import Executor


def die_in_job(job_id: str) -> None:
    """Run a job whose actor kills the worker that runs it."""

    def die(run: Run, **arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    database = Database(settings.database_url, name="victim")
    actors = {"enforce_organization": die}
    Executor(database, registry.build(settings), settings, actors, "victim").execute(job_id)


def die_between_claim_and_push() -> None:
    """Run a relay that is killed after it has claimed jobs and notified of none."""

    def die(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    relay.push = die
    relay.Relay(
        Database(settings.database_url, name="relay"), connect(settings.redis_url)
    ).run_once()


def notify_once(times: int) -> None:
    """Claim the due urgent notifications `times` times, as a relay does."""
    database = Database(load_settings().database_url, name="relay")
    for _ in range(times):
        database.run(lambda session: notifications.notify_due(session, 500, urgent=True))


def die_between_tick_and_commit() -> None:
    """Run a relay that is killed after it has staged periodic jobs."""
    tick = schedules.tick

    def die(*arguments: Any) -> None:
        staged = tick(*arguments)
        assert staged
        os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    schedules.tick = die
    relay.Relay(Database(settings.database_url, name="relay"), connect(settings.redis_url)).tick()


def work_without_end() -> None:
    """Run a worker whose `enforce_organization` never ends, with a time limit of 1 s."""
    settings = load_settings()

    def never_end(run: Run, **arguments: Any) -> None:
        while True:
            time.sleep(0.01)

    app.ACTORS["enforce_organization"] = never_end
    domain_jobs.JOB_TYPES["enforce_organization"] = replace(
        domain_jobs.ENFORCE_ORGANIZATION, limit_seconds=1
    )
    app.serve(settings, {Queue.SAFETY}, 1)


def work_with_circuits(policy: CircuitPolicy) -> None:
    """Run a billing worker of two threads whose circuits have this policy."""
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    app.serve(settings, {Queue.BILLING}, 2, circuit=policy)


def work_as_an_older_version() -> None:
    """Run a worker of a version that does not know `enforce_organization`."""
    settings = load_settings()
    del app.ACTORS["enforce_organization"]
    del domain_jobs.JOB_TYPES["enforce_organization"]
    app.serve(settings, {Queue.SAFETY}, 2)
