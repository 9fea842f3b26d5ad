"""The whole of Holdfast on one machine: servers, sandbox, ingress, workers and relay, as processes.

What `up` keeps running and what the demo drives; each process is one that production runs too.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from base.settings import Settings, SettingsError
from cli import ROOT
from cli.databases import DatabaseUrls, prepare, recreate
from cli.embedded import EmbeddedServers, ServerUrls
from cli.supervisor import OnExit, Process, Supervisor
from db.ring import connect

#: Seconds a process has to be ready in, on a machine that is busy with other things.
_READY_SECONDS = 60
#: Queues of each worker process, and its threads.
WORKERS = {
    "worker-safety": (("safety",), 8),
    "worker-billing": (("billing",), 4),
    "worker-rest": (("maintenance", "callbacks", "messaging"), 2),
}
#: Seconds a worker may take to finish what it runs: the longest actor, and a margin.
_WORKER_STOP_SECONDS = 40


def state_folder(settings: Settings) -> Path:
    """This function will give the folder for embedded data, from the project's root if relative."""
    return ROOT / settings.holdfast_state


class Stack:
    """Starts everything in order, knows the addresses, and stops it all in the reverse order."""

    def __init__(
        self,
        settings: Settings,
        state: Path,
        *,
        sandbox: bool,
        fresh: bool = False,
        logs: Path | None = None,
        on_exit: OnExit | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = state
        self.supervisor = Supervisor(logs, on_exit)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
        }
        self.urls = DatabaseUrls(None, settings.database_url)
        self.info: dict[str, Any] = {}
        self._settings = settings
        self._sandbox = sandbox
        self._fresh = fresh
        self._servers: EmbeddedServers | None = None
        self._told = told

    @property
    def ingress_url(self) -> str:
        """Where the ingress answers."""
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
        """This function will stop the processes, then the servers they used."""
        self.supervisor.stop_all()
        if self._servers is not None:
            self._servers.stop()

    def _start(self) -> None:
        settings = self._settings
        # Asked now, because an ingress that cannot listen is taken for the one that does.
        port = _free_port(settings.host, settings.port)
        self.env["PORT"] = str(port)
        self._start_servers()
        if self._sandbox:
            self._start_sandbox()
        self._told("ingress")
        self.supervisor.start(
            self._process(
                "ingress", ["ingress"], ready=lambda: answers(f"{self.ingress_url}/readyz")
            )
        )
        for name in WORKERS:
            self.start_worker(name)
        self.start_relay()

    def start_worker(self, name: str) -> None:
        """This function will start one of WORKERS."""
        queues, threads = WORKERS[name]
        self._told(name)
        arguments = [part for queue in queues for part in ("--queue", queue)]
        self.supervisor.start(
            self._process(
                name,
                ["worker", *arguments, "--threads", str(threads)],
                stop_seconds=_WORKER_STOP_SECONDS,
            )
        )

    def start_relay(self) -> None:
        """This function will start the relay."""
        self._told("relay")
        self.supervisor.start(self._process("relay", ["relay"]))

    def _start_servers(self) -> None:
        settings = self._settings
        self._told("PostgreSQL and Redis")
        need_postgres = not settings.database_url and not settings.database_owner_url
        need_redis = not settings.redis_url
        owner_url = settings.database_owner_url
        self.env["REDIS_URL"] = settings.redis_url
        if need_postgres or need_redis:
            self._servers = EmbeddedServers(self.state, postgres=need_postgres, redis=need_redis)
            served = self._servers.start()
            owner_url = served.owner_url or owner_url
            self.env["REDIS_URL"] = served.redis_url or settings.redis_url
            if self._fresh:
                _empty(served)
        self.urls = prepare(settings.database_url, owner_url, self.state)
        self.env["DATABASE_URL"] = self.urls.app_url
        # Nothing that serves ever sees the owner's address.
        self.env.pop("DATABASE_OWNER_URL", None)

    def _start_sandbox(self) -> None:
        self._told("sandbox")
        folder = self.state / "sandbox"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sandbox.json"
        path.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "sandbox", "--port", "0", "--state", str(folder)]
        self.supervisor.start(
            Process(
                "sandbox",
                [*argv, "--target", self.ingress_url],
                self.env,
                ready=path.exists,
                ready_seconds=_READY_SECONDS,
            )
        )
        self.info = json.loads(path.read_text())
        self.env.update(sandbox_env(self.info))
        self.env.setdefault("PUBLIC_URL", self.ingress_url)

    def _process(
        self,
        name: str,
        arguments: list[str],
        *,
        ready: Callable[[], bool] | None = None,
        stop_seconds: float = 15,
    ) -> Process:
        return Process(
            name,
            [sys.executable, "-m", "cli.main", *arguments],
            dict(self.env),
            ready=ready,
            stop_seconds=stop_seconds,
            ready_seconds=_READY_SECONDS,
        )


def sandbox_env(info: dict[str, Any]) -> dict[str, str]:
    """This function will name the sandbox's addresses and keys as the settings that use them."""
    paypal, twilio, vapi = info["paypal"], info["twilio"], info["vapi"]
    return {
        "PAYPAL_BASE_URL": paypal["base_url"],
        "PAYPAL_CLIENT_ID": paypal["client_id"],
        "PAYPAL_CLIENT_SECRET": paypal["client_secret"],
        "PAYPAL_WEBHOOK_ID": paypal["webhook_id"],
        "PAYPAL_CA_FILE": paypal["ca_file"],
        "PAYPAL_CERTIFICATE_NAME": paypal["certificate_name"],
        "TWILIO_BASE_URL": twilio["base_url"],
        "TWILIO_ACCOUNT_SID": twilio["account_sid"],
        "TWILIO_AUTH_TOKEN": twilio["auth_token"],
        "VAPI_BASE_URL": vapi["base_url"],
        "VAPI_API_KEY": vapi["api_key"],
        "VAPI_SERVER_SECRET": vapi["server_secret"],
    }


def sandbox_info(state: Path) -> dict[str, Any]:
    """This function will read where the running sandbox is and what its keys are.

    Raises: SettingsError when none has been started with this state folder, or it is gone.
    """
    path = state / "sandbox" / "sandbox.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError("no sandbox runs here; start one: holdfast up --sandbox") from None
    if not answers(f"{info['base_url']}/_control/info"):
        raise SettingsError("the sandbox does not answer; start one: holdfast up --sandbox")
    return info


def answers(url: str) -> bool:
    """This function will tell whether an address answers 200 now."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _empty(served: ServerUrls) -> None:
    """Embedded servers' data of an earlier run are dropped; a given server is never emptied."""
    if served.owner_url:
        recreate(served.owner_url)
    if served.redis_url:
        with contextlib.closing(connect(served.redis_url)) as client:
            client.flushall()


def _free_port(host: str, port: int) -> int:
    """The port itself if it is free, or any where it is 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"HOST and PORT: cannot listen on {host}:{port}: {error.strerror}"
            ) from None
        free: int = probe.getsockname()[1]
        return free
