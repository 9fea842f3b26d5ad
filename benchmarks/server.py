"""The benchmarks' servers, durable and embedded in a temporary folder, and the wallets on them."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from db.address import driver_url
from local.databases import prepare
from local.embedded import EmbeddedServers

#: What every wallet is given: more than any round can spend, one micro at a time.
FUNDS_MICROS = 10**12

_FILL = """
    WITH made AS (
        INSERT INTO organizations (id, name, created_at)
        SELECT %(prefix)s || lpad(n::text, 6, '0'), 'bench', now()
        FROM generate_series(1, %(count)s) AS n RETURNING id)
    SELECT array_agg(id ORDER BY id) FROM made
"""
_FUND = """
    SELECT count(wallet_open(org, 'USD', now())), count(wallet_credit(org, 'fund', %s, 'USD',
        'credit', 'corrections', '', now())) FROM unnest(%s::text[]) AS o(org)
"""
#: Wallets that are wrong: with a gap in their entries, or unequal to what these add up to.
_WRONG = """
    SELECT count(*) FROM wallets w JOIN LATERAL (
        SELECT count(*) AS entries, sum(balance_after_micros - balance_before_micros) AS sum
        FROM wallet_entries e WHERE e.organization_id = w.organization_id) e ON true
    WHERE w.organization_id = ANY (%s) AND (e.entries, e.sum) <> (w.entry_no + 1, w.balance_micros)
"""
_DEBITS = """
    SELECT count(*) FROM wallet_entries WHERE organization_id = ANY (%s) AND kind = 'debit'
"""


@dataclass(frozen=True)
class Bench:
    """The server under measurement, as its owner and as holdfast_app."""

    owner_url: str
    app_url: str

    def owner(self) -> psycopg.Connection[Any]:
        """This function will connect as the owner, with each statement a transaction."""
        return psycopg.connect(driver_url(self.owner_url), autocommit=True)

    def make_wallets(self, count: int) -> list[str]:
        """This function will make so many funded wallets and give their organizations."""
        prefix = f"org_{secrets.token_hex(6)}"
        with self.owner() as owner:
            row = owner.execute(_FILL, {"prefix": prefix, "count": count}).fetchone()
            made: list[str] = row[0] if row else []
            owner.execute(_FUND, (FUNDS_MICROS, made))
        return made

    def settle(self) -> None:
        """This function will leave no work of the last round to the next one."""
        with self.owner() as owner:
            owner.execute("VACUUM ANALYZE")
            owner.execute("CHECKPOINT")

    def check(self, organizations: list[str], answered: int) -> None:
        """This function will compare the ledger with what the callers were told.

        Raises: SystemExit when they differ, since a wrong ledger's speed is worth nothing.
        """
        with self.owner() as owner:
            wrong = (owner.execute(_WRONG, (organizations,)).fetchone() or (None,))[0]
            debits = (owner.execute(_DEBITS, (organizations,)).fetchone() or (None,))[0]
        if wrong or debits != answered:
            raise SystemExit(f"wrong ledger: {wrong} wallets, {debits} debits for {answered}")


@dataclass(frozen=True)
class Servers:
    """What runs for the benchmarks; `redis_url` is empty where no Valkey was asked for."""

    bench: Bench
    redis_url: str
    folder: Path


@contextmanager
def durable_servers(*, redis: bool) -> Iterator[Servers]:
    """This function will run PostgreSQL durably (fsync, synchronous_commit), and Valkey if asked.

    In the end they are removed, with all that stands in their folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    # The servers' account must be able to enter it.
    folder.chmod(0o711)
    try:
        with EmbeddedServers(folder / "state", redis=redis) as urls:
            app_url = prepare("", urls.owner_url, folder).app_url
            yield Servers(Bench(urls.owner_url, app_url), urls.redis_url, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
