"""`verify ledger` names the entry that a superuser changed past every guard."""

from __future__ import annotations

import secrets
import threading
from datetime import timedelta

import psycopg
import pytest

from base.enums import DisputeState, Provider, RefundState
from base.facts import DisputeFacts, RefundFacts
from base.operators import Operator
from db.address import driver_url
from db.models import Wallet
from domain import operator_actions
from domain.payments.settlements import settle_dispute, settle_refund
from domain.wallet import assets, debits, holds
from domain.wallet import operations as wallet
from domain.wallet.audit import verification as verify
from domain.wallet.audit.chain import Head, What
from domain.wallet.ledger import WalletNotFound
from tests.domain.support import T0, correct, credit, debit, entries, later, payment
from tests.domain.wallet.support import freeze, override, unfreeze
from tests.support.world import make_organization


def done(database, operation, org, **values):
    """Call an operation of the domain, which must not refuse."""
    outcome = database.run(lambda session: operation(session, org, now=T0, **values))
    assert outcome.ok, outcome


def settle(database, org, captured, refunded=0):
    """Settle the organization's one payment."""
    facts = payment(f"CAP-{org[-12:]}", org, captured, refunded)
    assert database.run(lambda session: wallet.settle(session, org, facts, T0)).ok


def reserve(database, org, call, amount):
    values = {"amount_micros": amount, "currency": "USD", "expires_at": later(60)}
    done(database, holds.reserve, org, call_id=call, **values)


def commit(database, org, call, amount):
    done(database, holds.commit, org, call_id=call, amount_micros=amount, currency="USD")


def debit_three(database, org):
    """Make three debits in one call, of which one is a replay of another."""
    asked = [debits.Debit(org, key, 1, "USD", "messages") for key in ("m1", "m2", "m1")]
    outcomes = database.run(lambda session: debits.debit_many(session, asked, T0))
    assert all(outcome.ok for outcome in outcomes)


def busy_wallet(database, urls):
    """Make an organization with entries of every kind and an open hold."""
    org = make_organization(database)
    settle(database, org, 1_000)
    credit(database, org, 50, note="naïve ☂")
    debit(database, org, 10)
    correct(database, org, 5)
    correct(database, org, -5)
    freeze(database, org)
    override(database, org, T0 + timedelta(hours=1))
    unfreeze(database, org)
    debit_three(database, org)
    number = {"key": "a1", "amount_micros": 7, "currency": "USD", "asset": "+1555"}
    done(database, assets.deduct_asset_cost, org, **number)
    # Given calls: one charged below its hold, one never begun, one expired, one still open
    for call in ("c1", "c2", "c3", "c4"):
        reserve(database, org, call, 100)
    commit(database, org, "c1", 60)
    done(database, holds.release, org, call_id="c2")
    # When a refund takes more than the balance, and the expired hold pays part of the outstanding
    # amount
    settle(database, org, 1_000, 1_000)
    expired = database.run(
        lambda session: holds.expire(session, org, call_ids=["c3"], now=later(61))
    )
    assert expired == ["c3"]
    # When a call costs more than the debt limit allows, and new money pays all of it
    done(
        database,
        operator_actions.set_debt_limit_manually,
        org,
        limit_micros=20,
        operator=Operator("ann", "good"),
    )
    commit(database, org, "c5", 30)
    credit(database, org, 2_000)
    rebuild(urls, org)
    return org


def rebuild(urls, org):
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        owner.execute("SELECT wallet_rebuild(%s, 'ann', 'a drill', %s)", (org, T0))


def tamper(urls, org, *statements):
    """Change the ledger as a superuser, with triggers and foreign keys off."""
    with psycopg.connect(driver_url(urls.owner_url)) as superuser:
        superuser.execute("SET session_replication_role = replica")
        for statement in statements:
            superuser.execute(statement.format(org=f"organization_id = '{org}'"))


def found(database, org=None, heads=None):
    return [
        (finding.entry_no, finding.what)
        for finding in verify.verify_ledger(database.run, organization_id=org, heads=heads)
    ]


