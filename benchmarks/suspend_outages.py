"""Time from a closing webhook's response to the freeze, during an outage.

The webhook is sent right after Redis is stopped (SIGSTOP), killed or full, or one of two safety
workers is stopped. Meanwhile 100 other webhooks arrive each second. The system recovers completely
before the next measurement.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from benchmarks.closing import IS_FROZEN, Customer, close, make_customers, seconds_until
from benchmarks.measure import Timing, timing, wait
from benchmarks.others import others
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner
from db.redis.client import connect
from local.embedded import EmbeddedServers
from local.ports import free_ports

#: Seconds that workers need to return to Redis after it recovers, with a margin.
_BACK_SECONDS = 5.0
_SAFETY_WORKERS = 2
_FREEZES = """
    SELECT count(*) FROM wallet_freezes WHERE organization_id = %s AND lifted_at IS NULL
"""


@dataclass
class _Redis:
    """The Redis of the measured processes, with its outages and recoveries."""

    servers: EmbeddedServers
    url: str = ""

    def start(self) -> None:
        self.url = self.servers.start().redis_url

    @contextmanager
    def stopped(self) -> Iterator[None]:
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        os.kill(self._pid(), signal.SIGKILL)
        try:
            yield
        finally:
            self.servers.stop()
            self.start()

    @contextmanager
    def full(self) -> Iterator[None]:
        self._set_maxmemory("1")
        try:
            yield
        finally:
            self._set_maxmemory("0")

    def _pid(self) -> int:
        with contextlib.closing(connect(self.url)) as client:
            return int(client.info("server")["process_id"])

    def _set_maxmemory(self, size: str) -> None:
        with contextlib.closing(connect(self.url)) as client:
            client.config_set("maxmemory", size)


def suspend_outages(system: System, times: int) -> list[Timing]:
    """Measure each outage `times` times.

    Raises: SystemExit unless each wallet is frozen exactly once.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        # The account that runs the server must be able to enter the folder.
        Path(folder).chmod(0o711)
        redis = _Redis(EmbeddedServers(Path(folder) / "state", postgres=False))
        redis.start()
        try:
            own = replace(system, redis_url=redis.url, env={**system.env, "REDIS_URL": redis.url})
            own.clear()
            return _measure(own, redis, times)
        finally:
            redis.servers.stop()


def _measure(system: System, redis: _Redis, times: int) -> list[Timing]:
    (port,) = free_ports(1)
    figures = []
    with system.whole(port, safety_workers=_SAFETY_WORKERS):
        outages: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
            "redis_stopped": redis.stopped,
            "redis_killed": redis.killed,
            "redis_full": redis.full,
            "worker_stopped": lambda: _worker_stopped(system),
        }
        signer = PayPalSigner(system.sandbox["paypal"])
        customers = iter(make_customers(system, times * len(outages)))
        with others(system, port, signer), system.bench.owner() as owner:
            for name, outage in outages.items():
                seconds = []
                for _ in range(times):
                    customer = next(customers)
                    time.sleep(_BACK_SECONDS)
                    with outage():
                        answered_at = close(system, port, signer, customer)
                        seconds.append(seconds_until(owner, IS_FROZEN, customer, answered_at))
                    _check_once(owner, customer)
                figures.append(timing(f"suspend_{name}_frozen", "goal: at most 2,000", [seconds]))
        _check_handled(system)
    return figures


@contextmanager
def _worker_stopped(system: System) -> Iterator[None]:
    name = "worker-safety-0"
    system.supervisor.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        system.supervisor.kill(name, signal.SIGCONT)


def _check_once(owner: psycopg.Connection, customer: Customer) -> None:
    row = owner.execute(_FREEZES, (customer.organization_id,)).fetchone()
    if row != (1,):
        raise SystemExit(f"wrong: {customer} is frozen {row} times")


def _check_handled(system: System) -> None:
    """Wait until every stored webhook is handled, to prove that none was lost."""
    wait(
        lambda: system.ask("SELECT count(*) FROM inbox WHERE handled_at IS NULL") == 0,
        "webhooks to be handled",
    )
