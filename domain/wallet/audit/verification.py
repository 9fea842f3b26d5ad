"""Verify ledgers: read wallets with their entries and check each wallet's chain.

Each page is read in its own transaction, and only one page is in memory. A wallet is verified in
its state at the start of its verification, even if it changes meanwhile. Its row and its open holds
are therefore read first, in one statement. Entries never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from domain.wallet.audit.chain import (
    Backing,
    Chain,
    Entry,
    Finding,
    Head,
    WalletFacts,
    What,
    find_unbacked,
)
from domain.wallet.ledger import WalletNotFound

#: Runs a function of a session in its own transaction and returns the function's result.
Run = Callable[[Callable[[Session], Any]], Any]

#: Entries read by one statement, which then takes far less than its limit of five seconds.
PAGE_ENTRIES = 5_000
#: Heads read by one statement.
PAGE_HEADS = 5_000
#: Payments computed by one statement, each from its refunds and disputes.
PAGE_PAYMENTS = 1_000

# Finds the next organization that has a wallet, entries or operations. Only the wallet's own
# foreign key ties the other two to an organization, and the wallet's row may have been removed.
# Each part reads one index; min() over a union would read all rows.
_NEXT_ORGANIZATION_SQL = """
    SELECT least(
        (SELECT organization_id FROM wallets WHERE organization_id > :after
         ORDER BY organization_id LIMIT 1),
        (SELECT organization_id FROM wallet_entries WHERE organization_id > :after
         ORDER BY organization_id LIMIT 1),
        (SELECT organization_id FROM wallet_operations WHERE organization_id > :after
         ORDER BY organization_id LIMIT 1))
"""
# One statement, so that the wallet's row, its holds and its newest entry are read at one instant.
_WALLET_SQL = """
    SELECT (SELECT max(entry_no) FROM wallet_entries WHERE organization_id = :org),
        EXISTS (SELECT FROM wallet_operations WHERE organization_id = :org),
        w.currency, w.balance_micros, w.held_micros, w.owed_micros, w.debt_limit_micros,
        w.entry_no, w.head_hash,
        (SELECT coalesce(sum(reserved_micros), 0)::bigint FROM call_holds
         WHERE organization_id = :org AND status = 'open')
    FROM (SELECT) AS always LEFT JOIN wallets w ON w.organization_id = :org
"""
# LATERAL with LIMIT reads the index once for each entry, whatever the planner estimates.
_ENTRIES_SQL = r"""
    SELECT e.organization_id, e.entry_no, e.kind, e.direction, e.amount_micros,
        e.balance_after_micros, e.owed_after_micros, e.counter_account, e.operation_key, e.note,
        (extract(epoch FROM e.created_at) * 1000000)::bigint, e.balance_before_micros,
        e.previous_hash, e.hash,
        o.operation, o.amount_micros, o.entry_no, o.balance_micros, o.owed_micros,
        CASE WHEN e.direction = 'note' OR o.operation IS NOT NULL THEN false
             WHEN e.operation_key LIKE 'payment:%' THEN EXISTS (
                 SELECT FROM payment_references p
                 WHERE p.organization_id = e.organization_id
                   AND p.provider = split_part(e.operation_key, ':', 2)
                   AND p.kind = split_part(e.operation_key, ':', 3)
                   AND p.external_id = substring(
                       e.operation_key FROM '^payment:[^:]*:[^:]*:(.*):\d+:\d+$'))
             WHEN e.kind = 'owed_payment' AND e.operation_key LIKE 'call:%' THEN EXISTS (
                 SELECT FROM call_holds h
                 WHERE h.organization_id = e.organization_id
                   AND h.call_id = substring(
                       e.operation_key FROM '^call:(.*):(released|expired)$'))
             WHEN e.kind = 'owed_payment' AND e.operation_key LIKE 'rebuild:%' THEN EXISTS (
                 SELECT FROM wallet_entries r
                 WHERE r.organization_id = e.organization_id AND r.entry_no = e.entry_no - 1
                   AND r.kind = 'rebuild' AND r.operation_key = e.operation_key)
             ELSE false END
    FROM (SELECT * FROM wallet_entries
          WHERE organization_id = :org AND entry_no BETWEEN :first AND :last
          ORDER BY entry_no LIMIT :page) e
    LEFT JOIN LATERAL (
        SELECT * FROM wallet_operations
        WHERE organization_id = e.organization_id AND key = e.operation_key
          AND e.direction <> 'note' LIMIT 1) o ON true
    ORDER BY e.entry_no
"""
# Reads the amount that a payment has moved, and the sum of its row, refunds and disputes.
_PAYMENTS_SQL = """
    SELECT provider, kind, external_id, moved_micros,
        captured_micros - payment_taken(provider, kind, external_id)
    FROM payment_references
    WHERE organization_id = :org
      AND (provider, kind, external_id) > (:provider, :kind, :external_id)
    ORDER BY provider, kind, external_id LIMIT :page