@pytest.fixture
def plain(shared):
    """Six entries: 0 opens, 1 credits 100 (k1), 2 to 5 debit 10 each (k2 to k5)."""
    org = make_organization(shared)
    assert credit(shared, org, 100, key="k1").ok
    for number in range(2, 6):
        assert debit(shared, org, 10, key=f"k{number}").ok
    return org


def test_a_clean_ledger_of_several_wallets_has_no_findings(database, urls, monkeypatch):
    # Given wallets with entries of every kind, one with only its opening, and pages of three
    monkeypatch.setattr(verify, "PAGE_ENTRIES", 3)
    monkeypatch.setattr(verify, "PAGE_HEADS", 2)
    orgs = [busy_wallet(database, urls) for _ in range(3)]
    make_organization(database)
    heads = {head.organization_id: head for head in verify.current_heads(database.run)}
    # When all are verified, with their heads
    tally = verify.Tally()
    findings = list(verify.verify_ledger(database.run, heads=heads, tally=tally))
    # Then nothing is found, and every entry was read
    assert findings == []
    assert len(heads) == 4
    count = "SELECT count(*) FROM wallet_entries"
    kinds = "SELECT array_agg(DISTINCT kind) FROM wallet_entries"
    with psycopg.connect(driver_url(urls.owner_url)) as owner:
        total = owner.execute(count).fetchone()[0]
        seen = set(owner.execute(kinds).fetchone()[0])
    assert (tally.wallets, tally.entries) == (4, total)
    assert database.run(verify.entries_to_verify) == total
    assert database.run(lambda s: s.get_one(Wallet, orgs[0]).held_micros) == 100
    assert seen == {
        *("opening", "topup", "credit", "debit", "refund", "owed_payment", "call", "asset"),
        *("BALANCE_CORRECTION", "freeze", "unfreeze", "override", "owed", "debt_limit", "rebuild"),
    }


FORGED_HASH = """
    UPDATE wallet_entries SET note = 'forged', hash = ledger_hash(previous_hash, organization_id,
        entry_no::text, kind, direction, amount_micros::text, balance_after_micros::text,
        owed_after_micros::text, counter_account, operation_key, 'forged',
        (extract(epoch FROM created_at) * 1000000)::bigint::text)
    WHERE {{org}} AND entry_no = {number}
"""
COPY_OF_3 = """
    INSERT INTO wallet_entries SELECT organization_id, {number}, kind, direction, amount_micros,
        balance_before_micros, balance_after_micros, owed_after_micros, counter_account,
        'forged', note, created_at, previous_hash, hash
    FROM wallet_entries WHERE {{org}} AND entry_no = 3
"""
ENTRY = "UPDATE wallet_entries SET {change} WHERE {{org}} AND entry_no = {number}"
WALLET = "UPDATE wallets SET {change} WHERE {{org}}"


def entry(number, change):
    return (ENTRY.format(number=number, change=change),)


def row(change):
    return (WALLET.format(change=change),)


def renumber(first, by):
    """Return updates that move entry numbers in two steps, to avoid duplicate keys."""
    update = "UPDATE wallet_entries SET entry_no = entry_no"
    moved = f"{update} + 1000 WHERE {{org}} AND entry_no >= {first}"
    back = f"{update} - 1000 + {by} WHERE {{org}} AND entry_no >= 1000"
    return moved, back


