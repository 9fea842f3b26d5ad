"""Call the ledger's SQL functions, and stage what follows from their results.

A refusal is returned in `outcome`, not raised.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from base.enums import BlockReason
from base.log import get_logger
from base.money import AMOUNT_MICROS_MAX
from base.outcomes import Refused
from base.problems.code import Code
from base.problems.registry import find_code
from base.problems.wallet import WALLET_NOT_FOUND
from db.engine import expire_row
from db.locks import warn_if_waited
from db.models import Wallet
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION

log = get_logger(__name__)

#: A parameter such as `:org`, but not a cast such as `::text`.
_PARAMETER = re.compile(r"(?<!:):(\w+)")
#: Written for the driver, because this statement runs after every charged call and credit.
_ENTRY_SQL = (
    "SELECT kind, operation_key FROM wallet_entries"
    " WHERE organization_id = %(org)s AND entry_no = %(entry_no)s"
)


@dataclass(frozen=True)
class WalletOutcome:
    """The result of an operation: "OK" or the code of a refusal.

    A refusal has no figures. A replay returns the first result, except where a function states
    otherwise.
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
        """Whether the operation succeeded, now or the first time."""
        return self.outcome == "OK"

    @property
    def code(self) -> Code:
        """The code of a refusal. Raises KeyError if the operation succeeded."""
        return find_code(self.outcome)

    @property
    def available_micros(self) -> int:
        """Balance minus held, after the operation; 0 after a refusal."""
        return (self.balance_micros or 0) - (self.held_micros or 0)

    @property
    def crossed_zero(self) -> bool:
        """Whether this operation moved available money across zero, in either direction.

        A replay crosses nothing.
        """
        available_before = self.available_before_micros
        if not self.ok or self.replayed or available_before is None:
            return False
        return (available_before > 0) != (self.available_micros > 0)


class WalletNotFound(Refused):
    """The organization has no wallet."""

    def __init__(self, organization_id: str) -> None:
        super().__init__(WALLET_NOT_FOUND, organization_id, organization=organization_id)


def call_ledger(session: Session, function: str, /, **values: Any) -> WalletOutcome:
    """Call one of the ledger's SQL functions; `values` names the wallet as `org`.

    Pending changes of the session are not flushed.
    """
    began = time.monotonic()
    try:
        row = session.connection().exec_driver_sql(_driver_statement(function), values).one()
    finally:
        warn_if_waited(began, values["org"])
    expire_row(session, Wallet, values["org"])
    return WalletOutcome(*row)


def log_refusal(organization_id: str | None, reason: str | None, **ids: str | None) -> bool:
    """Log `spending_refused` if the reason is that the organization may not spend now.

    Return whether the event was logged. `ids` names the refused work; it must hold no personal
    data.
    """
    is_spending_block = reason in tuple(BlockReason)
    if is_spending_block:
        log.info("spending_refused", organization=organization_id, reason=reason, **ids)
    return is_spending_block


def clamp_amount(amount_micros: int) -> int:
    """Clamp an amount, so that a bigint can store it and the ledger can refuse it.

    An amount within the ledger's bounds is returned unchanged.
    """
    return max(-1, min(amount_micros, AMOUNT_MICROS_MAX + 1))


def follow_up(
    session: Session, organization_id: str, outcome: WalletOutcome, *keys: str
) -> WalletOutcome:
    """Stage the enforcement of the organization if an operation made it necessary.

    Enforcement is necessary if available money crossed zero. If `keys` are given, it is also
    necessary if the operation placed or lifted a freeze. The freeze's entry is always the
    operation's last entry, and its key is one of `keys`. Replay: stages nothing.
    """
    if outcome.crossed_zero or _changed_a_freeze(session, organization_id, outcome, keys):
        stage(session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id)
    return outcome


def require_wallet(session: Session, organization_id: str) -> None:
    """Refuse an organization that has no wallet.

    Raises: WalletNotFound.
    """
    if session.get(Wallet, organization_id) is None:
        raise WalletNotFound(organization_id)


def _changed_a_freeze(
    session: Session, organization_id: str, outcome: WalletOutcome, keys: tuple[str, ...]
) -> bool:
    if not keys or not outcome.ok or outcome.replayed or outcome.available_before_micros is None:
        return False
    entry = (
        session.connection()
        .exec_driver_sql(_ENTRY_SQL, {"org": organization_id, "entry_no": outcome.entry_no})
        .one()
    )
    return entry.operation_key in keys and entry.kind in ("freeze", "unfreeze")


@functools.cache
def _driver_statement(function: str) -> str:
    """Rewrite a function call with `:name` parameters as the driver's statement.

    SQLAlchemy would parse and compile a text() again at every call.
    """
    return "SELECT * FROM " + _PARAMETER.sub(r"%(\1)s", function)  # noqa: S608
