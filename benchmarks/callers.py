"""A process of threads that call the ledger as fast as it answers.

Run as `python -m benchmarks.callers`. The process reads an order as JSON from standard input and
prints "ready". The next input line starts the measurement. At the end the process prints the number
of operations that succeeded.
"""

from __future__ import annotations

import json
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy.orm import Session

from db.address import driver_url
from db.engine import Database
from domain.wallet import holds
from domain.wallet.debits import Debit, debit_now
from domain.wallet.ledger import WalletOutcome

_AN_HOUR = timedelta(hours=1)
_SINGLE = "SELECT outcome FROM wallet_debit(%s, %s, %s, %s, 'debit', %s, '', %s)"
_RESERVE = "SELECT outcome FROM reserve_call_credits(%s, %s, NULL, %s, 'USD', %s, %s)"
_EXTEND = "SELECT outcome FROM extend_call_credits(%s, %s, 1, %s, %s, %s)"
_COMMIT = "SELECT outcome FROM commit_reserved_credits(%s, %s, %s, 'USD', %s)"


@dataclass(frozen=True)
class Order:
    """The task of one process of callers. `method` is a key of `METHODS`."""

    url: str
    method: str
    organizations: list[str]
    threads: int
    seconds: float


def run_callers(order: Order, processes: int) -> tuple[float, int]:
    """Run several processes of callers; return operations per second and in total.

    Raises: SystemExit if one of them fails.
    """
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.callers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    ready = []
    for process in running:
        _send_line(process, json.dumps(asdict(order)))
        ready.append(_read_line(process))
    for process in running:
        _send_line(process, "go")
    answered = sum(int(_read_line(process)) for process in running)
    for process in running:
        process.communicate()
    return answered / order.seconds, answered


def _send_line(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _read_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise SystemExit("a process of callers ended without an answer")
    return line


def main() -> None:
    """Execute the order from standard input."""
    order = Order(**json.loads(sys.stdin.readline()))
    database = Database(order.url, name="bench")
    gate = threading.Event()
    counts = [0] * order.threads
    ends_at = [0.0]

    def call(number: int) -> None:
        act = METHODS[order.method](database)
        chance = random.Random()  # noqa: S311
        prefix = secrets.token_hex(6)
        # If the thread needs a connection of its own, it is open already. The measured time does
        # not include opening it.
        done = 0
        gate.wait()
        while time.monotonic() < ends_at[0]:
            act(chance.choice(order.organizations), f"{prefix}:{done}")
            done += 1
        counts[number] = done

    threads = [threading.Thread(target=call, args=(n,)) for n in range(order.threads)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    ends_at[0] = time.monotonic() + order.seconds
    gate.set()
    for thread in threads:
        thread.join()
    database.close()
    print(sum(counts), flush=True)  # noqa: T201


#: Runs one operation for an organization, under a key that is new each time.
Act = Callable[[str, str], None]


def _combined(database: Database) -> Act:
    def debit(organization_id: str, key: str) -> None:
        outcome = debit_now(database, Debit(organization_id, key, 1, "USD", "bench"))
        if not outcome.ok:
            raise SystemExit(f"refused: {outcome}")

    return debit


def _single(database: Database) -> Act:
    call = _caller(database.url)

    def debit(organization_id: str, key: str) -> None:
        call(_SINGLE, (organization_id, key, 1, "USD", "bench", datetime.now(UTC)))

    return debit


def _holds(database: Database) -> Act:
    call = _caller(database.url)

    def cycle(organization_id: str, key: str) -> None:
        now = datetime.now(UTC)
        end = now + _AN_HOUR
        call(_RESERVE, (organization_id, key, 60, end, now))
        call(_EXTEND, (organization_id, key, 40, end, now))
        call(_COMMIT, (organization_id, key, 70, now))

    return cycle


def _domain_holds(database: Database) -> Act:
    def cycle(organization_id: str, key: str) -> None:
        now = datetime.now(UTC)
        end = now + _AN_HOUR
        steps: tuple[Callable[[Session], WalletOutcome], ...] = (
            lambda session: holds.reserve(
                session,
                organization_id,
                call_id=key,
                amount_micros=60,
                currency="USD",
                expires_at=end,
                now=now,
            ),
            lambda session: holds.extend(
                session,
                organization_id,
                call_id=key,
                nth=1,
                amount_micros=40,
                expires_at=end,
                now=now,
            ),
            lambda session: holds.commit(
                session, organization_id, call_id=key, amount_micros=70, currency="USD", now=now
            ),
        )
        for step in steps:
            outcome = database.run(step)
            if not outcome.ok:
                raise SystemExit(f"refused: {outcome}")

    return cycle


def _caller(url: str) -> Callable[[str, tuple[object, ...]], None]:
    """Open a connection for one thread; return a function that calls the ledger on it."""
    connection = psycopg.connect(driver_url(url), autocommit=True)

    def call(statement: str, values: tuple[object, ...]) -> None:
        row = connection.execute(statement, values, prepare=True).fetchone()
        if row is None or row[0] != "OK":
            raise SystemExit(f"refused: {row}")

    return call


METHODS: dict[str, Callable[[Database], Act]] = {
    "combined": _combined,
    "single": _single,
    "holds": _holds,
    "domain_holds": _domain_holds,
}


if __name__ == "__main__":
    main()
