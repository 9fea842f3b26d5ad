"""/readyz: whether PostgreSQL accepts a write, and which faults the system has."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import contextmanager

import psycopg
import pytest

from base.enums import Queue
from db.address import driver_url
from db.heartbeat import Heartbeat
from db.logins import set_password
from db.migrate import migrate
from db.processes import list_processes
from ingress.health import Ready
from local.databases import derive_app_url
from local.embedded import EmbeddedServers
from tests.conftest import PASSWORD
from tests.support.killable_redis import killable_redis
from tests.support.servers import server_folder
from tests.workers.scenes import eventually, execute_sql


def answer_of(ingress):
    return ingress.client.get("/readyz")


def is_unready(ingress, detail):
    answer = answer_of(ingress)
    return answer.status_code == 503 and detail in answer.json()["detail"]


def faults(ingress):
    answer = answer_of(ingress)
    assert answer.status_code == 200
    return sorted((one["kind"], one["subject"]) for one in answer.json().get("faults", []))


@pytest.fixture
def healthy(world):
    """Store the heartbeats of a worker for every queue and of a relay."""
    for kind, queues in (("worker", [str(queue) for queue in Queue]), ("relay", [])):
        world.database.run(Heartbeat(world.database, kind, queues=queues).beat)


@contextmanager
def read_only(urls):
    """Make new connections to the database read-only, and cut the existing ones."""
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        name = owner.info.dbname
        owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        _cut(owner)
        try:
            yield
        finally:
            owner.execute("SET default_transaction_read_only = off")
            owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            _cut(owner)


def _cut(owner):
    owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_ingress_is_unready_while_the_database_is_read_only(ingress, urls, healthy):
    assert answer_of(ingress).json() == {"status": "ready"}
    with read_only(urls):
        assert eventually(lambda: is_unready(ingress, "read-only"))
    assert eventually(lambda: answer_of(ingress).status_code == 200)


def test_ingress_is_degraded_and_ready_while_workers_are_missing(world, ingress, healthy):
    # Given workers and a relay that are silent, and a job that waits
    assert answer_of(ingress).json() == {"status": "ready"}
    world.stage("enforce_organization", organization_id="org_none")
    execute_sql(world, "UPDATE jobs SET due_at = due_at - interval '1 min'")
    execute_sql(
        world, "UPDATE processes SET seen_at = seen_at - interval '1 min' WHERE kind <> 'ingress'"
    )
    # Then the ingress reports it, and still accepts webhooks
    wanted = [("queue_unserved", "safety"), ("relay_silent", "relay"), ("safety_overdue", "safety")]
    assert eventually(lambda: faults(ingress) == wanted)
    assert answer_of(ingress).json()["status"] == "degraded"
    assert ingress.send(ingress.genuine()).status_code == 200


def test_database_is_asked_once_while_an_answer_is_kept(world):
    beating = Heartbeat(world.database, "ingress")

    def written(kept_seconds):
        """Ask three times, and count the different writes behind the answers."""
        ready = Ready(world.database, beating, kept_seconds=kept_seconds)

        async def ask():
            found = set()
            for _ in range(3):
                assert (await ready.answer(None)).status_code == 200
                found.add(world.database.run(list_processes)[0].seen_at)
            return found

        return len(asyncio.run(ask()))

    assert written(kept_seconds=600) == 1
    assert written(kept_seconds=0) == 3


def test_webhooks_are_taken_in_while_redis_is_stopped(world, start_ingress, settings):
    with killable_redis() as server:
        ingress = start_ingress(settings.model_copy(update={"redis_url": server.url}))
        server.make_stopped()
        for _ in range(50):
            assert ingress.send(ingress.genuine()).status_code == 200
        server.mend()


@contextmanager
def small_disk(size):
    """Mount a small separate file system; skip the test where that is not allowed."""
    with server_folder() as folder:
        disk = folder / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", str(disk)],
            check=False,
            capture_output=True,
        )
        if mounted.returncode:
            pytest.skip("only root may mount a small disk")
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def fill(disk):
    """Fill the disk with one file and return it."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as opened:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    opened.write(b"x" * size)
            except OSError:
                continue
    return file


def test_ingress_is_unready_while_the_disk_is_full(start_ingress, settings):
    with (
        small_disk("200m") as disk,
        EmbeddedServers(disk / "state", fast=True, redis=False) as servers,
    ):
        migrate(servers.owner_url)
        set_password(servers.owner_url, "holdfast_app", PASSWORD)
        url = derive_app_url(servers.owner_url, PASSWORD)
        ingress = start_ingress(settings.model_copy(update={"database_url": url}))
        assert answer_of(ingress).status_code == 200
        # When the disk is full, Then the ingress is unready until there is room again
        file = fill(disk)
        assert eventually(lambda: is_unready(ingress, "disk is full"))
        file.unlink()
        assert eventually(lambda: answer_of(ingress).status_code == 200)
