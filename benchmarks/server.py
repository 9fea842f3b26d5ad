"""The benchmarks' embedded, durable servers, and the wallets on them.

The servers live in a temporary folder.
"""

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

#: Funds of every wallet: more than any round can spend.
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
#: Counts wallets with a gap in their entries, or with a balance other than the sum of their
#: entries.
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
    """The database under test, with its addresses for the owner and for holdfast_app."""

    owner_url: str
    app_url: str

    def owner(self) -> psycopg.Connection[Any]:
        """Connect as the owner, with autocommit."""
        return psycopg.connect(driver_url(self.owner_url), autocommit=True)

    def make_wallets(self, count: int) -> list[str]:
        """Create funded wallets and return their organizations."""
        prefix = f"org_{secrets.token_hex(6)}"
        with self.owner() as owner:
            row = owner.execute(_FILL, {"prefix": prefix, "count": count}).fetchone()
            made: list[str] = row[0] if row else []
            owner.execute(_FUND, (FUNDS_MICROS, made))
        return made

    def settle(self) -> None:
        """Vacuum and checkpoint, so that the next round inherits no work."""
        with self.owner() as owner:
            owner.execute("VACUUM ANALYZE")
            owner.execute("CHECKPOINT")

    def check(self, organizations: list[str], answered: int) -> None:
        """Compare the ledger with the number of debits that succeeded.

        Raises: SystemExit if they differ, because the speed of a wrong ledger means nothing.
        """
        with self.owner() as owner:
            wrong = (owner.execute(_WRONG, (organizations,)).fetchone() or (None,))[0]
            debits = (owner.execute(_DEBITS, (organizations,)).fetchone() or (None,))[0]
        if wrong or debits != answered:
            raise SystemExit(f"wrong ledger: {wrong} wallets, {debits} debits for {answered}")


@dataclass(frozen=True)
class Servers:
    """The running servers. `redis_url` is empty if no Valkey was requested."""

    bench: Bench
    redis_url: str
    folder: Path


@contextmanager
def durable_servers(*, redis: bool) -> Iterator[Servers]:
    """Run PostgreSQL durably (fsync, synchronous_commit), and Valkey on request.

    At the end the servers and their folder are removed.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    # The account that runs the servers must be able to enter the folder.
    folder.chmod(0o711)
    try:
        with EmbeddedServers(folder / "state", redis=redis) as urls:
            app_url = prepare("", urls.owner_url, folder).app_url
            yield Servers(Bench(urls.owner_url, app_url), urls.redis_url, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
