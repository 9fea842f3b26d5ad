"""What the database reads for combined debits: as much as they need, whatever else there is."""

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
    """Rows that were read through an index; a session tells of them when it ends."""
    return int(
        scalar(
            owner_url,
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = %s",
            index,
        )
    )


@pytest.fixture
def young(urls) -> Database:
    """A connection that made its plans while the tables were empty; its end is its session's, so
    that it tells what it read: not through a pooler."""
    made = Database(derive_app_url(urls.owner_url, PASSWORD), name="young")
    yield made
    made.close()


@pytest.mark.parametrize("statistics", ["", "VACUUM ANALYZE"], ids=["none", "of one wallet"])
def test_a_connection_as_old_as_the_database_reads_no_more_than_the_wallets_own(
    database, urls, young, statistics
):
    # Given a connection whose plans are from the time of the first debit
    org = make_organization(database, micros=1_000)
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        owner.execute(statistics)
    young.combiner.debit(ask(org, "first"))
    # When there are many wallets and many entries, and it debits on
    for _ in range(100):
        make_organization(database)
    for n in range(100):
        young.combiner.debit(ask(org, f"k{n}"))
    young.close()
    # Then neither all wallets nor all the wallet's entries were read each time
    checks = "wallet_entries_organization_id_entry_no_balance_after_micro_key"
    assert wait_until(lambda: rows_read(urls.owner_url, checks) >= 100, limit_seconds=20)
    by_time = "wallet_entries_organization_id_created_at_entry_no_idx"
    assert rows_read(urls.owner_url, by_time) == 0
    assert rows_read(urls.owner_url, "wallets_pkey") < 1_000
