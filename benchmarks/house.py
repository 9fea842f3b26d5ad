"""The whole house under measurement: durable servers, the sandbox, and our processes on request."""

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
from local.ports import answers
from local.sandbox import sandbox_env, start_sandbox
from local.supervisor import Process, Supervisor

#: Seconds a process has to be ready in, on a machine that is busy with other things.
_READY_SECONDS = 60
#: Dramatiq's list of the workers that have asked it for work.
_HEARTBEATS = "dramatiq:__heartbeats__"
#: What a round leaves behind, emptied before the next; in the order in which a job locks them,
#: since one may still be at work.
_TRACES = ("jobs", "inbox", "job_attempts")
_SUBSCRIBED = """
    INSERT INTO subscriptions (id, organization_id, provider, external_id, status, looked_at,
        status_changed_at, created_at)
    VALUES (%s, %s, 'paypal', %s, 'active', now(), now() - interval '1 day', now())
"""


@dataclass
class House:
    """The servers' addresses, the environment of our processes, and the hand that runs them."""

    bench: Bench
    redis_url: str
    env: dict[str, str]
    sandbox: dict[str, Any]
    supervisor: Supervisor

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """This function will make the sandbox do or tell something.

        Raises: httpx.HTTPStatusError when it will not.
        """
        url = f"{self.sandbox['base_url']}/_control{path}"
        answer = httpx.request(method, url, json=body, timeout=30, trust_env=False)
        return answer.raise_for_status().json() if answer.content else None

    @contextmanager
    def ingress(self, port: int, **more: str) -> Iterator[None]:
        """This function will run one ingress process on a port."""
        url = f"http://127.0.0.1:{port}/readyz"
        environment = {**more, "PORT": str(port)}
        with self.running(f"ingress-{port}", ["cli.main", "ingress"], url, **environment):
            yield

    @contextmanager
    def running(
        self, name: str, module: list[str], ready_url: str = "", **more: str
    ) -> Iterator[None]:
        """This function will run `python -m MODULE …` until the block ends."""
        self.supervisor.start(
            Process(
                name,
                [sys.executable, "-m", *module],
                {**self.env, **more},
                ready=(lambda: answers(ready_url)) if ready_url else None,
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
        """This function will run worker processes of ours and wait until each asks for work."""
        arguments = ["cli.main", "worker", "--queue", queue, "--threads", str(threads)]
        with ExitStack() as stack, self._heard(processes) as heard:
            for number in range(processes):
                stack.enter_context(self.running(f"worker-{queue}-{number}", arguments))
            heard()
            yield

    @contextmanager
    def empty_workers(self, *, processes: int, threads: int) -> Iterator[None]:
        """This function will run Dramatiq's own command on the baselines' actors."""
        arguments = ["benchmarks.empty_actors:make_broker", "--skip-logging"]
        arguments += ["-p", str(processes), "-t", str(threads)]
        with (
            self._heard(processes) as heard,
            self.running("empty-workers", ["dramatiq", *arguments]),
        ):
            heard()
            yield

    @contextmanager
    def _heard(self, count: int) -> Iterator[Callable[[], float]]:
        """Gives what waits until so many more workers have asked Redis for work."""
        with contextlib.closing(connect(self.redis_url)) as redis:
            known = int(redis.zcard(_HEARTBEATS))
            yield lambda: wait(
                lambda: int(redis.zcard(_HEARTBEATS)) >= known + count, "workers that ask"
            )

    @contextmanager
    def empty_server(self, port: int) -> Iterator[None]:
        """This function will run the server that the ingress is compared with, on a port."""
        url = f"http://127.0.0.1:{port}/readyz"
        with self.running("empty", ["benchmarks.empty_server", str(port)], url):
            yield

    @contextmanager
    def relay(self) -> Iterator[None]:
        """This function will run one relay process."""
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
        """This function will open a pool as our processes do; the caller closes it."""
        return Database(self.bench.app_url, name="bench", pool_size=4, after_commit=after_commit)

    @property
    def silent_redis_url(self) -> str:
        """Where a process rings whose bells nobody shall hear."""
        return self.redis_url.replace("?db=0", "?db=1")

    def clear(self) -> None:
        """This function will empty inbox, jobs and Redis, and leave no work to the next round."""
        with self.bench.owner() as owner:
            owner.execute(f"TRUNCATE {', '.join(_TRACES)}")
        with contextlib.closing(connect(self.redis_url)) as redis:
            redis.flushall()
        self.bench.settle()

    def subscribe(self, organization_id: str, external_id: str) -> None:
        """This function will note an active subscription that was looked at just now."""
        self.ask(_SUBSCRIBED, new_id("sub"), organization_id, external_id)

    def ask(self, statement: str, *values: Any) -> Any:
        """This function will run a statement as the owner and give the first row's first value."""
        row = self.row(statement, *values)
        return row[0] if row else None

    def row(self, statement: str, *values: Any) -> tuple[Any, ...]:
        """This function will run a statement as the owner and give the first row, if any."""
        with self.bench.owner() as owner:
            cursor = owner.execute(statement, values)
            return (cursor.fetchone() or ()) if cursor.description else ()


@contextmanager
def bench_house() -> Iterator[House]:
    """This function will run PostgreSQL and Valkey durably, and the sandbox; then remove it all."""
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
        yield House(servers.bench, servers.redis_url, env, info, supervisor)
