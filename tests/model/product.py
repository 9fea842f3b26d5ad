"""The same operations in the product, with their answers in the model's form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from base.enums import FreezeReason, Provider
from base.facts import PaymentFacts
from base.operators import Operator
from base.outcomes import Refused
from db.busy import DatabaseBusy
from db.engine import Database
from domain import operator_actions
from domain.payments import payments
from domain.wallet import assets, debits, holds
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallets
from domain.wallet.debits import Debit
from domain.wallet.ledger import WalletOutcome
from tests.domain.support import later
from tests.model.books import Operation
from tests.model.model import Answer

#: The operator of manual actions, and the reason.
ANN = Operator("ann", "test")
#: How often an operation is repeated that timed out waiting for a lock, and so did nothing.
_TRIES_MAX = 20


@dataclass(frozen=True)
class Product:
    """Carries out operations as the application, as the owner, or by a combined debit."""

    database: Database
    owner: Database

    def do(self, operation: Operation, now: float) -> Answer:
        """Carry out an operation in its own transaction and return its answer."""
        for _ in range(_TRIES_MAX):
            try:
                return self._do(operation, later(now))
            except DatabaseBusy:
                continue
            except Refused as refused:
                return Answer(refused.code)
        raise AssertionError(f"never carried out: {operation}")

    def _do(self, operation: Operation, now: datetime) -> Answer:
        if operation.name == "debit_now":
            return _answer(debits.debit_now(self.database, _debit(operation)))
        database = self.owner if operation.name == "rebuild" else self.database
        act: Any = getattr(_Acts, operation.name)
        values = dict(operation.values)
        if operation.org:
            values["org"] = operation.org
        found = database.run(partial(act, now=now, **values))
        return _answer(found) if isinstance(found, WalletOutcome) else found


class _Acts:
    """One function for each operation, which is called in a transaction."""

    @staticmethod
    def credit(s: Session, org: str, amount: int, now: datetime, **more: Any) -> WalletOutcome:
        return wallets.credit(s, org, amount_micros=amount, now=now, **more)

    @staticmethod
    def debit(s: Session, org: str, amount: int, now: datetime, **more: Any) -> WalletOutcome:
        return wallets.debit(s, org, amount_micros=amount, now=now, **more)

    @staticmethod
    def debit_many(s: Session, rows: tuple[Operation, ...], now: datetime) -> Answer:
        found = debits.debit_many(s, [_debit(row) for row in rows], now)
        return Answer("OK", result=tuple(map(_answer, found)))

    @staticmethod
    def deduct_asset_cost(s: Session, org: str, amount: int, now: datetime, **more: Any) -> Any:
        return assets.deduct_asset_cost(
            s, org, amount_micros=amount, asset="+15005550006", now=now, **more
        )

    @staticmethod
    def correct(s: Session, org: str, amount: int, now: datetime, **more: Any) -> WalletOutcome:
        return operator_actions.correct_manually(
            s, org, amount_micros=amount, now=now, operator=ANN, **more
        )

    @staticmethod
    def settle(s: Session, now: datetime, **values: Any) -> WalletOutcome:
        return payments.record_payment(s, _facts(**values), now)

    @staticmethod
    def settle_alone(s: Session, org: str, now: datetime, **values: Any) -> WalletOutcome:
        return wallets.settle(s, org, _facts(org, **values), now)

    @staticmethod
    def freeze(s: Session, org: str, reason: str, cause: str, now: datetime) -> Answer:
        placed = wallet_freezes.freeze(
            s, org, FreezeReason(reason), cause=cause, now=now, operator=ANN
        )
        return Answer("OK", result=placed)

    @staticmethod
    def unfreeze(s: Session, org: str, reason: str, cause: str | None, now: datetime) -> Answer:
        lifted = wallet_freezes.unfreeze(
            s, org, FreezeReason(reason), cause=cause, now=now, operator=ANN
        )
        return Answer("OK", result=lifted)

    @staticmethod
    def freeze_manually(s: Session, org: str, now: datetime) -> Answer:
        operator_actions.freeze_manually(s, org, now=now, operator=ANN)
        return Answer("OK")

    @staticmethod
    def lift_manually(s: Session, org: str, reason: str, now: datetime) -> Answer:
        operator_actions.lift_manually(s, org, FreezeReason(reason), now=now, operator=ANN)
        return Answer("OK")

    @staticmethod
    def override_manually(s: Session, org: str, reason: str, until: float, now: datetime) -> Answer:
        operator_actions.override_manually(
            s, org, FreezeReason(reason), until=later(until), now=now, operator=ANN
        )
        return Answer("OK")

    @staticmethod
    def set_debt_limit(s: Session, org: str, limit: int, now: datetime) -> WalletOutcome:
        return operator_actions.set_debt_limit_manually(
            s, org, limit_micros=limit, now=now, operator=ANN
        )

    @staticmethod
    def rebuild(s: Session, org: str, now: datetime) -> WalletOutcome:
        return wallets.rebuild(s, org, operator=ANN, now=now)

    @staticmethod
    def reserve(
        s: Session, org: str, call: str, provider_call: str | None, amount: int, currency: str,
        expires_at: float, now: datetime,
    ) -> WalletOutcome:  # fmt: skip
        return holds.reserve(
            s,
            org,
            call_id=call,
            provider_call_id=provider_call,
            amount_micros=amount,
            currency=currency,
            expires_at=later(expires_at),
            now=now,
        )

    @staticmethod
    def extend(
        s: Session, org: str, call: str, nth: int, amount: int, expires_at: float, now: datetime
    ) -> WalletOutcome:
        return holds.extend(
            s,
            org,
            call_id=call,
            nth=nth,
            amount_micros=amount,
            expires_at=later(expires_at),
            now=now,
        )

    @staticmethod
    def commit(s: Session, org: str, call: str, amount: int, now: datetime, **more: Any) -> Any:
        return holds.commit(s, org, call_id=call, amount_micros=amount, now=now, **more)

    @staticmethod
    def release(s: Session, org: str, call: str, now: datetime) -> WalletOutcome:
        return holds.release(s, org, call_id=call, now=now)

    @staticmethod
    def expire(s: Session, org: str, calls: tuple[str, ...], now: datetime) -> Answer:
        return Answer("OK", result=tuple(holds.expire(s, org, call_ids=calls, now=now)))


def _facts(org: str, payment: str, captured: int, refunded: int, currency: str) -> PaymentFacts:
    provider, external_id = payment.split(":")
    return PaymentFacts(
        Provider(provider), external_id, org, currency, captured, refunded, ordered=True
    )


def _debit(row: Operation) -> Debit:
    values = row.values
    return Debit(str(row.org), values["key"], values["amount"], values["currency"], "messages")


def _answer(found: WalletOutcome) -> Answer:
    return Answer(
        found.outcome,
        found.replayed,
        found.balance_micros,
        found.held_micros,
        found.owed_micros,
        found.entry_no,
    )
