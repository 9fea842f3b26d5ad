"""The model of all wallets together: operations on several wallets, and payments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.model.calls import Wallet
from tests.model.model import AMOUNT_MAX, Answer, No


@dataclass(frozen=True)
class Operation:
    """An operation by name. `org` is its wallet; None if its values name the wallets."""

    name: str
    org: str | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Payment:
    """A provider's cumulative facts. Only `kept` computes the resulting amount."""

    org: str
    captured: int = 0
    refunded: int = 0

    @property
    def kept(self) -> int:
        """The part of the payment that is ours, and so must have moved."""
        return max(self.captured - self.refunded, 0)


@dataclass
class Books:
    """Every wallet, and the payments. A payment belongs to one organization."""

    wallets: dict[str, Wallet]
    payments: dict[str, Payment] = field(default_factory=dict)

    def do(self, operation: Operation, now: float) -> Answer:
        """Carry out an operation and return its answer, which may be a refusal."""
        place: Any = self.wallets[operation.org] if operation.org else self
        try:
            return getattr(place, operation.name)(**operation.values, now=now)
        except No as no:
            return Answer(str(no))

    def copy(self) -> Books:
        """Return an independent copy of the books."""
        wallets = {org: wallet.copy() for org, wallet in self.wallets.items()}
        return Books(wallets, dict(self.payments))

    def debit_many(self, rows: tuple[Operation, ...], now: float) -> Answer:
        """Debit each row separately, in order; a refused row affects no other."""
        return Answer("OK", result=tuple(self.do(row, now) for row in rows))

    def settle(self, org: str, **facts: Any) -> Answer:
        """Settle as `settle_alone` does, and update the entitlement with it."""
        answer = self.settle_alone(org, **facts)
        self.wallets[org].follow_subscription()
        return answer

    def settle_alone(
        self, org: str, payment: str, captured: int, refunded: int, currency: str, now: float
    ) -> Answer:
        """Move the difference that the largest facts so far make, in any order."""
        if not (0 <= captured <= AMOUNT_MAX and 0 <= refunded <= AMOUNT_MAX):
            raise No("INVALID_AMOUNT")
        if currency != self.wallets[org].currency:
            raise No("CURRENCY_MISMATCH")
        before = self.payments.get(payment, Payment(org))
        if before.org != org:
            raise No("IDEMPOTENCY_CONFLICT")
        after = replace(
            before,
            captured=max(before.captured, captured),
            refunded=max(before.refunded, refunded),
        )
        self.payments[payment] = after
        return self.wallets[org].settle(after.kept - before.kept, payment)