"""
#: How many of the first columns of _ENTRIES_SQL belong to the entry itself.
_ENTRY_COLUMNS = len(Entry._fields)


@dataclass
class Tally:
    """How many wallets, entries and findings a verification has counted so far."""

    wallets: int = 0
    entries: int = 0
    findings: int = 0


def verify_ledger(
    run: Run,
    *,
    organization_id: str | None = None,
    heads: Mapping[str, Head] | None = None,
    tally: Tally | None = None,
) -> Iterator[Finding]:
    """Verify one wallet, or all, and yield each finding at once.

    `heads` are the anchored heads. Without them, entries that were removed from the end cannot be
    detected. `tally` is updated after each page. Raises: WalletNotFound if the organization has no
    wallet, entry, operation or anchored head.
    """
    tally = tally if tally is not None else Tally()
    heads = heads or {}
    unseen = {organization_id} & set(heads) if organization_id else set(heads)
    for org in [organization_id] if organization_id else _organizations(run):
        anchored = heads.get(org)
        unseen.discard(org)
        for finding in _verify_wallet(run, org, anchored, tally):
            tally.findings += 1
            yield finding
    # If a wallet was removed completely, its anchored head is the only trace.
    for org in sorted(unseen):
        for finding in Chain(org, heads[org]).end(None):
            tally.findings += 1
            yield finding


def current_heads(run: Run) -> Iterator[Head]:
    """Yield every wallet's newest entry with its hash, ordered by organization."""
    last_organization_id = ""
    while True:
        page = run(partial(_read_heads_page, last_organization_id))
        yield from page
        if len(page) < PAGE_HEADS:
            return
        last_organization_id = page[-1].organization_id


def entries_to_verify(session: Session, organization_id: str | None = None) -> int:
    """Return the number of entries according to the wallets' rows."""
    total = session.execute(
        text(
            "SELECT coalesce(sum(entry_no + 1), 0)::bigint FROM wallets"
            " WHERE CAST(:org AS text) IS NULL OR organization_id = :org"
        ),
        {"org": organization_id},
    ).scalar_one()
    return int(total)


def _verify_wallet(run: Run, org: str, anchored: Head | None, tally: Tally) -> Iterator[Finding]:
    last_no, has_operations, wallet = run(partial(_read_wallet, org))
    if last_no is None and not has_operations and wallet is None and anchored is None:
        raise WalletNotFound(org)
    chain = Chain(org, anchored)
    first_no = 0
    while last_no is not None and first_no <= last_no:
        page = run(partial(_read_entries, org, first_no, last_no))
        if not page:
            break
        for row in page:
            entry = Entry._make(row[:_ENTRY_COLUMNS])
            yield from chain.take(entry)
            if entry.direction != "note":
                unbacked = find_unbacked(entry, Backing._make(row[_ENTRY_COLUMNS:]))
                if unbacked is not None:
                    yield unbacked
        tally.entries += len(page)
        first_no = chain.next_no
    yield from chain.end(wallet)
    yield from _verify_payments(run, org, max(chain.next_no - 1, 0))
    tally.wallets += 1


def _verify_payments(run: Run, org: str, last: int) -> Iterator[Finding]:
    last_payment = ("", "", "")
    while True:
        page = run(partial(_read_payments, org, last_payment))
        for *key, moved, due in page:
            if moved != due:
                name = ":".join(key)
                yield Finding(org, last, What.PAYMENT, f"{name} {due}", f"{moved}")
        if len(page) < PAGE_PAYMENTS:
            return
        last_payment = tuple(page[-1][:3])


def _organizations(run: Run) -> Iterator[str]:
    last_organization_id = ""
    while True:
        org = run(partial(_next_organization, last_organization_id))
        if org is None:
            return
        yield org
        last_organization_id = org


def _next_organization(last_organization_id: str, session: Session) -> str | None:
    org: str | None = session.execute(
        text(_NEXT_ORGANIZATION_SQL), {"after": last_organization_id}
    ).scalar_one()
    return org


def _read_wallet(org: str, session: Session) -> tuple[int | None, bool, WalletFacts | None]:
    last, has_operations, *facts = session.execute(text(_WALLET_SQL), {"org": org}).one()
    return last, has_operations, WalletFacts(*facts) if facts[0] is not None else None


def _read_entries(org: str, first: int, last: int, session: Session) -> list[Any]:
    values = {"org": org, "first": first, "last": last, "page": PAGE_ENTRIES}
    return list(session.execute(text(_ENTRIES_SQL), values).all())


def _read_payments(org: str, last_payment: tuple[str, str, str], session: Session) -> list[Any]:
    values: dict[str, Any] = dict(
        zip(("provider", "kind", "external_id"), last_payment, strict=True)
    )
    values |= {"org": org, "page": PAGE_PAYMENTS}
    return list(session.execute(text(_PAYMENTS_SQL), values).all())


def _read_heads_page(last_organization_id: str, session: Session) -> list[Head]:
    rows = session.execute(
        text(
            "SELECT organization_id, entry_no, head_hash FROM wallets"
            " WHERE organization_id > :after ORDER BY organization_id LIMIT :page"
        ),
        {"after": last_organization_id, "page": PAGE_HEADS},
    )
    return [Head(*row) for row in rows]
