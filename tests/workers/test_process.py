"""The worker and relay processes: how they start and how they stop."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from db.address import driver_url
from local import ROOT
from tests.support.world import make_organization
from tests.workers.scenes import (
    eventually,
    fetched,
    held,
    newest_attempt,
    notified,
    notify,
    pay,
    release,
    stage_refresh,
)


def test_stopping_worker_finishes_its_jobs_and_returns_the_rest(world, processes, redis_client):
    # Given a worker of one thread in the middle of a job, and more jobs in its queue
    organization_id = make_organization(world.database)
    capture_id = pay(world, organization_id)
    fault = world.sandbox.fault("paypal", "hold", match={"path_contains": capture_id}, times=1)
    jobs = [stage_refresh(world, capture_id) for _ in range(3)]
    worker = processes.worker("billing", threads=1)
    notify(world, redis_client, *jobs)
    assert held(world, fault)

    # When it is asked to stop, and then the provider answers
    worker.process.terminate()
    release(world, fault)

    # Then it stops cleanly, the running job is done, and the others are back in the queue
    assert worker.ended() == 0, worker.output()
    assert "worker_stopped" in worker.output()
    outcomes = [world.job(job_id).outcome for job_id in jobs]
    assert outcomes[0] == "done"
    left = [job_id for job_id in jobs if world.job(job_id).done_at is None]
    assert notified(redis_client, "billing") == sorted(left)
    assert fetched(redis_client, "billing") == 0

    # And another worker does them
    processes.worker("billing")
    assert eventually(lambda: all(world.job(job_id).done_at for job_id in jobs))
    assert world.wallet(organization_id).balance_micros == 10_000_000
    # And jobs that went well left no warning in the log
    assert "warning" not in worker.output()


def test_worker_fetches_no_more_than_it_can_run(world, processes, redis_client, urls):
    # Given ten jobs, and a worker of two threads that is stuck in the first ones
    ids = [make_organization(world.database) for _ in range(10)]
    jobs = [world.stage("enforce_organization", organization_id=one) for one in ids]
    with psycopg.connect(driver_url(urls.owner_url)) as holder:
        holder.execute("SELECT 1 FROM organizations FOR UPDATE")
        worker = processes.worker("safety", threads=2)
        notify(world, redis_client, *jobs)
        assert eventually(lambda: fetched(redis_client, "safety") == 2)

        # When another worker is free, Then it can fetch the rest
        assert len(notified(redis_client, "safety")) >= 6
        worker.kill()


def test_worker_takes_no_jobs_of_other_queues(world, processes, redis_client):
    # Given a worker of the billing queue, and jobs of the safety and the billing queue
    organization_id = make_organization(world.database)
    urgent = world.stage("enforce_organization", organization_id=organization_id)
    money = stage_refresh(world, "7XX")
    processes.worker("billing")
    notify(world, redis_client, urgent, money)

    # When its own job has run, Then the other still waits
    assert eventually(lambda: world.job(money).failures == 1)
    assert notified(redis_client, "safety") == [urgent]
    assert world.job(urgent).attempt == 0


def test_name_of_the_worker_is_kept_with_each_attempt(world, processes, redis_client):
    job_id = world.stage("enforce_organization", organization_id="org_none")
    worker = processes.worker("safety")
    notify(world, redis_client, job_id)

    assert eventually(lambda: world.job(job_id).outcome == "refused")
    assert newest_attempt(world, job_id).worker.endswith(f":{worker.pid}")


def test_relay_stops_in_order(processes):
    relay = processes.relay()

    assert relay.stop() == 0
    assert "relay_stopped" in relay.output()


@pytest.mark.parametrize("command", [("worker", "--queue", "safety"), ("relay",), ("ingress",)])
def test_no_process_serves_as_superuser(processes, urls, command):
    # When a process is started with the owner's database URL
    refused = processes.command(*command, DATABASE_URL=urls.owner_url)

    # Then it reports the reason in one line and ends
    assert refused.ended() == 2
    (line,) = refused.output().splitlines()
    assert "superuser or owner" in line
    assert "Traceback" not in refused.output()


def test_missing_settings_are_named_in_one_line_and_no_secret_is_shown(processes):
    # When a worker is started without a required setting
    missing = processes.command("worker", "--queue", "safety", REDIS_URL="", TWILIO_AUTH_TOKEN="")
    assert missing.ended() == 2
    assert missing.output() == "holdfast: missing setting: REDIS_URL\n"

    providers = processes.command(
        "worker", "--queue", "safety", TWILIO_AUTH_TOKEN="", PAYPAL_CLIENT_SECRET=""
    )

    # Then every missing setting is named
    assert providers.ended() == 2
    line = "holdfast: missing setting: PAYPAL_CLIENT_SECRET, TWILIO_AUTH_TOKEN\n"
    assert providers.output() == line


def test_unreachable_database_is_named_in_one_line(processes):
    away = "postgresql://holdfast_app:secret-word@/nowhere?host=/nowhere"
    refused = processes.command("worker", "--queue", "safety", DATABASE_URL=away)

    assert refused.ended() == 2
    (line,) = refused.output().splitlines()
    assert line.startswith("holdfast: DATABASE_URL: cannot connect")
    assert "secret-word" not in line


def test_command_line_starts_a_worker_as_production_does(processes):
    # When the module is run as in production, and asked to stop once it works
    worker = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "worker", "--queue", "safety", "--threads", "1"],
        cwd=ROOT,
        env=processes.environment,
        stderr=subprocess.PIPE,
    )
    first = worker.stderr.readline()
    worker.terminate()
    _, rest = worker.communicate(timeout=30)

    # Then it started and stopped cleanly
    assert b"worker_started" in first
    assert worker.returncode == 0, rest
