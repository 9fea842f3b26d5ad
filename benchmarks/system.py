"""The system under test: durable servers, the sandbox, and Holdfast's processes.

Each benchmark starts the processes that it needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from base.ids import new_id
from benchmarks.measure import wait
from benchmarks.server import Bench, durable_servers
from db.engine import Database
from db.jobs.staging import Staged
from db.redis.client import connect
from local import ROOT
from local.ports import is_answering
from local.sandbox import sandbox_env, start_sandbox
from local.supervisor import ChildProcess, Supervisor

#: Time limit in seconds for a process to become ready. The machine may be busy with other work.
_READY_SECONDS = 60
#: Redis key of the workers that have requested messages from Dramatiq.
_HEARTBEATS = "dramatiq:__heartbeats__"
#: Tables that are emptied before each round. The order is that in which a job locks them, because a
#: job of the last round may still be running. Another order could deadlock.
_TRACES = ("jobs", "inbox", "job_attempts")
_SUBSCRIBED = """
    INSERT INTO subscriptions (id, organization_id, provider, external_id, status, looked_at,
        status_changed_at, created_at)
    VALUES (%s, %s, 'paypal', %s, 'active', now(), now() - interval '1 day', now())
"""


@dataclass
class System:
    """The servers' addresses, the processes' environment, and their supervisor."""

    bench: Bench
    redis_url: str
    env: dict[str, str]
    sandbox: dict[str, Any]
    supervisor: Supervisor

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request to the sandbox's control plane and return the response.

        Raises: httpx.HTTPStatusError if the sandbox refuses.
        """
        url = f"{self.sandbox['base_url']}/_control{path}"
        answer = httpx.request(method, url, json=body, timeout=30, trust_env=False)
        return answer.raise_for_status().json() if answer.content else None

    @contextmanager
    def ingress(self, port: int, **more: str) -> Iterator[None]:
        """Run one ingress process on a port."""
        url = f"http://127.0.0.1:{port}/readyz"
        environment = {**more, "PORT": str(port)}
        with self.running(f"ingress-{port}", ["cli.main", "ingress"], url, **environment):
            yield

    @contextmanager
    def running(
        self, name: str, module: list[str], ready_url: str = "", **more: str
    ) -> Iterator[None]:
        """Run `python -m MODULE ...` until the block ends."""
        self.supervisor.start(
            ChildProcess(
                name,
                [sys.executable, "-m", *module],
                {**self.env, **more},
                ready=(lambda: is_answering(ready_url)) if ready_url else None,
                ready_seconds=_READY_SECONDS,
                stop_seconds=60,
            )
        )
        try:
            yield
        finally:
            self.supervisor.stop(name)

    @contextmanager
    def workers(self, queue: str, *, processes: int, threads: int) -> Iterator[None]:
        """Run worker processes and wait until each has requested messages."""
        arguments = ["cli.main", "worker", "--queue", queue, "--threads", str(threads)]
        with ExitStack() as stack, self._counted(processes) as wait_for_workers:
            for number in range(processes):
                stack.enter_context(self.running(f"worker-{queue}-{number}", arguments))
            wait_for_workers()
            yield

    @contextmanager
    def empty_workers(self, *, processes: int, threads: int) -> Iterator[None]:
        """Run Dramatiq's own command with the baselines' actors."""
        arguments = ["benchmarks.empty_actors:make_broker", "--skip-logging"]
        arguments += ["-p", str(processes), "-t", str(threads)]
        with (
            self._counted(processes) as wait_for_workers,
            self.running("empty-workers", ["dramatiq", *arguments]),
        ):
            wait_for_workers()
            yield

    @contextmanager
    def _counted(self, count: int) -> Iterator[Callable[[], float]]:
        """Yield a function that waits until `count` more workers have requested messages."""
        with contextlib.closing(connect(self.redis_url)) as redis:
            known = int(redis.zcard(_HEARTBEATS))
            yield lambda: wait(
                lambda: int(redis.zcard(_HEARTBEATS)) >= known + count, "workers that ask"
            )

    @contextmanager
    def baseline_server(self, module: str, port: int) -> Iterator[None]:
        """Run one of the ingress's baselines, a module of this package, on a port."""
        url = f"http://127.0.0.1:{port}/readyz"
        with self.running(module, [f"benchmarks.{module}", str(port)], url):
            yield

    @contextmanager
    def relay(self) -> Iterator[None]:
        """Run one relay process."""
        with self.running("relay", ["cli.main", "relay"]):
            yield

    @contextmanager
    def whole(self, port: int, *, safety_workers: int = 1) -> Iterator[None]:
        """Run one process of each kind, or more for safety, with the ingress on a port."""
        with ExitStack() as stack:
            for queue, threads, processes in (
                ("safety", 8, safety_workers),
                ("billing", 4, 1),
                ("callbacks", 2, 1),
            ):
                stack.enter_context(self.workers(queue, processes=processes, threads=threads))
            stack.enter_context(self.relay())
            stack.enter_context(self.ingress(port))
            yield

    def database(self, after_commit: Callable[[list[Staged]], None] | None = None) -> Database:
        """Open a connection pool as Holdfast's processes do. The caller closes it."""
        return Database(self.bench.app_url, name="bench", pool_size=4, after_commit=after_commit)

    @property
    def silent_redis_url(self) -> str:
        """A Redis database to which no worker listens."""
        return self.redis_url.replace("?db=0", "?db=1")

    def clear(self) -> None:
        """Empty the inbox, the jobs and Redis, so that no work is left to the next round."""
        with self.bench.owner() as owner:
            owner.execute(f"TRUNCATE {', '.join(_TRACES)}")
        with contextlib.closing(connect(self.redis_url)) as redis:
            redis.flushall()
        self.bench.settle()

    def subscribe(self, organization_id: str, external_id: str) -> None:
        """Insert an active subscription that was refreshed just now."""
        self.ask(_SUBSCRIBED, new_id("sub"), organization_id, external_id)

    def ask(self, statement: str, *values: Any) -> Any:
        """Run a statement as the owner and return the first value of the first row."""
        row = self.row(statement, *values)
        return row[0] if row else None

    def row(self, statement: str, *values: Any) -> tuple[Any, ...]:
        """Run a statement as the owner and return the first row, or () without one."""
        with self.bench.owner() as owner:
            cursor = owner.execute(statement, values)
            return (cursor.fetchone() or ()) if cursor.description else ()


@contextmanager
def bench_system() -> Iterator[System]:
    """Run PostgreSQL and Valkey durably, and the sandbox; remove all at the end."""
    with (
        durable_servers(redis=True) as servers,
        Supervisor(servers.folder / "logs") as supervisor,
    ):
        info = start_sandbox(
            supervisor,
            servers.folder,
            {**os.environ, "PYTHONPATH": str(ROOT)},
            ready_seconds=_READY_SECONDS,
        )
        env = {
            **{name: value for name, value in os.environ.items() if name != "PORT"},
            **sandbox_env(info),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": servers.bench.app_url,
            "REDIS_URL": servers.redis_url,
            "PUBLIC_URL": "https://bench.holdfast.example",
        }
        yield System(servers.bench, servers.redis_url, env, info, supervisor)
