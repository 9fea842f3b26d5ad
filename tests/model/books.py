"""The model of all wallets together: what touches several of them, and operations as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.model.calls import Wallet
from tests.model.model import AMOUNT_MAX, Answer, No


@dataclass(frozen=True)
class Operation:
    """A request by name; `org` is the wallet it is for, None where it names its wallets itself."""

    name: str
    org: str | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Payment:
    """A provider's cumulative facts. What they come to is decided in `kept` alone."""

    org: str
    captured: int = 0
    refunded: int = 0

    @property
    def kept(self) -> int:
        """What of the payment is ours, and so has to have moved."""
        return max(self.captured - self.refunded, 0)


@dataclass
class Books:
    """Every wallet, and the payments, which belong to one organization in the whole system."""

    wallets: dict[str, Wallet]
    payments: dict[str, Payment] = field(default_factory=dict)

    def do(self, operation: Operation, now: float) -> Answer:
        """This function will carry an operation out and give its answer; a refusal is one."""
        place: Any = self.wallets[operation.org] if operation.org else self
        try:
            return getattr(place, operation.name)(**operation.values, now=now)
        except No as no:
            return Answer(str(no))

    def copy(self) -> Books:
        """This function will give the same books, which do not follow these any further."""
        wallets = {org: wallet.copy() for org, wallet in self.wallets.items()}
        return Books(wallets, dict(self.payments))

    def debit_many(self, rows: tuple[Operation, ...], now: float) -> Answer:
        """Each row as a debit alone, in the order received; one refused takes no other with it."""
        return Answer("OK", told=tuple(self.do(row, now) for row in rows))

    def settle(self, org: str, **facts: Any) -> Answer:
        """As settle_alone; the posture is brought in line in the same transaction."""
        answer = self.settle_alone(org, **facts)
        self.wallets[org].follow_subscription()
        return answer

    def settle_alone(
        self, org: str, payment: str, captured: int, refunded: int, currency: str, now: float
    ) -> Answer:
        """Moves the difference that the largest facts seen so far make: order cannot matter."""
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