TAMPERING = {
    "an entry's text changed": (entry(3, "note = 'x'"), [(3, What.CONTENT)]),
    "an entry's instant changed by a microsecond": (
        entry(3, "created_at = created_at + interval '1 microsecond'"),
        [(3, What.CONTENT)],
    ),
    "an entry's amount changed": (
        entry(3, "amount_micros = 9, balance_after_micros = balance_after_micros + 1"),
        [(3, What.CONTENT), (3, What.OPERATION), (4, What.BALANCE_BEFORE), (5, What.SUM)],
    ),
    "an entry's balances moved": (
        entry(
            3,
            "balance_before_micros = balance_before_micros + 1,"
            " balance_after_micros = balance_after_micros + 1",
        ),
        [
            (3, What.CONTENT),
            (3, What.BALANCE_BEFORE),
            (3, What.OPERATION),
            (4, What.BALANCE_BEFORE),
        ],
    ),
    "an entry's owed changed": (
        entry(3, "owed_after_micros = 1"),
        [(3, What.CONTENT), (3, What.OWED), (3, What.OPERATION), (4, What.OWED)],
    ),
    "an entry changed with its hash": ((FORGED_HASH.format(number=3),), [(4, What.LINK)]),
    "the newest entry changed with its hash": (
        (FORGED_HASH.format(number=5),),
        [(5, What.WALLET_HASH)],
    ),
    "the opening changed": (
        entry(0, "counter_account = 'EUR'"),
        [(0, What.CONTENT), (0, What.WALLET_CURRENCY)],
    ),
    "an entry removed": (
        ("DELETE FROM wallet_entries WHERE {org} AND entry_no = 3",),
        [(3, What.MISSING), (5, What.SUM)],
    ),
    "the opening removed": (
        ("DELETE FROM wallet_entries WHERE {org} AND entry_no = 0",),
        [(0, What.MISSING)],
    ),
    "the newest removed": (
        ("DELETE FROM wallet_entries WHERE {org} AND entry_no = 5",),
        [
            (5, What.WALLET_ENTRY),
            (4, What.WALLET_BALANCE),
            (4, What.WALLET_HASH),
        ],
    ),
    "every entry removed": (("DELETE FROM wallet_entries WHERE {org}",), [(0, What.MISSING)]),
    "an entry removed and the others renumbered": (
        (
            "DELETE FROM wallet_entries WHERE {org} AND entry_no = 3",
            *renumber(4, -1),
            *row("entry_no = 4"),
        ),
        [
            *[(3, What.LINK), (3, What.CONTENT), (3, What.BALANCE_BEFORE)],
            *[(4, What.CONTENT), (4, What.SUM)],
        ],
    ),
    "an entry inserted and the others renumbered": (
        (*renumber(4, 1), COPY_OF_3.format(number=4), *row("entry_no = 6")),
        [
            *[(4, What.LINK), (4, What.CONTENT), (4, What.BALANCE_BEFORE), (4, What.OPERATION)],
            *[(5, What.CONTENT), (5, What.OPERATION)],
            *[(6, What.CONTENT), (6, What.OPERATION), (6, What.SUM)],
        ],
    ),
    "an entry inserted at the end": (
        (COPY_OF_3.format(number=6),),
        [
            *[(6, What.LINK), (6, What.CONTENT), (6, What.BALANCE_BEFORE), (6, What.OPERATION)],
            *[(6, What.WALLET_ENTRY), (6, What.WALLET_BALANCE), (6, What.SUM)],
            (6, What.WALLET_HASH),
        ],
    ),
    "an entry inserted far off": (
        (COPY_OF_3.format(number=9),),
        [
            *[(6, What.MISSING), (9, What.CONTENT), (9, What.OPERATION)],
            *[(9, What.WALLET_ENTRY), (9, What.WALLET_BALANCE), (9, What.SUM)],
            (9, What.WALLET_HASH),
        ],
    ),
    "two entries exchanged": (
        (
            *entry(3, "entry_no = 1003"),
            *entry(4, "entry_no = 3"),
            *entry(1003, "entry_no = 4"),
        ),
        [
            *[(3, What.LINK), (3, What.CONTENT), (3, What.BALANCE_BEFORE)],
            *[(4, What.LINK), (4, What.CONTENT), (4, What.BALANCE_BEFORE), (4, What.OPERATION)],
            *[(5, What.LINK), (5, What.BALANCE_BEFORE)],
        ],
    ),
    "the balance changed": (row("balance_micros = 61"), [(5, What.WALLET_BALANCE)]),
    "held changed": (row("held_micros = 1"), [(5, What.WALLET_HELD)]),
    "owed changed": (row("owed_micros = 1"), [(5, What.WALLET_OWED)]),
    "the debt limit changed": (row("debt_limit_micros = 1"), [(5, What.WALLET_DEBT_LIMIT)]),
    "the currency changed": (row("currency = 'EUR'"), [(0, What.WALLET_CURRENCY)]),
    "the head changed": (row("head_hash = sha256('x')"), [(5, What.WALLET_HASH)]),
    "the wallet put back": (
        row("entry_no = 4, balance_micros = 70"),
        [(5, What.WALLET_ENTRY), (5, What.WALLET_BALANCE)],
    ),
    "the wallet removed": (("DELETE FROM wallets WHERE {org}",), [(5, What.WALLET)]),
    "an operation removed": (
        ("DELETE FROM wallet_operations WHERE {org} AND key = 'k3'",),
        [(3, What.OPERATION)],
    ),
    "an operation's amount changed": (
        ("UPDATE wallet_operations SET amount_micros = 9 WHERE {org} AND key = 'k3'",),
        [(3, What.OPERATION)],
    ),
    "an operation's answer changed": (
        ("UPDATE wallet_operations SET balance_micros = 99 WHERE {org} AND key = 'k3'",),
        [(3, What.OPERATION)],
    ),
}


