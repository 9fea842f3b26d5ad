"""reserve_commit: cycles of reserve, extend and commit per second, by 8 callers.

The calls are spread over many wallets. The baseline is pgbench with as many clients and three
transactions in plain SQL per cycle. Its tables are similar, but have no hash chain, no stored
results and no late bills.

Two ways are measured. The first calls the ledger's functions on one connection per thread, and
compares the ledger alone with the plain SQL. The second calls domain.wallet.holds with one
transaction per step, as Holdfast's processes do.

After each round, holds, entries and balances must agree with the cycles that were answered. The
baseline's tables must agree with each other.
"""

from __future__ import annotations

from functools import partial

from benchmarks.callers import Order, run_callers
from benchmarks.measure import Result, compare
from benchmarks.pgbench import run_pgbench
from benchmarks.server import FUNDS_MICROS, Bench

_WALLETS = 1_000
_PROCESSES = 2
#: Threads in each process.
_THREADS = 4
#: Micros that one cycle charges and releases. It reserves 60 and extends the hold by 40
#: (benchmarks/callers.py, and `_SCRIPT` below).
_CHARGED_MICROS, _RELEASED_MICROS = 70, 30
_METHODS = (("holds", ""), ("domain_holds", "_domain"))

_TABLES = """
    CREATE SCHEMA IF NOT EXISTS baseline;
    DROP TABLE IF EXISTS baseline.call_entries, baseline.call_holds, baseline.call_wallets;
    CREATE TABLE baseline.call_wallets (
        organization_id text PRIMARY KEY,
        balance_micros  bigint NOT NULL,
        held_micros     bigint NOT NULL CHECK (held_micros >= 0),
        entry_no        bigint NOT NULL,
        updated_at      timestamptz NOT NULL,
        CHECK (balance_micros - held_micros >= 0)
    );
    CREATE TABLE baseline.call_holds (
        organization_id text NOT NULL REFERENCES baseline.call_wallets,
        call_id         text NOT NULL,
        reserved_micros bigint NOT NULL CHECK (reserved_micros > 0),
        captured_micros bigint NOT NULL DEFAULT 0,
        status          text NOT NULL,
        expires_at      timestamptz NOT NULL,
        created_at      timestamptz NOT NULL,
        settled_at      timestamptz,
        PRIMARY KEY (organization_id, call_id)
    );
    CREATE INDEX ON baseline.call_holds (expires_at) WHERE status = 'open';
    CREATE TABLE baseline.call_entries (
        organization_id      text NOT NULL REFERENCES baseline.call_wallets,
        entry_no             bigint NOT NULL,
        amount_micros        bigint NOT NULL CHECK (amount_micros > 0),
        balance_after_micros bigint NOT NULL,
        operation_key        text NOT NULL,
        created_at           timestamptz NOT NULL,
        PRIMARY KEY (organization_id, entry_no),
        UNIQUE (organization_id, operation_key)
    );
    INSERT INTO baseline.call_wallets
    SELECT 'org_' || n, {funds}, 0, 0, now() FROM generate_series(1, {wallets}) AS n;
"""
_SCRIPT = """
\\set number random(1, {wallets})
\\set key random(1, 9000000000000000000)
BEGIN;
SELECT balance_micros, held_micros, entry_no FROM baseline.call_wallets
    WHERE organization_id = 'org_' || :number FOR UPDATE \\gset
INSERT INTO baseline.call_holds VALUES ('org_' || :number, 'c:' || :key, 60, 0, 'open',
    now() + interval '1 hour', now());
UPDATE baseline.call_wallets SET held_micros = held_micros + 60, updated_at = now()
    WHERE organization_id = 'org_' || :number AND balance_micros - held_micros >= 60;
COMMIT;
BEGIN;
SELECT balance_micros, held_micros, entry_no FROM baseline.call_wallets
    WHERE organization_id = 'org_' || :number FOR UPDATE \\gset
UPDATE baseline.call_holds SET reserved_micros = reserved_micros + 40,
    expires_at = now() + interval '1 hour'
    WHERE organization_id = 'org_' || :number AND call_id = 'c:' || :key AND status = 'open';
UPDATE baseline.call_wallets SET held_micros = held_micros + 40, updated_at = now()
    WHERE organization_id = 'org_' || :number AND balance_micros - held_micros >= 40;
COMMIT;
BEGIN;
SELECT balance_micros, held_micros, entry_no FROM baseline.call_wallets
    WHERE organization_id = 'org_' || :number FOR UPDATE \\gset
INSERT INTO baseline.call_entries VALUES ('org_' || :number, :entry_no + 1, 70,
    :balance_micros - 70, 'c:' || :key, now());
UPDATE baseline.call_holds SET captured_micros = 70, status = 'committed', settled_at = now()
    WHERE organization_id = 'org_' || :number AND call_id = 'c:' || :key AND status = 'open';
UPDATE baseline.call_wallets SET balance_micros = balance_micros - 70,
    held_micros = held_micros - 100, entry_no = entry_no + 1, updated_at = now()
    WHERE organization_id = 'org_' || :number;
COMMIT;
"""
_CYCLES = """
    SELECT count(*), count(*) FILTER (WHERE (status, extensions, captured_micros, released_micros)
        <> ('committed', 1, %s, %s))
    FROM call_holds WHERE organization_id = ANY (%s)
"""
#: A new wallet has two entries: number 0 opens it, and number 1 funds it.
_WRONG = """
    SELECT count(*) FROM wallets w JOIN LATERAL (SELECT count(*) AS calls FROM call_holds h
        WHERE h.organization_id = w.organization_id) c ON true
    WHERE w.organization_id = ANY (%s)
        AND (w.balance_micros, w.held_micros, w.entry_no) <> (%s - %s * c.calls, 0, 1 + c.calls)
"""
#: The end of the measured time may interrupt a cycle, whose hold is then still open.
_BASELINE_WRONG = """
    SELECT count(*) FROM baseline.call_wallets w JOIN LATERAL (
        SELECT coalesce(sum(reserved_micros) FILTER (WHERE status = 'open'), 0) AS held,
            count(*) FILTER (WHERE status = 'committed') AS calls FROM baseline.call_holds h
        WHERE h.organization_id = w.organization_id) c ON true
    WHERE (w.balance_micros, w.held_micros, w.entry_no) <> (%s - %s * c.calls, c.held, c.calls)
"""


