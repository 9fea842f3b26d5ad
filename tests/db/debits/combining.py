"""Helpers for the tests of combined debits: debits, entries, waiting callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from base.clock import wait_until
from db.debits.combiner import Answer, Combiner, Debit
from db.models import WalletEntry
from tests.db.support import holding, scalar, wait_for_waiters


def ask(org: str, key: str, amount: int = 1, currency: str = "USD") -> Debit:
    return Debit(org, key, amount, currency, "messages")


def entries_of(database, org: str) -> list[WalletEntry]:
    return database.run(
        lambda session: list(
            session.query(WalletEntry)
            .filter_by(organization_id=org, kind="debit")
            .order_by(WalletEntry.entry_no)
        )
    )


def keys_of(database, org: str) -> list[str]:
    return [entry.operation_key for entry in entries_of(database, org)]


def lock_of(org: str) -> Callable[[Any], Any]:
    return lambda session: session.execute(text("SELECT wallet_lock(:org)"), {"org": org})


def broken_links(owner_url: str, org: str) -> int:
    """Count the entries with a gap, a wrong number, a wrong link or a wrong hash."""
    return scalar(
        owner_url,
        "SELECT count(*) FROM (SELECT e.*, lag(hash, 1, '') OVER w AS hash_before,"
        " row_number() OVER w - 1 AS place FROM wallet_entries e WHERE organization_id = %s"
        " WINDOW w AS (ORDER BY entry_no)) e WHERE entry_no <> place"
        " OR previous_hash <> hash_before OR hash <> ledger_hash(previous_hash, organization_id,"
        " entry_no::text, kind, direction, amount_micros::text, balance_after_micros::text,"
        " owed_after_micros::text, counter_account, operation_key, note,"
        " (extract(epoch FROM created_at) * 1000000)::bigint::text)",
        org,
    )


@contextmanager
def waiting_callers(
    shared, owner_url: str, combiner: Combiner, org: str, debits: list[Debit]
) -> Iterator[list[Future[Answer]]]:
    """Keep callers waiting while the block runs.

    The first caller waits for its wallet's lock, alone. The others wait behind it and later become
    one batch.
    """
    with ThreadPoolExecutor(len(debits)) as pool:
        with holding(shared, lock_of(org)):
            first = pool.submit(combiner.debit, debits[0])
            assert wait_for_waiters(owner_url, 1)
            rest = []
            for debit in debits[1:]:
                # Start them one after the other, so that the queue has this order.
                rest.append(pool.submit(combiner.debit, debit))
                assert wait_until(
                    lambda: combiner.waiting_count == len(rest),
                    limit_seconds=5,
                    every_seconds=0.001,
                )
            yield [first, *rest]
        [one.exception(timeout=20) for one in (first, *rest)]