@pytest.mark.parametrize(("statements", "expected"), TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_found_and_names_the_entry(shared, shared_urls, plain, statements, expected):
    assert found(shared, plain) == []
    tamper(shared_urls, plain, *statements)
    assert found(shared, plain) == expected


def test_sum_of_open_holds_is_compared_with_held(shared, shared_urls, plain):
    reserve(shared, plain, "c1", 30)
    reserve(shared, plain, "c2", 5)
    assert found(shared, plain) == []
    tamper(
        shared_urls,
        plain,
        "UPDATE call_holds SET reserved_micros = 29 WHERE {org} AND call_id = 'c1'",
    )
    (finding,) = verify.verify_ledger(shared.run, organization_id=plain)
    assert str(finding).endswith("wallet's held: expected 34, found 35")


@pytest.mark.parametrize("table", ["payment_references", "call_holds"])
def test_payment_and_hold_must_exist_for_the_money_they_moved(shared, shared_urls, table):
    # Given a refund beyond what is available, and a hold whose release paid the rest
    org = make_organization(shared)
    settle(shared, org, 100)
    reserve(shared, org, "c1", 40)
    settle(shared, org, 100, 100)
    done(shared, holds.release, org, call_id="c1")
    assert found(shared, org) == []
    # When the row is removed, Then every entry that names it is found
    tamper(shared_urls, org, f"DELETE FROM {table} WHERE {{org}}")
    numbers = {"payment_references": [1, 2], "call_holds": [5]}[table]
    assert found(shared, org) == [(number, What.OPERATION) for number in numbers]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payment_references SET moved_micros = moved_micros + 1 WHERE {org}",
        "UPDATE payment_references SET captured_micros = 101 WHERE {org}",
        "UPDATE payment_refunds SET state = 'failed' WHERE {org}",
        "UPDATE payment_disputes SET state = 'won' WHERE {org}",
        "DELETE FROM payment_disputes WHERE {org}",
    ],
)
def test_money_moved_by_a_payment_equals_its_refunds_and_disputes(shared, shared_urls, change):
    # Given a payment of 100, of which 20 were refunded before 30 were disputed
    org = make_organization(shared)
    one = f"P-{secrets.token_hex(6)}"
    about = payment(one, org, 100)
    refund = RefundFacts(f"{one}-R", 20, None, RefundState.COMPLETED, later(1), later(1))
    dispute = DisputeFacts(
        Provider.PAYPAL, f"{one}-D", one, "USD", 30, DisputeState.OPEN, later(9), later(9)
    )
    done(shared, wallet.settle, org, facts=about)
    done(shared, settle_refund, org, payment=about, refund=refund)
    done(shared, settle_dispute, org, facts=dispute)
    assert found(shared, org) == []
    tamper(shared_urls, org, change)
    assert found(shared, org) == [(3, What.PAYMENT)]


def test_payment_of_a_debt_by_a_rebuild_is_backed_by_the_rebuild(shared, shared_urls):
    # Given an outstanding amount and a hold whose row was deleted: a rebuild frees that money and
    # pays
    org = make_organization(shared)
    settle(shared, org, 100)
    reserve(shared, org, "c1", 40)
    settle(shared, org, 100, 100)
    tamper(shared_urls, org, "DELETE FROM call_holds WHERE {org}")
    assert found(shared, org) == [(4, What.WALLET_HELD)]
    rebuild(shared_urls, org)
    assert found(shared, org) == []
    assert [entry.kind for entry in entries(shared, org)][-3:-1] == ["rebuild", "owed_payment"]


