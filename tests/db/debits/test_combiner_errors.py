"""The combiner reports a full disk and a time limit as themselves, not as busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors

from db.address import driver_url
from db.busy import DatabaseBusy, StatementTooSlow
from db.debits.combiner import Combiner
from tests.db.debits.combining import ask, keys_of
from tests.support.world import make_organization


@contextmanager
def failing_entries(owner_url: str, org: str, condition: str) -> Iterator[None]:
    """Make the server refuse each new entry of one wallet with this error condition."""
    with psycopg.connect(driver_url(owner_url), autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION refuse_entry() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{condition}'; END $$"
        )
        owner.execute(
            "CREATE TRIGGER a_refuse_entry BEFORE INSERT ON wallet_entries FOR EACH ROW"
            f" WHEN (NEW.organization_id = '{org}') EXECUTE FUNCTION refuse_entry()"
        )
        try:
            yield
        finally:
            owner.execute("DROP FUNCTION refuse_entry CASCADE")


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ("disk_full", errors.DiskFull),
        ("query_canceled", StatementTooSlow),
        ("lock_not_available", DatabaseBusy),
    ],
)
def test_debit_raises_as_a_transaction_does(shared, shared_urls, condition, error):
    org = make_organization(shared, micros=10)
    combiner = Combiner(shared_urls.app_url)
    # Given a server that refuses the entry with an error
    with failing_entries(shared_urls.owner_url, org, condition):
        # When a caller debits, Then it gets the error that Database.run raises, and no entry
        with pytest.raises((psycopg.Error, DatabaseBusy)) as caught:
            combiner.debit(ask(org, "a", 3))
        assert type(caught.value) is error
        assert keys_of(shared, org) == []
    # And when the server accepts entries again, the same debit is charged once
    outcome, replayed, _, balance, *_ = combiner.debit(ask(org, "a", 3))
    combiner.stop()
    assert (outcome, replayed, balance) == ("OK", False, 7)
    assert keys_of(shared, org) == ["a"]
