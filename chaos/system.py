"""The system under test: servers, proxy, sandbox, ingresses, workers and relays.

Each of them is a process that may be killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy.orm import Session

from base.clock import wait_until
from chaos.child import Child
from chaos.clock import DatabaseClock
from chaos.control import control_client
from chaos.facts import Customer
from chaos.servers import KillableServer
from db.engine import Database, clock
from local import ROOT
from local.databases import prepare
from local.ports import free_ports, is_answering
from local.sandbox import sandbox_env, start_sandbox
from local.supervisor import ChildProcess, Supervisor
from local.worker import worker_arguments
from workers.provider_waits import ProviderWaits

T = TypeVar("T")

INGRESSES = ("ingress-1", "ingress-2")
#: Worker processes with their queues and threads. Safety and billing have two processes each.
WORKERS = {
    "safety-1": (("safety",), 4),
    "safety-2": (("safety",), 4),
    "billing-1": (("billing",), 4),
    "billing-2": (("billing",), 4),
    "rest-1": (("maintenance", "callbacks", "messaging"), 2),
}
RELAYS = ("relay-1", "relay-2")
#: Waits of the workers for providers, as short as the faults allow, so that a run is soon at rest.
_PROVIDER_WAITS = ProviderWaits(
    unsure_seconds=12, recheck_seconds=1, report_seconds=4, silent_seconds=12
)
#: Seconds within which all processes must be ready, also on a busy machine.
_READY_SECONDS = 180.0


@dataclass(frozen=True)
class Plan:
    """How the processes of this run differ from the usual ones."""

    relays: bool = True
    #: The module that runs as a worker.
    worker_module: str = "local.worker"


@dataclass
class System:
    """All processes of a run. The driver's own connections bypass the proxy."""

    plan: Plan
    #: Whether logs and data are kept for inspection.
    keep: bool = False
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="holdfast-chaos-")))
    #: Customers without traffic of their own. The drills block and restore them.
    drilled: list[Customer] = field(default_factory=list)

    def __enter__(self) -> System:
        # For root, the servers run as another user, which must be able to enter the folder.
        self.folder.chmod(0o711)
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.journal = self.folder / "journal"
        self.clock = DatabaseClock(self.folder / "clock")
        self.postgres = KillableServer(
            self.folder / "postgres", postgres=True, environment=self.clock.environment()
        )
        self.valkey = KillableServer(self.folder / "valkey", postgres=False)
        self.supervisor = Supervisor(self.logs)
        self.children: list[Child] = []
        self._database: Database | None = None
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
        """Stop all processes and servers, and remove the folder unless it is kept."""
        for name in self.supervisor.names():
            # A frozen process could not react to the request to stop.
            self.supervisor.kill(name, signal.SIGCONT)
            # The count is over, so no process but the sandbox needs to finish its work.
            if name != "sandbox":
                self.supervisor.kill(name, signal.SIGKILL)
        for child in reversed(self.children):
            child.stop()
        self.supervisor.stop_all()
        if self._database is not None:
            self._database.close()
        self.valkey.stop()
        self.postgres.stop()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- what the driver uses ---------------------------------------------------------------------

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request to the sandbox's control API."""
        answer = self._http.request(method, f"/_control{path}", json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def do(self, fn: Callable[[Session, datetime], T]) -> T:
        """Run `fn(session, now)` in a transaction that bypasses the proxy."""
        return self.database.run(lambda session: fn(session, clock(session)))

    @property
    def database(self) -> Database:
        """The driver's own connections.

        No fault affects them except an end of the server itself.
        """
        if self._database is None:
            raise RuntimeError("the system is not started")
        return self._database

    def start_traffic(self, order: dict[str, Any]) -> Child:
        """Start the traffic process, send it its order, and return it."""
        traffic = Child("chaos.traffic", {}, self.logs / "traffic.log")
        self.children.append(traffic)
        traffic.ask(
            **order,
            database_url=self.env["DATABASE_URL"],
            redis_url=self.env["REDIS_URL"],
            control_url=f"{self.info['base_url']}/_control",
        )
        return traffic

    def is_ready(self) -> bool:
        """Return whether all processes run and both ingresses can store events."""
        return not self.away()

    def away(self) -> list[str]:
        """List the processes that are down and the ingresses that cannot store events."""
        down = [name for name in self.supervisor.names() if not self.supervisor.alive(name)]
        not_ready = [
            name
            for name, port in zip(INGRESSES, self.ports, strict=True)
            if name not in down and not is_answering(f"http://127.0.0.1:{port}/readyz")
        ]
        return down + not_ready

    # -- the start --------------------------------------------------------------------------------

    def _start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        urls = prepare("", self.postgres.url, self.folder)
        self.owner_url = urls.owner_url or ""
        self._database = Database(urls.app_url, name="chaos", pool_size=2)
        self.proxy = Child("chaos.proxy", {}, self.logs / "proxy.log")
        self.children.append(self.proxy)
        self.ports = free_ports(len(INGRESSES))
        postgres_port = self._listen("postgres", [str(self.postgres.socket)])
        valkey_port = self._listen("valkey", [str(self.valkey.socket)])
        ingress_port = self._listen("ingress", [f"127.0.0.1:{port}" for port in self.ports])
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": _url_through_proxy(urls.app_url, postgres_port),
            "REDIS_URL": f"redis://127.0.0.1:{valkey_port}/0",
            "PUBLIC_URL": f"http://127.0.0.1:{ingress_port}",
            "HOST": "127.0.0.1",
            "LOG_LEVEL": "INFO",
        }
        # No serving process may have the database owner's address.
        self.env.pop("DATABASE_OWNER_URL", None)
        self.info = start_sandbox(
            self.supervisor,
            self.folder,
            dict(self.env),
            target=self.env["PUBLIC_URL"],
            ready_seconds=_READY_SECONDS,
        )
        self._http = control_client(self.info["base_url"], timeout_seconds=30)
        self.env.update(sandbox_env(self.info))

    def _listen(self, route: str, targets: list[str]) -> int:
        port: int = self.proxy.ask(route=route, do="listen", targets=targets)["port"]
        return port

    def start_processes(self) -> None:
        """Start ingresses, workers and relays, and wait until all of them work."""
        for name, port in zip(INGRESSES, self.ports, strict=True):
            self._run(name, ["chaos.ingress"], PORT=str(port))
        for name, (queues, threads) in WORKERS.items():
            self._run(
                name, [self.plan.worker_module, *worker_arguments(queues, threads, _PROVIDER_WAITS)]
            )
        relays = RELAYS if self.plan.relays else ()
        for name in relays:
            self._run(name, ["cli.main", "relay"])

        def have_all_started() -> bool:
            logs = {name: (self.logs / f"{name}.log").read_text() for name in (*WORKERS, *relays)}
            return all("_started" in text for text in logs.values()) and self.is_ready()

        if not wait_until(have_all_started, limit_seconds=_READY_SECONDS, every_seconds=0.2):
            raise RuntimeError(f"not all processes were up in {_READY_SECONDS:g} s")

    def _run(self, name: str, arguments: list[str], **more: str) -> None:
        argv = [sys.executable, "-m", *arguments]
        self.supervisor.start(ChildProcess(name, argv, {**self.env, **more}))


def _url_through_proxy(url: str, port: int) -> str:
    """Return the URL with its login, but with the address of the proxy's port."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}", query=""))
