"""Helpers of the worker tests: desired states, waits that are over, and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import redis

from base.clock import wait_until
from db.address import driver_url
from db.jobs.staging import Staged
from db.models import Job, JobAttempt
from db.redis.client import NAMESPACE, push
from tests.support.world import World

#: Seconds after which a condition that is still false fails the test.
LIMIT_SECONDS = 20.0


def eventually(condition: Callable[[], bool], limit_seconds: float = LIMIT_SECONDS) -> bool:
    return wait_until(condition, limit_seconds=limit_seconds)


def run(world: World, job_id: str) -> str:
    """Execute a job as a worker does and return its outcome."""
    return world.executor.execute(job_id)


def execute_sql(world: World, statement: str, *values: Any) -> None:
    """Change rows directly, as holdfast_app."""
    with psycopg.connect(driver_url(world.settings.database_url), autocommit=True) as connection:
        connection.execute(statement, values)


def set_leases_over(world: World) -> None:
    """End every lease now, as time would."""
    world.due_now()
    execute_sql(
        world,
        "UPDATE brands SET twilio_lease_until = clock_timestamp()"
        " WHERE twilio_lease_until IS NOT NULL",
    )


def set_unsure_over(world: World) -> None:
    """End the time in which a lost request may still take effect."""
    execute_sql(
        world,
        "UPDATE brands SET twilio_unsure_until = clock_timestamp()"
        " WHERE twilio_unsure_until IS NOT NULL",
    )


def want(world: World, brand_id: str, status: str) -> str:
    """Change the desired state of a subaccount and return the job that follows."""
    execute_sql(
        world,
        "UPDATE brands SET twilio_desired = %s, twilio_generation = twilio_generation + 1"
        " WHERE id = %s",
        status,
        brand_id,
    )
    return world.stage("converge_twilio", brand_id=brand_id)


def asked(world: World, sid: str, method: str) -> int:
    """Count the requests about a subaccount itself that the sandbox received."""
    return len(
        world.sandbox.requests(provider="twilio", path_contains=f"{sid}.json", method=method)
    )


def held(world: World, fault_id: str, count: int = 1) -> bool:
    """Wait until a fault holds `count` requests back."""
    return eventually(lambda: world.sandbox.fault_now(fault_id)["held"] >= count)


def release(world: World, fault_id: str) -> None:
    world.sandbox.control("POST", f"/faults/{fault_id}/release")


def clear_faults(world: World) -> None:
    world.sandbox.control("DELETE", "/faults")


def pay(world: World, organization_id: str, value: str = "10.00", **more: Any) -> str:
    """Have PayPal take a payment that we do not know yet, and return its id."""
    body = {"organization_id": organization_id, "value": value, "deliver": False, **more}
    made: str = world.sandbox.control("POST", "/paypal/captures", body)["id"]
    return made


def stage_refresh(world: World, external_id: str, kind: str = "capture") -> str:
    """Stage another refresh of a PayPal payment and return the job's id.

    The refresh is a job of its own, even if an equal one waits.
    """
    given = {"provider": "paypal", "kind": kind, "external_id": external_id}
    return world.stage_twin("look_at_payment", **given)


def newest_attempt(world: World, job_id: str) -> JobAttempt:
    return max(world.read(JobAttempt, job_id=job_id), key=lambda one: one.attempt)


def jobs_of(world: World, name: str) -> list[Job]:
    return sorted(world.read(Job, name=name), key=lambda job: job.id)


def notify(world: World, client: redis.Redis, *job_ids: str) -> None:
    """Notify of jobs as the product does after a commit."""
    found = [world.job(job_id) for job_id in job_ids]
    push(client, [Staged(job.id, job.name, job.queue) for job in found])


def notified(client: redis.Redis, queue: str = "safety") -> list[str]:
    """List the ids of the jobs whose messages wait in Redis."""
    messages = client.lrange(f"{NAMESPACE}:{queue}", 0, -1)
    return sorted(message.decode().partition(".")[0] for message in messages)


def fetched(client: redis.Redis, queue: str) -> int:
    """Count the messages of a queue that workers fetched and did not acknowledge."""
    return sum(client.scard(key) for key in client.keys(f"{NAMESPACE}:__acks__.*.{queue}"))


@contextmanager
def another_thread() -> Iterator[Callable[..., Future[Any]]]:
    """Yield a function that calls something in another thread."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit
