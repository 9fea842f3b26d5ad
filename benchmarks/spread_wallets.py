"""spread_wallets: debits per second over 10,000 wallets, from two processes.

The baseline is pgbench, whose 8 clients call wallet_debit, the SQL function of a single debit. Two
ways are measured: single calls on one connection per thread, and debit_now, which combines debits.
"""

from __future__ import annotations

from functools import partial

from benchmarks.callers import Order, run_callers
from benchmarks.measure import Result, compare
from benchmarks.pgbench import run_pgbench
from benchmarks.server import Bench

_WALLETS = 10_000
_PROCESSES = 2
#: The way, the threads in each process, and the suffix of the figure's name. Single calls have as
#: many threads as the baseline has clients. Combining is meant for many callers at once, so it is
#: measured with as many and with four times as many.
_METHODS = (("single", 4, ""), ("combined", 4, "_combined_8"), ("combined", 16, "_combined"))

_SCRIPT = """
\\set number random(1, {wallets})
\\set key random(1, 9000000000000000000)
SELECT * FROM wallet_debit('{prefix}' || lpad(:number::text, 6, '0'), 'k:' || :key, 1, 'USD',
    'debit', 'bench', '', clock_timestamp());
"""


def spread_wallets(bench: Bench, rounds: int, seconds: float) -> list[Result]:
    """Measure both ways against pgbench calling the SQL function itself."""
    wallets = bench.make_wallets(_WALLETS)
    script = _SCRIPT.format(wallets=_WALLETS, prefix=wallets[0][:-6])

    def ours(method: str, threads: int) -> float:
        bench.settle()
        order = Order(bench.app_url, method, wallets, threads, seconds)
        rate, _ = run_callers(order, processes=_PROCESSES)
        return rate

    def function_alone() -> float:
        bench.settle()
        return run_pgbench(bench.app_url, script, clients=8, seconds=seconds)

    return [
        compare(
            f"spread_wallets{name}",
            "debits/s",
            rounds,
            value=partial(ours, method, threads),
            baseline=function_alone,
        )
        for method, threads, name in _METHODS
    ]
