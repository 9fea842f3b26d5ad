"""The benchmarks' server: a durable embedded PostgreSQL in a temporary folder, and its wallets."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from cli.databases import derive_app_url
from cli.embedded import EmbeddedServers
from db.engine import driver_url
from db.migrate import migrate, set_password

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

    def make_wallets(self, count: int) -> list[str]:
        """This function will make so many funded wallets and give their organizations."""
        prefix = f"org_{secrets.token_hex(6)}"
        with psycopg.connect(driver_url(self.owner_url), autocommit=True) as owner:
            row = owner.execute(_FILL, {"prefix": prefix, "count": count}).fetchone()
            made: list[str] = row[0] if row else []
            owner.execute(_FUND, (FUNDS_MICROS, made))
        return made

    def settle(self) -> None:
        """This function will leave no work of the last round to the next one."""
        with psycopg.connect(driver_url(self.owner_url), autocommit=True) as owner:
            owner.execute("VACUUM ANALYZE")
            owner.execute("CHECKPOINT")

    def check(self, organizations: list[str], answered: int) -> None:
        """This function will compare the ledger with what the callers were told.

        Raises: SystemExit when they differ, since a wrong ledger's speed is worth nothing.
        """
        with psycopg.connect(driver_url(self.owner_url), autocommit=True) as owner:
            wrong = (owner.execute(_WRONG, (organizations,)).fetchone() or (None,))[0]
            debits = (owner.execute(_DEBITS, (organizations,)).fetchone() or (None,))[0]
        if wrong or debits != answered:
            raise SystemExit(f"wrong ledger: {wrong} wallets, {debits} debits for {answered}")


@contextmanager
def bench_server() -> Iterator[Bench]:
    """This function will run PostgreSQL durably (fsync, synchronous_commit), then remove it."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    # The server's account must be able to enter it.
    folder.chmod(0o711)
    try:
        with EmbeddedServers(folder / "state", redis=False) as urls:
            migrate(urls.owner_url)
            password = secrets.token_urlsafe(12)
            set_password(urls.owner_url, "holdfast_app", password)
            yield Bench(urls.owner_url, derive_app_url(urls.owner_url, password))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