def test_wallet_that_is_wholly_gone_is_found_by_its_anchored_head(database, urls):
    kept, gone = make_organization(database), make_organization(database)
    heads = {head.organization_id: head for head in verify.current_heads(database.run)}
    tables = ("wallet_operations", "wallet_entries", "wallets")
    tamper(urls, gone, *[f"DELETE FROM {table} WHERE {{org}}" for table in tables])
    assert found(database) == []
    assert found(database, heads=heads) == [(0, What.ANCHOR), (0, What.WALLET)]
    assert found(database, kept, heads) == []
    assert found(database, gone, heads) == [(0, What.ANCHOR), (0, What.WALLET)]


def test_entries_without_a_wallet_are_found_among_all(database, urls):
    orgs = sorted(make_organization(database) for _ in range(3))
    for org in orgs[::2]:
        tamper(urls, org, "DELETE FROM wallets WHERE {org}")
    findings = list(verify.verify_ledger(database.run))
    assert [finding.organization_id for finding in findings] == orgs[::2]


def test_entries_and_operations_without_an_organization_are_found(database, urls):
    # Given an entry and an operation of organizations that never existed
    make_organization(database)
    with psycopg.connect(driver_url(urls.owner_url)) as superuser:
        superuser.execute(
            "INSERT INTO wallet_entries VALUES ('org_1', 0, 'opening', 'note', 0, 0, 0, 0, 'USD',"
            " 'opening', '', now(), '', sha256(''))"
        )
        superuser.execute(
            "INSERT INTO wallet_operations VALUES ('org_2', 'k', 'debit', 'debit', 1, 'USD', 1, 0,"
            " 0, 0, now())"
        )
    findings = list(verify.verify_ledger(database.run))
    lacking = [one.organization_id for one in findings if one.what is What.WALLET]
    assert lacking == ["org_1", "org_2"]
    assert found(database, "org_2") == [(0, What.WALLET)]


def test_a_cut_tail_is_seen_with_the_heads_and_only_with_them(shared, shared_urls, plain):
    # Given the last two entries cut off, and the wallet made to agree
    head = shared.run(lambda session: session.get_one(Wallet, plain))
    heads = {plain: Head(plain, head.entry_no, head.head_hash)}
    tamper(
        shared_urls,
        plain,
        "DELETE FROM wallet_entries WHERE {org} AND entry_no > 3",
        "UPDATE wallets w SET entry_no = 3, balance_micros = e.balance_after_micros,"
        " head_hash = e.hash FROM wallet_entries e WHERE e.entry_no = 3"
        " AND e.organization_id = w.organization_id AND w.{org}",
    )
    assert found(shared, plain) == []
    assert found(shared, plain, heads) == [(5, What.ANCHOR)]


def test_older_heads_agree_with_a_wallet_that_has_newer_entries(shared, plain):
    head = shared.run(lambda session: session.get_one(Wallet, plain))
    heads = {plain: Head(plain, head.entry_no, head.head_hash)}
    debit(shared, plain, 1)
    assert found(shared, plain, heads) == []


def test_a_wallet_that_is_written_to_meanwhile_has_no_findings(shared, plain, monkeypatch):
    # Given a thread that credits, holds and commits all the time
    monkeypatch.setattr(verify, "PAGE_ENTRIES", 7)
    stop = threading.Event()

    def spend():
        for number in range(1_000):
            if stop.is_set():
                return
            credit(shared, plain, 3)
            reserve(shared, plain, f"w{number}", 2)
            commit(shared, plain, f"w{number}", 1)

    writer = threading.Thread(target=spend)
    writer.start()
    # When the wallet is verified repeatedly, Then it always agrees
    try:
        for _ in range(40):
            assert found(shared, plain) == []
    finally:
        stop.set()
        writer.join()


def test_an_organization_without_a_wallet_is_refused(shared):
    with pytest.raises(WalletNotFound):
        found(shared, "org_nobody")
