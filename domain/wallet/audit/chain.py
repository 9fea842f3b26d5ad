"""Verify that a wallet's entries are unchanged since they were written.

The entries arrive as a stream. Every hash is computed here and not in the database, because the
database may have been manipulated. The functions take plain values and return findings.
domain/wallet/audit/verification.py reads the values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

#: The effect of a direction on the balance, as a multiple of the amount. A note has no effect.
_SIGNS = {"credit": 1, "debit": -1}
#: The effect of an entry's kind on the outstanding amount, as a multiple of its amount.
_OWED_SIGNS = {"owed": 1, "owed_payment": -1}
#: Operations whose first entry has exactly the requested amount. A commit may charge less.
_EXACT_OPERATIONS = frozenset({"credit", "debit", "correct"})
#: The end of the note that records a new debt limit.
_DEBT_LIMIT_SET = re.compile(r" to (\d+)\)$")


class What(StrEnum):
    """What a finding is about."""

    MISSING = "entry missing"
    ORDER = "order of entries"
    OPENING = "opening entry"
    CONTENT = "content against its hash"
    LINK = "link to the entry before"
    BALANCE_BEFORE = "balance before"
    BALANCE_AFTER = "balance after"
    OWED = "owed after"
    OPERATION = "operation"
    ANCHOR = "anchored hash"
    WALLET = "wallet"
    WALLET_ENTRY = "wallet's newest entry"
    WALLET_BALANCE = "wallet's balance"
    WALLET_OWED = "wallet's owed"
    WALLET_HASH = "wallet's hash"
    WALLET_HELD = "wallet's held"
    WALLET_CURRENCY = "wallet's currency"
    WALLET_DEBT_LIMIT = "wallet's debt limit"
    SUM = "sum of entries"
    PAYMENT = "what a payment moved"


@dataclass(frozen=True)
class Finding:
    """A difference that a verification found; `entry_no` is the entry where it shows."""

    organization_id: str
    entry_no: int
    what: What
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.organization_id} entry {self.entry_no}: {self.what}:"
            f" expected {self.expected}, found {self.found}"
        )


class Head(NamedTuple):
    """A wallet's newest entry at some instant, and its hash."""

    organization_id: str
    entry_no: int
    hash: bytes


class Entry(NamedTuple):
    """One line of the ledger, as the chain's hash covers it."""

    organization_id: str
    entry_no: int
    kind: str
    direction: str
    amount_micros: int
    balance_after_micros: int
    owed_after_micros: int
    counter_account: str
    operation_key: str
    note: str
    created_at_micros: int
    #: The hash covers the fields above. Of the fields below, it covers only `previous_hash`.
    balance_before_micros: int
    previous_hash: bytes
    hash: bytes


class Backing(NamedTuple):
    """The operation row with an entry's key; all fields None without such a row."""

    operation: str | None
    amount_micros: int | None
    entry_no: int | None
    balance_micros: int | None
    owed_micros: int | None
    #: Whether the key names no operation, but an existing payment, hold or rebuild.
    otherwise: bool


class WalletFacts(NamedTuple):
    """A wallet's row and the sum of its open holds, read at one instant."""

    currency: str
    balance_micros: int
    held_micros: int
    owed_micros: int
    debt_limit_micros: int
    entry_no: int
    head_hash: bytes
    open_holds_micros: int


def entry_hash(entry: Entry) -> bytes:
    """Compute the hash that an entry must have, from its fields and its previous hash.

    Source: docs/ledger.md, "The chain".
    """
    content = bytearray(entry.previous_hash)
    for field in entry[:11]:
        raw = field.encode() if isinstance(field, str) else b"%d" % field
        content += len(raw).to_bytes(4, "big")
        content += raw
    return sha256(content).digest()