def reserve_commit(bench: Bench, rounds: int, seconds: float) -> list[Result]:
    """Measure both ways against the plain SQL transactions."""

    def ours(method: str) -> float:
        wallets = bench.make_wallets(_WALLETS)
        bench.settle()
        order = Order(bench.app_url, method, wallets, _THREADS, seconds)
        rate, answered = run_callers(order, processes=_PROCESSES)
        check_cycles(bench, wallets, answered)
        return rate

    return [
        compare(
            f"reserve_commit{name}",
            "cycles/s",
            rounds,
            value=partial(ours, method),
            baseline=partial(hand_written, bench, seconds),
        )
        for method, name in _METHODS
    ]


def hand_written(bench: Bench, seconds: float) -> float:
    """Run the baseline with pgbench on its own tables and return its rate."""
    with bench.owner() as owner:
        owner.execute(_TABLES.format(wallets=_WALLETS, funds=FUNDS_MICROS))
    bench.settle()
    script = _SCRIPT.format(wallets=_WALLETS)
    clients = _PROCESSES * _THREADS
    rate = run_pgbench(bench.owner_url, script, clients=clients, seconds=seconds)
    check_baseline(bench)
    return rate


def check_cycles(bench: Bench, wallets: list[str], answered: int) -> None:
    """Compare the ledger with the number of cycles that were answered.

    Raises: SystemExit unless each cycle exists once and every wallet is right to the micro.
    """
    with bench.owner() as owner:
        cycle = (_CHARGED_MICROS, _RELEASED_MICROS, wallets)
        cycles, odd = owner.execute(_CYCLES, cycle).fetchone() or (0, 0)
        wrong = owner.execute(_WRONG, (wallets, FUNDS_MICROS, _CHARGED_MICROS)).fetchone()
    if cycles != answered or odd or wrong is None or wrong[0]:
        raise SystemExit(f"wrong: {cycles} cycles for {answered}, {odd} odd holds, {wrong} wallets")


def check_baseline(bench: Bench) -> None:
    """Add up the baseline's tables, to prove that it did the same work.

    Raises: SystemExit if a wallet does not agree with its holds.
    """
    with bench.owner() as owner:
        wrong = owner.execute(_BASELINE_WRONG, (FUNDS_MICROS, _CHARGED_MICROS)).fetchone()
    if wrong is None or wrong[0]:
        raise SystemExit(f"wrong: {wrong} of the baseline's wallets")
