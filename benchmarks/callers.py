"""A process of callers: threads that debit as fast as they are answered, each with its own keys.

Run as `python -m benchmarks.callers`; the order comes on standard input as JSON, "ready" goes out,
a line in starts it, and the number of debits answered OK goes out.
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
from datetime import UTC, datetime

import psycopg

from db.engine import Database, driver_url
from domain.debits import Debit, debit_now

_SINGLE = "SELECT outcome FROM wallet_debit(%s, %s, %s, %s, 'debit', %s, '', %s)"


@dataclass(frozen=True)
class Order:
    """What the callers of one process do. `door` is "combined" or "single"."""

    url: str
    door: str
    organizations: list[str]
    threads: int
    seconds: float


def run_callers(order: Order, processes: int) -> tuple[float, int]:
    """This function will run such processes at once and give debits per second and in all.

    Raises: SystemExit when one of them fails.
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
    told = []
    for process in running:
        _say(process, json.dumps(asdict(order)))
        told.append(_hear(process))
    for process in running:
        _say(process, "go")
    answered = sum(int(_hear(process)) for process in running)
    for process in running:
        process.communicate()
    return answered / order.seconds, answered


def _say(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise SystemExit("a process of callers ended without an answer")
    return line


def main() -> None:
    """This function will carry out the order that comes on standard input."""
    order = Order(**json.loads(sys.stdin.readline()))
    database = Database(order.url, name="bench")
    gate = threading.Event()
    counts = [0] * order.threads
    ends_at = [0.0]

    def call(number: int) -> None:
        debit = _combined(database) if order.door == "combined" else _single(order.url)
        chance = random.Random()  # noqa: S311
        prefix = secrets.token_hex(6)
        # A connection of its own is made before the time that counts.
        done = 0
        gate.wait()
        while time.monotonic() < ends_at[0]:
            debit(Debit(chance.choice(order.organizations), f"{prefix}:{done}", 1, "USD", "bench"))
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


def _combined(database: Database) -> Callable[[Debit], None]:
    def debit(one: Debit) -> None:
        outcome = debit_now(database, one)
        if not outcome.ok:
            raise SystemExit(f"refused: {outcome}")

    return debit


def _single(url: str) -> Callable[[Debit], None]:
    connection = psycopg.connect(driver_url(url), autocommit=True)

    def debit(one: Debit) -> None:
        values = (*one, datetime.now(UTC))
        row = connection.execute(_SINGLE, values, prepare=True).fetchone()
        if row is None or row[0] != "OK":
            raise SystemExit(f"refused: {row}")

    return debit


if __name__ == "__main__":
    main()