class Chain:
    """The verification of one wallet's entries, in order from the first.

    The verification needs constant memory. After a finding, it continues from the values of the
    entry at fault. One change is therefore reported once, and not again at every later entry.
    """

    def __init__(self, organization_id: str, anchored: Head | None = None) -> None:
        self.organization_id = organization_id
        #: The number that the next entry must have.
        self.next_no = 0
        self._anchored = anchored
        self._balance: int | None = 0
        self._owed: int | None = 0
        self._sum = 0
        self._hash: bytes | None = b""
        self._currency: str | None = None
        self._debt_limit: str = "0"

    def take(self, entry: Entry) -> list[Finding]:
        """Compare the next entry with all entries before it."""
        findings: list[Finding] = []
        if entry.entry_no < self.next_no or entry.organization_id != self.organization_id:
            expected = f"{self.organization_id} entry {self.next_no}"
            actual = f"{entry.organization_id} entry {entry.entry_no}"
            return [self._finding(entry.entry_no, What.ORDER, expected, actual)]
        if entry.entry_no > self.next_no:
            findings.append(self._missing_finding(entry.entry_no))
            # The amounts of the missing entries are unknown, so the comparisons start again after
            # them.
            self._hash = self._balance = self._owed = None
        if entry.entry_no == 0:
            findings += self._check_opening(entry)
        findings += self._check_hashes(entry)
        moved = _SIGNS.get(entry.direction, 0) * entry.amount_micros
        findings += self._check_figures(entry, moved)
        if entry.kind == "debt_limit":
            limit = _DEBT_LIMIT_SET.search(entry.note)
            self._debt_limit = limit[1] if limit else "what its note says"
        self.next_no = entry.entry_no + 1
        self._hash = entry.hash
        self._balance = entry.balance_after_micros
        self._owed = entry.owed_after_micros
        self._sum += moved
        return findings

    def end(self, wallet: WalletFacts | None) -> list[Finding]:
        """Compare the wallet's row and the anchored head with the entries."""
        last = self.next_no - 1
        findings: list[Finding] = []
        if self._anchored is not None and last < self._anchored.entry_no:
            findings.append(
                self._finding(
                    self._anchored.entry_no,
                    What.ANCHOR,
                    _short(self._anchored.hash),
                    f"nothing after entry {last}" if last >= 0 else "no entry",
                )
            )
        if wallet is None:
            return [*findings, self._finding(max(last, 0), What.WALLET, "a wallet", "none")]
        if last < 0:
            numbers = f"entries 0 to {wallet.entry_no}"
            return [*findings, self._finding(0, What.MISSING, numbers, "none")]
        if wallet.entry_no != last:
            disputed = max(wallet.entry_no, last)
            findings += self._find_difference(disputed, What.WALLET_ENTRY, last, wallet.entry_no)
        findings += self._find_difference(
            last, What.WALLET_BALANCE, self._balance, wallet.balance_micros
        )
        findings += self._find_difference(last, What.SUM, self._balance, self._sum)
        findings += self._find_difference(last, What.WALLET_OWED, self._owed, wallet.owed_micros)
        findings += self._find_difference(
            last, What.WALLET_HELD, wallet.open_holds_micros, wallet.held_micros
        )
        findings += self._find_difference(
            last, What.WALLET_DEBT_LIMIT, self._debt_limit, str(wallet.debt_limit_micros)
        )
        if self._hash != wallet.head_hash:
            hashes = (_short(self._hash or b""), _short(wallet.head_hash))
            findings.append(self._finding(last, What.WALLET_HASH, *hashes))
        if self._currency is not None:
            findings += self._find_difference(
                0, What.WALLET_CURRENCY, self._currency, wallet.currency
            )
        return findings

    def _missing_finding(self, number: int) -> Finding:
        first, last = self.next_no, number - 1
        missing = f"entry {first}" if first == last else f"entries {first} to {last}"
        return self._finding(first, What.MISSING, missing, f"entry {number}")

    def _check_opening(self, entry: Entry) -> list[Finding]:
        self._currency = entry.counter_account
        if (entry.kind, entry.direction, entry.amount_micros) == ("opening", "note", 0):
            return []
        actual = f"{entry.kind} {entry.direction} {entry.amount_micros}"
        return [self._finding(0, What.OPENING, "opening note 0", actual)]

    def _check_hashes(self, entry: Entry) -> list[Finding]:
        findings: list[Finding] = []
        if self._hash is not None and entry.previous_hash != self._hash:
            hashes = (_short(self._hash), _short(entry.previous_hash))
            findings.append(self._finding(entry.entry_no, What.LINK, *hashes))
        computed = entry_hash(entry)
        if computed != entry.hash:
            hashes = (_short(computed), _short(entry.hash))
            findings.append(self._finding(entry.entry_no, What.CONTENT, *hashes))
        head = self._anchored
        if head is not None and head.entry_no == entry.entry_no and head.hash != entry.hash:
            hashes = (_short(head.hash), _short(entry.hash))
            findings.append(self._finding(entry.entry_no, What.ANCHOR, *hashes))
        return findings

    def _check_figures(self, entry: Entry, moved: int) -> list[Finding]:
        number, balance_before = entry.entry_no, entry.balance_before_micros
        findings = self._find_difference(number, What.BALANCE_BEFORE, self._balance, balance_before)
        findings += self._find_difference(
            number, What.BALANCE_AFTER, balance_before + moved, entry.balance_after_micros
        )
        if self._owed is not None:
            owed = self._owed + _OWED_SIGNS.get(entry.kind, 0) * entry.amount_micros
            findings += self._find_difference(number, What.OWED, owed, entry.owed_after_micros)
        return findings

    def _find_difference(
        self, number: int, what: What, expected: object, actual: object
    ) -> list[Finding]:
        """Return a finding if the values differ; None as expected matches any actual."""
        if expected is None or expected == actual:
            return []
        return [self._finding(number, what, str(expected), str(actual))]

    def _finding(self, number: int, what: What, expected: str, actual: str) -> Finding:
        return Finding(self.organization_id, number, what, expected, actual)


def find_unbacked(entry: Entry, backing: Backing) -> Finding | None:
    """Report an entry whose key names nothing that explains the moved money.

    The key names an operation, a payment that was settled, a hold that was given back, or a
    rebuild. If it names an operation, the entry must also agree with that operation's recorded
    result.
    """
    if entry.direction not in _SIGNS or backing.otherwise:
        return None
    place = (entry.organization_id, entry.entry_no, What.OPERATION)
    if backing.operation is None or backing.entry_no is None:
        return Finding(*place, f"a row with key {entry.operation_key}", "none")
    if backing.entry_no < entry.entry_no:
        return Finding(
            *place, f"its last entry at {entry.entry_no} or later", f"{backing.entry_no}"
        )
    if backing.entry_no == entry.entry_no:
        figures = (entry.balance_after_micros, entry.owed_after_micros)
        expected = (backing.balance_micros, backing.owed_micros)
        if figures != expected:
            return Finding(
                *place,
                f"balance {figures[0]}, owed {figures[1]}",
                f"balance {expected[0]}, owed {expected[1]}",
            )
    must_be_exact = backing.operation in _EXACT_OPERATIONS and entry.kind != "owed_payment"
    if must_be_exact and backing.amount_micros != entry.amount_micros:
        return Finding(*place, f"amount {entry.amount_micros}", f"amount {backing.amount_micros}")
    return None


def _short(raw: bytes) -> str:
    return raw.hex()[:16] or "empty"
