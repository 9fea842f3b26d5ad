"""What befalls workers and relays in the middle of their work, for processes of their own."""

from __future__ import annotations

import os
import signal
from typing import Any

from base.settings import load_settings
from db import bells
from db.engine import Database
from db.ring import connect
from providers import registry
from workers import relay
from workers.execute import Executor
from workers.run import Run


def die_in_job(job_id: str) -> None:
    """This function will run a job whose actor kills the worker it runs in."""

    def die(run: Run, **arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    database = Database(settings.database_url, name="victim")
    actors = {"enforce_organization": die}
    Executor(database, registry.build(settings), settings, actors, "victim").execute(job_id)


def die_between_claim_and_push() -> None:
    """This function will run a relay that is killed when it has claimed jobs and rung for none."""

    def die(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    relay.push = die
    relay.Relay(
        Database(settings.database_url, name="relay"), connect(settings.redis_url)
    ).run_once()


def ring_once(times: int) -> None:
    """This function will set the bells of what is due so many times, as a relay does."""
    database = Database(load_settings().database_url, name="relay")
    for _ in range(times):
        database.run(lambda session: bells.ring_due(session, 500))
