"""Runs benchmarks and prints their figures; `./run bench` starts it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.hot_wallet import hot_wallet
from benchmarks.measure import Result, Skipped
from benchmarks.pgbench import find_pgbench
from benchmarks.server import Bench, bench_server
from benchmarks.spread_wallets import spread_wallets

BENCHMARKS: dict[str, Callable[[Bench, int, float], list[Result]]] = {
    "hot_wallet": hot_wallet,
    "spread_wallets": spread_wallets,
}


def main() -> int:
    """This function will run the named benchmarks, or all, and give the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    asked = parser.parse_args()
    names = asked.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    results: list[Result | Skipped] = []
    if find_pgbench() is None:
        results += [Skipped(name, "pgbench is not installed") for name in names]
    else:
        with bench_server() as bench:
            for name in names:
                print(f"{name}: {asked.rounds} rounds", file=sys.stderr, flush=True)  # noqa: T201
                results += BENCHMARKS[name](bench, asked.rounds, asked.seconds)
    Console(width=100).print(_table(results))
    figures = [asdict(result) for result in results]
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))  # noqa: T201
    return 0


def _table(results: list[Result | Skipped]) -> Table:
    table = Table("benchmark", "value", "baseline", "ratio", "spread", "unit", "rounds")
    for one in results:
        if isinstance(one, Skipped):
            table.add_row(one.name, "-", "-", "-", "-", f"skipped: {one.skipped}", "-")
        else:
            spread = f"{one.ratio_min} - {one.ratio_max}"
            figures = (f"{one.value:,.0f}", f"{one.baseline:,.0f}", f"{one.ratio}", spread)
            table.add_row(one.name, *figures, one.unit, str(one.rounds))
    return table


if __name__ == "__main__":
    sys.exit(main())
