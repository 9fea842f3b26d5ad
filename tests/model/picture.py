"""The state of the database after a step: its invariants, and all the model knows.

Two statements read all wallets of an example, so that they can run after every step.
"""

from __future__ import annotations

from typing import Any

import psycopg

from domain.wallet.audit.chain import Chain, Entry, WalletFacts
from tests.domain.support import T0
from tests.model.books import Books, Payment
from tests.model.calls import Wallet
from tests.model.model import Hold, Line

_NEW_ENTRIES = """
    SELECT e.organization_id, e.entry_no, e.kind, e.direction, e.amount_micros,
        e.balance_after_micros, e.owed_after_micros, e.counter_account, e.operation_key, e.note,
        (extract(epoch FROM e.created_at) * 1000000)::bigint, e.balance_before_micros,
        e.previous_hash, e.hash
    FROM unnest(%s::text[], %s::bigint[]) AS seen(org, next_no)
    JOIN wallet_entries e ON e.organization_id = seen.org AND e.entry_no >= seen.next_no
    ORDER BY e.organization_id, e.entry_no
"""
_WALLETS = """
    SELECT w.organization_id, w.currency, w.balance_micros, w.held_micros, w.owed_micros,
        w.debt_limit_micros, w.entry_no, w.head_hash, sums.*, held.*, freezes.*, payments.*,
        operations.*,
        (SELECT count(*) FROM jobs j WHERE j.organization_id = w.organization_id),
        md5(concat(w::text, sums::text, held.digest, freezes.digest, payments.digest,
                   operations.keys))
    FROM wallets w,
    LATERAL (SELECT count(*) AS entries, min(entry_no) AS first_no, max(entry_no) AS last_no,
                 sum(CASE direction WHEN 'credit' THEN amount_micros
                     WHEN 'debit' THEN -amount_micros ELSE 0 END) AS sum
             FROM wallet_entries WHERE organization_id = w.organization_id) AS sums,
    LATERAL (SELECT coalesce(sum(reserved_micros) FILTER (WHERE status = 'open'), 0)::bigint,
                 coalesce(jsonb_agg(jsonb_build_array(call_id, status, reserved_micros,
                     extract(epoch FROM expires_at), provider_call_id, extensions, extended_micros,
                     captured_micros, released_micros, billed_micros, shortfall_micros)), '[]'),
                 string_agg(h::text, '|' ORDER BY call_id) AS digest
             FROM call_holds h WHERE organization_id = w.organization_id
            ) AS held(sum, rows, digest),
    LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_array(reason, cause,
                     extract(epoch FROM override_until))) FILTER (WHERE lifted_at IS NULL), '[]'),
                 string_agg(f::text, '|' ORDER BY id) AS digest
             FROM wallet_freezes f WHERE organization_id = w.organization_id
            ) AS freezes(rows, digest),
    LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_array(concat(provider, ':', external_id),
                     captured_micros, refunded_micros, moved_micros)), '[]'),
                 string_agg(p::text, '|' ORDER BY provider, external_id) AS digest
             FROM payment_references p WHERE organization_id = w.organization_id
            ) AS payments(rows, digest),
    LATERAL (SELECT array_agg(key ORDER BY key)
             FROM wallet_operations WHERE organization_id = w.organization_id) AS operations(keys)
    WHERE w.organization_id = ANY (%s)
"""
#: The columns of `_NEW_ENTRIES` belong to an entry; this many of `_WALLETS` belong to the row.
_ROW_COLUMNS = 8


class Picture:
    """All wallets of one example as the database shows them, with all their entries."""

    def __init__(self, connection: psycopg.Connection[Any], orgs: list[str]) -> None:
        self._connection = connection
        self._chains = {org: Chain(org) for org in orgs}
        self.lines: dict[str, list[Line]] = {org: [] for org in orgs}
        self.wallets: dict[str, dict[str, Any]] = {}
        self.payments: dict[str, tuple[Payment, int]] = {}
        #: State that must not change at all after a refusal.
        self.digest: dict[str, str] = {}
        self.jobs: dict[str, int] = {}

    def refresh(self) -> None:
        """Read new entries and all wallets, and check the invariants."""
        orgs = list(self._chains)
        seen = [self._chains[org].next_no for org in orgs]
        for row in self._connection.execute(_NEW_ENTRIES, (orgs, seen)):
            entry = Entry._make(row)
            findings = self._chains[entry.organization_id].take(entry)
            assert not findings, findings
            self.lines[entry.organization_id].append(
                Line(
                    entry.kind,
                    entry.amount_micros,
                    entry.balance_after_micros,
                    entry.owed_after_micros,
                )
            )
        self.payments = {}
        for row in self._connection.execute(_WALLETS, (orgs,)):
            self._wallet(row)
        assert set(self.wallets) == set(orgs)

    def _wallet(self, row: Any) -> None:
        org, currency, balance, held, owed, limit, entry_no, head_hash = row[:_ROW_COLUMNS]
        entries, first_no, last_no, total, in_holds, holds, _, freezes, _, payments, _ = row[8:19]
        keys, jobs, digest = row[19:]
        assert balance == total, f"balance {balance} is not the sum of the entries, {total}"
        assert held == in_holds, f"held {held} is not the sum of the open holds, {in_holds}"
        assert (first_no, last_no, entries) == (0, entry_no, entry_no + 1), "a gap in the numbers"
        assert balance - held >= -limit, "available is below the debt limit"
        assert owed == 0 or balance <= held, "something is owed although there is money"
        facts = WalletFacts(
            currency, balance, held, owed, limit, entry_no, bytes(head_hash), in_holds
        )
        findings = self._chains[org].end(facts)
        assert not findings, findings
        self.wallets[org] = {
            "figures": (currency, balance, held, owed, limit),
            "holds": {one[0]: Hold(*one[1:3], _seconds(one[3]), *one[4:]) for one in holds},
            "freezes": {(one[0], one[1]): _seconds(one[2]) for one in freezes},
            "keys": set(keys or ()),
        }
        for name, captured, refunded, moved in payments:
            self.payments[name] = Payment(org, captured, refunded), moved
        self.digest[org] = digest
        self.jobs[org] = jobs

    def shows(self, books: Books) -> list[str]:
        """List the differences between the database and the model."""
        found = []
        for org, wallet in books.wallets.items():
            if self.lines[org] != wallet.lines:
                found.append(f"{org} entries {self.lines[org]}, not {wallet.lines}")
            for name, expected in _parts(wallet).items():
                if self.wallets[org][name] != expected:
                    found.append(f"{org} {name} {self.wallets[org][name]}, not {expected}")
        expected = {name: (one, one.kept) for name, one in books.payments.items()}
        if self.payments != expected:
            found.append(f"payments {self.payments}, not {expected}")
        return found


def _parts(wallet: Wallet) -> dict[str, Any]:
    figures = (wallet.currency, wallet.balance, wallet.held, wallet.owed, wallet.debt_limit)
    return {
        "figures": figures,
        "holds": wallet.holds,
        "freezes": wallet.freezes,
        "keys": set(wallet.firsts),
    }


def _seconds(instant: float | None) -> float | None:
    return None if instant is None else float(instant) - T0.timestamp()
