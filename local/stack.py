"""All of Holdfast on one machine: servers, sandbox, ingress, workers and relay.

`holdfast up` keeps these processes running, and the demo uses them. Except for the sandbox,
production runs the same processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from base.clock import wait_until
from base.log import LogFormat
from base.settings import Settings
from db.engine import Database
from db.heartbeat import process_name
from db.processes import list_processes
from db.redis.client import connect
from local import ROOT
from local.databases import DatabaseUrls, prepare, recreate_database
from local.embedded import EmbeddedServers, RestartCallbacks, ServerUrls
from local.log_lines import LineFormat, aligned, coloured, json_line
from local.ports import faults_at, is_answering, port_to_serve
from local.sandbox import sandbox_env, start_sandbox
from local.supervisor import ChildProcess, OnExit, OnRestart, Supervisor
from local.worker import worker_arguments
from workers.provider_waits import ProviderWaits

#: Seconds that a process has to become ready on a busy machine.
_READY_SECONDS_MAX = 60
#: Longest wait for all heartbeats and a /readyz without faults, in seconds.
_SERVING_SECONDS_MAX = 120
#: Queues and number of threads of each worker process.
WORKERS = {
    # There are two safety workers. If one is stopped or stuck, the other still stops organizations
    # from spending.
    "worker-safety-1": (("safety",), 4),
    "worker-safety-2": (("safety",), 4),
    "worker-billing": (("billing",), 4),
    "worker-rest": (("maintenance", "callbacks", "messaging"), 2),
}
SAFETY_WORKERS = tuple(name for name, (queues, _) in WORKERS.items() if "safety" in queues)
#: Seconds that a worker has to finish its jobs: the longest actor and a margin.
_WORKER_STOP_SECONDS = 40


def state_folder(settings: Settings) -> Path:
    """Return the folder for embedded data. A relative path is below the project."""
    return ROOT / settings.holdfast_state


class Stack:
    """Starts all processes in order, knows their addresses, stops them in reverse.

    If `waits` is given, the workers run `local.worker`, otherwise the production command.
    """

    def __init__(
        self,
        settings: Settings,
        state: Path,
        *,
        sandbox: bool,
        fresh: bool = False,
        logs: Path | None = None,
        on_exit: OnExit | None = None,
        on_restart: OnRestart | None = None,
        on_step: Callable[[str], None] = lambda _: None,
        log_format: LogFormat | None = None,
        waits: ProviderWaits | None = None,
    ) -> None:
        self.state = state
        self.supervisor = Supervisor(
            logs, on_exit, on_restart, _line_format(log_format or settings.log_format)
        )
        self._callbacks = RestartCallbacks(on_exit, on_restart)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LOG_FORMAT": log_format or settings.log_format,
        }
        self.urls = DatabaseUrls(None, settings.database_url)
        self.info: dict[str, Any] = {}
        self._settings = settings
        self._sandbox = sandbox
        self._fresh = fresh
        self._servers: EmbeddedServers | None = None
        self._on_step = on_step
        self._waits = waits

    @property
    def ingress_url(self) -> str:
        """Address at which the ingress answers."""
        return f"http://{self._settings.host}:{self.env['PORT']}"

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the processes, then the servers that they used."""
        self.supervisor.stop_all()
        if self._servers is not None:
            self._servers.stop()

    def wait_until_serving(self) -> list[dict[str, Any]]:
        """Wait until every process has reported and /readyz shows no fault.

        A process reports by its first heartbeat. Before that, /readyz would be degraded, because no
        relay is live. Return the faults that remain after the time limit. A process that has not
        reported is a fault too.
        """
        faults: list[dict[str, Any]] = []
        with contextlib.closing(Database(self.urls.app_url, name="up", pool_size=1)) as database:

            def is_serving() -> bool:
                live = {process.name for process in database.run(list_processes) if process.live}
                faults[:] = [
                    {"kind": "process_silent", "message": f"{name} has not reported yet"}
                    for name, registered_name in self._registered_names().items()
                    if registered_name not in live
                ] or faults_at(f"{self.ingress_url}/readyz")
                return not faults

            wait_until(is_serving, limit_seconds=_SERVING_SECONDS_MAX, every_seconds=0.2)
        return faults

    def _registered_names(self) -> dict[str, str]:
        """Return, for each process with a heartbeat, its name in the table `processes`."""
        return {
            name: process_name(self.supervisor.pid(name))
            for name in self.supervisor.names()
            if name != "sandbox"
        }

    def _start(self) -> None:
        settings = self._settings
        # The port is checked first. Another process that answers on it would be taken for our
        # ingress.
        port = port_to_serve(settings.host, settings.port)
        self.env["PORT"] = str(port)
        self._start_servers()
        if self._sandbox:
            self._start_sandbox()
        self._on_step("ingress")
        self.supervisor.start(
            self._child_process(
                "ingress",
                ["cli.main", "ingress"],
                ready=lambda: is_answering(f"{self.ingress_url}/readyz"),
            )
        )
        for name in WORKERS:
            self.start_worker(name)
        self.start_relay()

    def start_worker(self, name: str) -> None:
        """Start one of WORKERS."""
        queues, threads = WORKERS[name]
        self._on_step(name)
        queue_options = [part for queue in queues for part in ("--queue", queue)]
        arguments = ["cli.main", "worker", *queue_options, "--threads", str(threads)]
        if self._waits is not None:
            arguments = ["local.worker", *worker_arguments(queues, threads, self._waits)]
        self.supervisor.start(
            self._child_process(name, arguments, stop_seconds=_WORKER_STOP_SECONDS)
        )

    def start_relay(self) -> None:
        """Start the relay process."""
        self._on_step("relay")
        self.supervisor.start(self._child_process("relay", ["cli.main", "relay"]))

    def _start_servers(self) -> None:
        settings = self._settings
        self._on_step("PostgreSQL and Redis")
        need_postgres = not settings.database_url and not settings.database_owner_url
        need_redis = not settings.redis_url
        owner_url = settings.database_owner_url
        self.env["REDIS_URL"] = settings.redis_url
        if need_postgres or need_redis:
            self._servers = EmbeddedServers(
                self.state, postgres=need_postgres, redis=need_redis, keep=self._callbacks
            )
            server_urls = self._servers.start()
            owner_url = server_urls.owner_url or owner_url
            self.env["REDIS_URL"] = server_urls.redis_url or settings.redis_url
            if self._fresh:
                _empty_servers(server_urls)
        self.urls = prepare(settings.database_url, owner_url, self.state)
        self.env["DATABASE_URL"] = self.urls.app_url
        # No serving process ever gets the owner's address.
        self.env.pop("DATABASE_OWNER_URL", None)

    def _start_sandbox(self) -> None:
        self._on_step("sandbox")
        self.info = start_sandbox(
            self.supervisor,
            self.state,
            self.env,
            target=self.ingress_url,
            # Empty servers know none of the resources that an earlier sandbox had.
            keep=not self._fresh,
            ready_seconds=_READY_SECONDS_MAX,
        )
        self.env.update(sandbox_env(self.info))
        self.env.setdefault("PUBLIC_URL", self.ingress_url)

    def _child_process(
        self,
        name: str,
        arguments: list[str],
        *,
        ready: Callable[[], bool] | None = None,
        stop_seconds: float = 15,
    ) -> ChildProcess:
        return ChildProcess(
            name,
            [sys.executable, "-m", *arguments],
            dict(self.env),
            ready=ready,
            stop_seconds=stop_seconds,
            ready_seconds=_READY_SECONDS_MAX,
        )


def _line_format(log_format: LogFormat) -> LineFormat:
    if log_format == "json":
        return json_line
    return aligned if os.environ.get("NO_COLOR") else coloured


def _empty_servers(server_urls: ServerUrls) -> None:
    """Delete the data that an earlier run left in the embedded servers.

    A server that the settings name by its address is never emptied.
    """
    if server_urls.owner_url:
        recreate_database(server_urls.owner_url)
    if server_urls.redis_url:
        with contextlib.closing(connect(server_urls.redis_url)) as client:
            client.flushall()
