"""Run benchmarks and print their figures. `./run bench` starts this program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.backlog import COUNT, backlog
from benchmarks.dispatch import dispatch
from benchmarks.end_to_end import end_to_end
from benchmarks.hot_wallet import hot_wallet
from benchmarks.ingest import ingest
from benchmarks.kill import kill
from benchmarks.measure import Result, Skipped, Timing
from benchmarks.pgbench import find_pgbench
from benchmarks.relay import relay
from benchmarks.reserve_commit import reserve_commit
from benchmarks.server import Bench, durable_servers
from benchmarks.spread_wallets import spread_wallets
from benchmarks.status_check import status_check
from benchmarks.suspend import suspend
from benchmarks.system import System, bench_system

#: Benchmarks of the ledger alone, against pgbench.
LEDGER: dict[str, Callable[[Bench, int, float], list[Result]]] = {
    "hot_wallet": hot_wallet,
    "spread_wallets": spread_wallets,
    "reserve_commit": reserve_commit,
}
#: Benchmarks of Holdfast's processes, from the socket to the effect.
SYSTEM: dict[str, Callable[[System, int, float], Sequence[Result | Timing]]] = {
    "ingest": ingest,
    "end_to_end": end_to_end,
    "dispatch": dispatch,
    "relay": relay,
    "backlog": backlog,
    "suspend": suspend,
    "status_check": status_check,
    "kill": kill,
}
BENCHMARKS = [*LEDGER, *SYSTEM]


def main() -> int:
    """Run the named benchmarks, or all of them, and return the exit status."""
    parser = argparse.ArgumentParser(prog="holdfast bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--count", type=int, default=COUNT, help="callbacks of a backlog")
    asked = parser.parse_args()
    names = asked.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    results: list[Result | Timing | Skipped] = []
    ledger = [name for name in names if name in LEDGER]
    of_the_system = [name for name in names if name in SYSTEM]
    if ledger and find_pgbench() is None:
        results += [Skipped(name, "pgbench is not installed") for name in ledger]
    elif ledger:
        with durable_servers(redis=False) as servers:
            for name in ledger:
                results += _run_and_print(name, asked, partial(LEDGER[name], servers.bench))
    if of_the_system:
        with bench_system() as system:
            for name in of_the_system:
                size = {"count": asked.count} if name == "backlog" else {}
                results += _run_and_print(name, asked, partial(SYSTEM[name], system, **size))
    Console(width=120).print(_table(results))
    figures = [asdict(result) for result in results]
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))  # noqa: T201
    return 0


def _run_and_print(
    name: str,
    asked: argparse.Namespace,
    measure: Callable[[int, float], Sequence[Result | Timing]],
) -> Sequence[Result | Timing]:
    """Run one benchmark and print its figures at once.

    A later benchmark may take long or fail, and must not hide these figures.
    """
    print(f"{name}: {asked.rounds} rounds", file=sys.stderr, flush=True)  # noqa: T201
    figures = measure(asked.rounds, asked.seconds)
    Console(stderr=True, width=120).print(_table(figures))
    return figures


def _table(results: Sequence[Result | Timing | Skipped]) -> Table:
    table = Table("benchmark", "value", "baseline", "ratio", "spread", "unit", "rounds")
    for one in results:
        match one:
            case Skipped():
                table.add_row(one.name, "-", "-", "-", "-", f"skipped: {one.skipped}", "-")
            case Timing():
                value = f"{one.p50_ms:g} / {one.p99_ms:g}"
                baseline = "-"
                if one.baseline_p50_ms is not None:
                    baseline = f"{one.baseline_p50_ms:g} / {one.baseline_p99_ms:g}"
                unit = f"ms, p50 / p99; {one.limit}"
                worst = f"p99 at most {one.p99_ms_max:g}"
                table.add_row(one.name, value, baseline, "-", worst, unit, str(one.rounds))
            case Result():
                spread = f"{one.ratio_min} - {one.ratio_max}"
                baseline = f"{one.baseline:,.0f} {one.against}".rstrip()
                figures = (f"{one.value:,.0f}", baseline, f"{one.ratio}", spread)
                table.add_row(one.name, *figures, one.unit, str(one.rounds))
    return table


if __name__ == "__main__":
    sys.exit(main())
