"""The ledger's door: how one of its functions in SQL is called, and what is done about its answer.

A refusal is an answer (`outcome`), not an exception.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from base.money import AMOUNT_MICROS_MAX
from base.outcomes import Refused
from db.engine import forget
from db.models import Wallet
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION

#: A parameter as it is written here, and not a cast.
_PARAMETER = re.compile(r"(?<!:):(\w+)")
#: By the driver too: it is asked after every call's bill and every credit.
_NEWEST = (
    "SELECT kind, operation_key FROM wallet_entries"
    " WHERE organization_id = %(org)s AND entry_no = %(entry_no)s"
)


@dataclass(frozen=True)
class WalletOutcome:
    """What an operation came to: "OK" or the refusal's code; a replay answers as the first time.

    One without figures was answered before the ledger was asked.
    """

    outcome: str
    replayed: bool
    entry_no: int | None = None
    balance_micros: int | None = None
    held_micros: int | None = None
    owed_micros: int | None = None
    available_before_micros: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the money moved, now or the first time."""
        return self.outcome == "OK"

    @property
    def available_micros(self) -> int:
        """Balance less holds, after the operation; 0 after a refusal."""
        return (self.balance_micros or 0) - (self.held_micros or 0)

    @property
    def crossed_zero(self) -> bool:
        """Whether available crossed zero now, in either direction; a replay crosses nothing."""
        before = self.available_before_micros
        if not self.ok or self.replayed or before is None:
            return False
        return (before > 0) != (self.available_micros > 0)


class WalletNotFound(Refused):
    """The organization has no wallet."""

    def __init__(self, organization_id: str) -> None:
        super().__init__("WALLET_NOT_FOUND", organization_id, organization=organization_id)


def call_ledger(session: Session, function: str, /, **values: Any) -> WalletOutcome:
    """This function will call one of the ledger's functions; `values` names the wallet as org.

    Changes that wait in the session are not flushed by it.
    """
    row = session.connection().exec_driver_sql(_driver_statement(function), values).one()
    forget(session, Wallet, values["org"])
    return WalletOutcome(*row)


def refusable(amount_micros: int) -> int:
    """This function will make an amount one that a bigint holds; one out of bounds stays so.

    The ledger can then refuse it, which it could not if no bigint held it.
    """
    return max(-1, min(amount_micros, AMOUNT_MICROS_MAX + 1))


def follow_up(
    session: Session, organization_id: str, outcome: WalletOutcome, *keys: str
) -> WalletOutcome:
    """This function will stage the check of posture where an operation gave cause for it.

    A cause is every crossing of available over zero, and, for an operation whose `keys` are given,
    a freeze that it placed or lifted, which is always its last entry. Replay: stages nothing.
    """
    if outcome.crossed_zero or _changed_a_freeze(session, organization_id, outcome, keys):
        stage(session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id)
    return outcome


def require_wallet(session: Session, organization_id: str) -> None:
    """This function will see to it that the organization has a wallet.

    Raises: WalletNotFound.
    """
    if session.get(Wallet, organization_id) is None:
        raise WalletNotFound(organization_id)


def _changed_a_freeze(
    session: Session, organization_id: str, outcome: WalletOutcome, keys: tuple[str, ...]
) -> bool:
    if not keys or not outcome.ok or outcome.replayed or outcome.available_before_micros is None:
        return False
    newest = (
        session.connection()
        .exec_driver_sql(_NEWEST, {"org": organization_id, "entry_no": outcome.entry_no})
        .one()
    )
    return newest.operation_key in keys and newest.kind in ("freeze", "unfreeze")


@functools.cache
def _driver_statement(function: str) -> str:
    """As the driver writes it: SQLAlchemy's text would be read and put together at every call."""
    return "SELECT * FROM " + _PARAMETER.sub(r"%(\1)s", function)  # noqa: S608
