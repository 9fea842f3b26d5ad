"""The chain of entries, recomputed in Python: an audit of the ledger needs no SQL."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from base.operators import Operator
from db.models import Wallet, WalletEntry
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallets

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def chained(previous: bytes, *fields: object) -> bytes:
    """Compute an entry's hash as the documentation describes it, without SQL."""
    content = b""
    for field in fields:
        raw = str(field).encode()
        content += len(raw).to_bytes(4, "big") + raw
    return hashlib.sha256(previous + content).digest()


def hash_of(entry: WalletEntry, previous: bytes) -> bytes:
    micros = (entry.created_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return chained(
        previous,
        entry.organization_id,
        entry.entry_no,
        entry.kind,
        entry.direction,
        entry.amount_micros,
        entry.balance_after_micros,
        entry.owed_after_micros,
        entry.counter_account,
        entry.operation_key,
        entry.note,
        micros,
    )


VECTOR = "96bc93c610adc3824aac62563d7dda6fa8b5fc8b7e6d6cd4dce3299b9a363a0a"


def test_fixed_vector_has_the_same_hash_in_python_and_sql(owner):
    fields = ("org_1", "1", "topup", "credit", "5000000", "5000000", "0", "topup_clearing")
    fields = (*fields, "k:1", "é: naïve", "1767323045678901")
    previous = bytes(32)
    (found,) = owner.execute(
        "SELECT ledger_hash(%s, VARIADIC %s::text[])", (previous, list(fields))
    ).fetchone()
    assert found.hex() == chained(previous, *fields).hex() == VECTOR


def test_bytes_cannot_move_between_fields_without_another_hash(owner):
    one, other = (
        owner.execute("SELECT ledger_hash('', VARIADIC %s::text[])", (fields,)).fetchone()
        for fields in (["ab", "c"], ["a", "bc"])
    )
    assert one != other


def test_chain_recomputed_in_python_equals_the_stored_one(shared, org):
    # Given entries of many kinds, at an instant with microseconds, with unusual text
    def work(session):
        session.execute(text("SET LOCAL timezone = 'Asia/Kathmandu'"))
        common = {"currency": "USD", "now": NOW}
        wallets.credit(session, org, key="c", amount_micros=3, note="naïve ☂ 'quoted'", **common)
        wallets.debit(session, org, key="d", amount_micros=2, **common)
        wallets.correct(
            session, org, key="x", amount_micros=-1, operator=Operator("o", "y"), **common
        )
        wallet_freezes.freeze(
            session, org, wallet_freezes.FreezeReason.MANUAL, operator=Operator("o", "y"), now=NOW
        )
        wallet_freezes.unfreeze(
            session, org, wallet_freezes.FreezeReason.MANUAL, operator=Operator("o", "y"), now=NOW
        )

    shared.run(work)

    def read(session):
        entries = session.query(WalletEntry).filter_by(organization_id=org)
        return list(entries.order_by(WalletEntry.entry_no)), session.get_one(Wallet, org)

    entries, wallet = shared.run(read)
    # Then each links to the entry before, from an empty start to the wallet's head
    previous = b""
    for number, entry in enumerate(entries):
        assert entry.entry_no == number
        assert entry.previous_hash == previous
        assert entry.hash == hash_of(entry, previous)
        previous = entry.hash
    assert wallet.head_hash == previous
    assert wallet.entry_no == len(entries) - 1 == 6


@pytest.mark.parametrize(
    "column", ["kind", "amount_micros", "balance_after_micros", "note", "operation_key"]
)
def test_changed_field_breaks_the_chain(shared, org, column):
    entry = shared.run(lambda session: session.get_one(WalletEntry, (org, 1)))
    assert hash_of(entry, entry.previous_hash) == entry.hash
    setattr(entry, column, 999)
    assert hash_of(entry, entry.previous_hash) != entry.hash
