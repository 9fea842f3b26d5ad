"""What a wallet must do, in plain Python: read it as a specification.

It is written from docs/ledger.md, never from the SQL that it checks. Times are seconds since the
beginning, and amounts are micros. A refusal is raised before anything changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

AMOUNT_MAX = 10**15
DAYS_30 = 30 * 86_400
#: Freezes that end with the debt that caused them.
SHORTFALLS = ("refund_shortfall", "call_shortfall")
#: The freeze that follows the subscription, which is active for these wallets.
SUBSCRIPTION = "subscription_inactive"
#: The time of a debit that uses the database's clock: every override has ended by then.
DATABASE_CLOCK = float("inf")


class No(Exception):
    """A refusal; nothing was changed."""


class Line(NamedTuple):
    """An entry of the ledger: its amount, and the figures after it."""

    kind: str
    amount: int
    balance: int
    owed: int


@dataclass(frozen=True)
class Answer:
    """The result of an operation; a refusal has no figures."""

    code: str
    replayed: bool = False
    balance: int | None = None
    held: int | None = None
    owed: int | None = None
    entry_no: int | None = None
    #: Further results: the expired calls, the number of lifted freezes, the answers of its rows.
    result: Any = None


@dataclass(frozen=True)
class Hold:
    """The money held for a call, and how the hold ended."""

    status: str
    reserved: int = 0
    expires_at: float = 0
    provider_call: str | None = None
    extensions: int = 0
    extended: int = 0
    captured: int = 0
    released: int = 0
    billed: int | None = None
    shortfall: int = 0


@dataclass
class Purse:
    """One organization's money: entries by key, freezes, outstanding amount.

    Calls are in calls.py.
    """

    currency: str
    balance: int = 0
    owed: int = 0
    debt_limit: int = 0
    lines: list[Line] = field(default_factory=lambda: [Line("opening", 0, 0, 0)])
    holds: dict[str, Hold] = field(default_factory=dict)
    #: Reason and cause of each active freeze, and the end of its override.
    freezes: dict[tuple[str, str], float | None] = field(default_factory=dict)
    #: By key: the first request and its answer.
    firsts: dict[str, tuple[Any, Answer]] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return sum(one.reserved for one in self.holds.values() if one.status == "open")

    @property
    def available(self) -> int:
        return self.balance - self.held

    def copy(self) -> Self:
        return replace(
            self,
            lines=list(self.lines),
            holds=dict(self.holds),
            freezes=dict(self.freezes),
            firsts=dict(self.firsts),
        )

    # -- operations with a key --------------------------------------------------------------------

    def credit(self, key: str, amount: int, currency: str, kind: str, now: float) -> Answer:
        """Add money, which pays the outstanding amount first; allowed while frozen."""
        return self._once(key, ("credit", kind, amount, currency), lambda: self._gain(kind, amount))

    def debit(self, key: str, amount: int, currency: str, now: float) -> Answer:
        """Take from the available money; refused while frozen."""
        return self._once(
            key, ("debit", "debit", amount, currency), lambda: self._spend("debit", amount, now)
        )

    def deduct_asset_cost(self, key: str, amount: int, currency: str, now: float) -> Answer:
        """Debit an asset's cost as `debit` does, also without the debt limit."""
        return self._once(
            key, ("debit", "asset", amount, currency), lambda: self._spend("asset", amount, now)
        )

    def debit_now(self, key: str, amount: int, currency: str, now: float) -> Answer:
        """Debit as `debit` does, at the database's own time."""
        return self.debit(key, amount, currency, DATABASE_CLOCK)

    def correct(self, key: str, amount: int, currency: str, now: float) -> Answer:
        """Correct the balance as an operator does: also while frozen, to the debt limit."""
        kind = "correct credit" if amount > 0 else "correct debit"
        request = (kind, kind, abs(amount), currency)
        answer = self._once(key, request, lambda: self._correct(amount))
        self.follow_subscription()
        return answer

    def _once(self, key: str, request: Any, act: Callable[[], None]) -> Answer:
        """Carry out a key's first request, and repeat its answer for the same request.

        Another request with the same key is refused.
        """
        _, _, amount, currency = request
        if not 1 <= amount <= AMOUNT_MAX:
            raise No("INVALID_AMOUNT")
        if key.startswith("call:"):
            raise No("RESERVED_KEY")
        if key in self.firsts:
            return self._again(key, request)
        self._same_currency(currency)
        act()
        self.firsts[key] = (request, self._ok())
        return self._ok()

    def _again(self, key: str, request: Any) -> Answer:
        first, answer = self.firsts[key]
        if first != request:
            raise No("IDEMPOTENCY_CONFLICT")
        return replace(answer, replayed=True)

    def _gain(self, kind: str, amount: int) -> None:
        self._write(kind, amount, moved=amount)
        self._pay_owed()

    def _spend(self, kind: str, amount: int, now: float) -> None:
        self._may_spend(amount, now)
        self._write(kind, amount, moved=-amount)

    def _correct(self, amount: int) -> None:
        if amount > 0:
            self._gain("BALANCE_CORRECTION", amount)
        elif self.available + amount < -self.debt_limit:
            raise No("INSUFFICIENT_FUNDS")
        else:
            self._write("BALANCE_CORRECTION", -amount, moved=amount)

    # -- payments ---------------------------------------------------------------------------------

    def settle(self, difference: int, cause: str) -> Answer:
        """Add or take back a payment's difference; what cannot be taken is outstanding.

        Money is taken only from what is available above zero.
        """
        if difference > 0:
            self._gain("topup", difference)
        elif difference < 0:
            taken = min(-difference, max(self.available, 0))
            if taken:
                self._write("refund", taken, moved=-taken)
            self._owe(-difference - taken, "refund_shortfall", cause)
        return self._ok(replayed=difference == 0)

    # -- freezes and limits -----------------------------------------------------------------------

    def freeze(self, reason: str, cause: str, now: float) -> Answer:
        """Freeze the wallet; an active freeze stays unchanged, with its override."""
        return Answer("OK", result=self._freeze(reason, cause))

    def unfreeze(self, reason: str, cause: str | None, now: float) -> Answer:
        """Lift one cause of a reason, or all its causes; other reasons stay."""
        return Answer("OK", result=self._lift(reason, cause))

    def freeze_manually(self, now: float) -> Answer:
        self._freeze("manual", "")
        self.follow_subscription()
        return Answer("OK")

    def lift_manually(self, reason: str, now: float) -> Answer:
        if reason == SUBSCRIPTION:
            raise No("FREEZE_FOLLOWS_SUBSCRIPTION")
        if not self._lift(reason):
            raise No("FREEZE_NOT_FOUND")
        self.follow_subscription()
        return Answer("OK")

    def override_manually(self, reason: str, until: float, now: float) -> Answer:
        """Let the wallet spend despite the reason, until the given time and not at it."""
        if not now < until <= now + DAYS_30:
            raise No("INVALID_OVERRIDE")
        active_freezes = [one for one in self.freezes if one[0] == reason]
        if not active_freezes:
            raise No("FREEZE_NOT_FOUND")
        self.freezes.update(dict.fromkeys(active_freezes, until))
        self._write("override", 0)
        self.follow_subscription()
        return Answer("OK")

    def set_debt_limit(self, limit: int, now: float) -> Answer:
        """Set the debt limit, never below the debt; no outstanding amount is paid."""
        if not 0 <= limit <= AMOUNT_MAX:
            raise No("INVALID_AMOUNT")
        if limit == self.debt_limit:
            return self._ok(replayed=True)
        if self.available < -limit:
            raise No("DEBT_ABOVE_LIMIT")
        self.debt_limit = limit
        self._write("debt_limit", 0)
        return self._ok()

    def rebuild(self, now: float) -> Answer:
        """Rebuild the row from entries and holds; in the model they always agree."""
        self._write("rebuild", 0)
        return self._ok()

    # -- helpers ----------------------------------------------------------------------------------

    def _ok(self, *, replayed: bool = False) -> Answer:
        entry_no = len(self.lines) - 1
        return Answer("OK", replayed, self.balance, self.held, self.owed, entry_no)

    def _write(self, kind: str, amount: int, *, moved: int = 0, owed: int = 0) -> None:
        self.balance += moved
        self.owed += owed
        self.lines.append(Line(kind, amount, self.balance, self.owed))

    def _same_currency(self, currency: str) -> None:
        if currency != self.currency:
            raise No("CURRENCY_MISMATCH")

    def _may_spend(self, amount: int, now: float) -> None:
        if any(until is None or until <= now for until in self.freezes.values()):
            raise No("FROZEN_WALLET")
        if amount > self.available:
            raise No("INSUFFICIENT_FUNDS")

    def _pay_owed(self) -> None:
        paid = min(self.owed, self.available)
        if paid <= 0:
            return
        self._write("owed_payment", paid, moved=-paid, owed=-paid)
        if not self.owed:
            for reason in SHORTFALLS:
                self._lift(reason)

    def _owe(self, amount: int, reason: str, cause: str) -> None:
        if amount:
            self._write("owed", amount, owed=amount)
            self._freeze(reason, cause)

    def _freeze(self, reason: str, cause: str) -> bool:
        if (reason, cause) in self.freezes:
            return False
        self.freezes[reason, cause] = None
        self._write("freeze", 0)
        return True

    def _lift(self, reason: str, cause: str | None = None) -> int:
        lifted = [one for one in self.freezes if one[0] == reason and cause in (None, one[1])]
        for one in lifted:
            del self.freezes[one]
            self._write("unfreeze", 0)
        return len(lifted)

    def follow_subscription(self) -> None:
        """Update the freeze of the subscription, which is active in these tests.

        Operator actions and payments do this.
        """
        self._lift(SUBSCRIPTION)
