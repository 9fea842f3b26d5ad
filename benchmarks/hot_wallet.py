"""hot_wallet: debits per second on one wallet, by 32 callers of debit_now.

The baseline is the usual transaction in plain SQL, run by 32 clients on similar tables. It keeps
the same promises: a row lock, a key that is used once, an entry and a balance. It has no hash chain
and stores no results for replays.
"""

from __future__ import annotations

import secrets

from benchmarks.callers import Order, run_callers
from benchmarks.measure import Result, compare
from benchmarks.pgbench import run_pgbench
from benchmarks.server import FUNDS_MICROS, Bench

_CALLERS = 32

_TABLES = """
    CREATE SCHEMA IF NOT EXISTS baseline;
    CREATE TABLE IF NOT EXISTS baseline.wallets (
        organization_id text PRIMARY KEY,
        currency        text NOT NULL,
        balance_micros  bigint NOT NULL CHECK (balance_micros >= 0),
        entry_no        bigint NOT NULL,
        updated_at      timestamptz NOT NULL
    );
    CREATE TABLE IF NOT EXISTS baseline.wallet_entries (
        organization_id      text NOT NULL REFERENCES baseline.wallets,
        entry_no             bigint NOT NULL,
        amount_micros        bigint NOT NULL CHECK (amount_micros > 0),
        balance_after_micros bigint NOT NULL,
        counter_account      text NOT NULL,
        operation_key        text NOT NULL,
        created_at           timestamptz NOT NULL,
        PRIMARY KEY (organization_id, entry_no),
        UNIQUE (organization_id, operation_key)
    );
"""

_SCRIPT = """
\\set key random(1, 9000000000000000000)
BEGIN;
SELECT balance_micros, entry_no FROM baseline.wallets
WHERE organization_id = '{org}' FOR UPDATE \\gset
INSERT INTO baseline.wallet_entries
VALUES ('{org}', :entry_no + 1, 1, :balance_micros - 1, 'bench', 'k:' || :key, now());
UPDATE baseline.wallets SET balance_micros = :balance_micros - 1, entry_no = :entry_no + 1,
    updated_at = now() WHERE organization_id = '{org}';
COMMIT;
"""


def hot_wallet(bench: Bench, rounds: int, seconds: float) -> list[Result]:
    """Measure debit_now, which combines debits, against the plain SQL transaction."""
    with bench.owner() as owner:
        owner.execute(_TABLES)

    def ours() -> float:
        wallets = bench.make_wallets(1)
        bench.settle()
        rate, answered = run_callers(
            Order(bench.app_url, "combined", wallets, _CALLERS, seconds), processes=1
        )
        bench.check(wallets, answered)
        return rate

    def hand_written() -> float:
        organization_id = f"org_{secrets.token_hex(6)}"
        with bench.owner() as owner:
            owner.execute(
                "INSERT INTO baseline.wallets VALUES (%s, 'USD', %s, 0, now())",
                (organization_id, FUNDS_MICROS),
            )
        bench.settle()
        return run_pgbench(
            bench.owner_url,
            _SCRIPT.format(org=organization_id),
            clients=_CALLERS,
            seconds=seconds,
        )

    return [compare("hot_wallet", "debits/s", rounds, value=ours, baseline=hand_written)]
