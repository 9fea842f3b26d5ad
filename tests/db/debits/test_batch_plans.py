"""Query plans of combined debits: they read no more rows than the debits need."""

from __future__ import annotations

import psycopg
import pytest

from base.clock import wait_until
from db.address import driver_url
from db.engine import Database
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.debits.combining import ask
from tests.db.support import scalar
from tests.support.world import make_organization


def rows_read(owner_url: str, index: str) -> int:
    """Count the rows read through an index.

    PostgreSQL reports them when a session ends.
    """
    return int(
        scalar(
            owner_url,
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = %s",
            index,
        )
    )


@pytest.fixture
def young(urls) -> Database:
    """A connection that made its plans while the tables were empty.

    It bypasses the pooler: closing it ends its session, which then reports the rows that it read.
    """
    made = Database(derive_app_url(urls.owner_url, PASSWORD), name="young")
    yield made
    made.close()


@pytest.mark.parametrize("statistics", ["", "VACUUM ANALYZE"], ids=["none", "of one wallet"])
def test_old_connection_reads_only_its_wallets_rows_after_data_grew(
    database, urls, young, statistics
):
    # Given a connection whose plans date from the first debit
    org = make_organization(database, micros=1_000)
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        owner.execute(statistics)
    young.combiner.debit(ask(org, "first"))
    # When many wallets and entries are added and the connection continues to debit
    for _ in range(100):
        make_organization(database)
    for n in range(100):
        young.combiner.debit(ask(org, f"k{n}"))
    young.close()
    # Then it never read all wallets, nor all entries of the wallet
    checks = "wallet_entries_organization_id_entry_no_balance_after_micro_key"
    assert wait_until(lambda: rows_read(urls.owner_url, checks) >= 100, limit_seconds=20)
    by_time = "wallet_entries_organization_id_created_at_entry_no_idx"
    assert rows_read(urls.owner_url, by_time) == 0
    assert rows_read(urls.owner_url, "wallets_pkey") < 1_000
