"""Holds: money set aside for a call until it is charged or returned.

The ledger's SQL functions decide and write. A refusal is returned in `outcome`, not raised. Amounts
are in micros, 1 to 10^15. A replay returns the wallet's current figures, except for `commit`, which
returns its first result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import HoldStatus
from db.engine import expire_row
from db.models import CallHold, Wallet
from domain.wallet.ledger import WalletNotFound, WalletOutcome, call_ledger, clamp_amount, follow_up

#: The largest value of PostgreSQL's integer. The ledger refuses an extension with this number as
#: out of sequence.
_INTEGER_MAX = 2**31 - 1


@dataclass(frozen=True)
class ExpiredCandidate:
    """A hold that was open and expired when it was read without a lock."""

    organization_id: str
    call_id: str
    provider_call_id: str | None
    expires_at: datetime


@dataclass(frozen=True)
class Extension:
    """One extension of a hold. `nth` counts a hold's extensions from 1."""

    call_id: str
    nth: int
    amount_micros: int


def reserve(
    session: Session,
    organization_id: str,
    *,
    call_id: str,
    amount_micros: int,
    currency: str,
    expires_at: datetime,
    now: datetime,
    provider_call_id: str | None = None,
) -> WalletOutcome:
    """Set money aside for a call, from the available money.

    Replay: a call has one hold. While the hold is open, another request for the same call returns
    OK and changes nothing, whatever the request's amount. Refuses: CALL_SETTLED if the hold is no
    longer open. IDEMPOTENCY_CONFLICT if the call or the provider's call is already paired with
    another one. FROZEN_WALLET, INSUFFICIENT_FUNDS, INVALID_AMOUNT, INVALID_CALL (ids have 1 to 64
    characters), INVALID_EXPIRY (not after now), WALLET_NOT_FOUND, CURRENCY_MISMATCH.
    """
    outcome = _call_hold_function(
        session,
        "reserve_call_credits(:org, :call, :provider_call, :amount, :currency, :expires, :now)",
        organization_id,
        call_id,
        provider_call=provider_call_id,
        amount=clamp_amount(amount_micros),
        currency=currency,
        expires=expires_at,
        now=now,
    )
    return follow_up(session, organization_id, outcome)


def extend(
    session: Session,
    organization_id: str,
    *,
    call_id: str,
    nth: int,
    amount_micros: int,
    expires_at: datetime,
    now: datetime,
) -> WalletOutcome:
    """Set more money aside in an open hold and postpone its expiry.

    The expiry is never brought nearer. Units: `nth` counts a hold's extensions from 1. Bounds: the
    whole hold is at most 10^15. Replay: the newest extension with the same amount, or an older one,
    changes nothing. The newest extension with another amount, or an extension that skips a number,
    is an IDEMPOTENCY_CONFLICT. Refuses: HOLD_NOT_FOUND, CALL_SETTLED, INVALID_EXTENSION,
    FROZEN_WALLET, INSUFFICIENT_FUNDS, INVALID_AMOUNT, INVALID_EXPIRY, WALLET_NOT_FOUND. A hold past
    its expiry that is still open may be extended.
    """
    outcome = _call_hold_function(
        session,
        "extend_call_credits(:org, :call, CAST(:nth AS integer), :amount, :expires, :now)",
        organization_id,
        call_id,
        nth=max(0, min(nth, _INTEGER_MAX)),
        amount=clamp_amount(amount_micros),
        expires=expires_at,
        now=now,
    )
    return follow_up(session, organization_id, outcome)


def extend_many(
    session: Session,
    organization_id: str,
    extensions: Sequence[Extension],
    *,
    expires_at: datetime,
    now: datetime,
) -> list[str]:
    """Extend many holds of one wallet in one statement, and return each one's outcome.

    Each extension works as in `extend`, in the given order. A refused extension does not affect the
    others.
    """
    row = session.execute(
        text(
            "SELECT m.outcomes, (m.answer).* FROM extend_call_credits_many(:org,"
            " CAST(:calls AS text[]), CAST(:nths AS integer[]), CAST(:amounts AS bigint[]),"
            " :expires, :now) AS m"
        ),
        {
            "org": organization_id,
            "calls": [extension.call_id for extension in extensions],
            "nths": [extension.nth for extension in extensions],
            "amounts": [clamp_amount(extension.amount_micros) for extension in extensions],
            "expires": expires_at,
            "now": now,
        },
    ).one()
    figures = dict(row._mapping)
    outcomes: list[str] = figures.pop("outcomes")
    expire_row(session, Wallet, organization_id)
    for extension in extensions:
        expire_row(session, CallHold, (organization_id, extension.call_id))
    if figures["outcome"] is not None:
        follow_up(session, organization_id, WalletOutcome(**figures))
    return outcomes


def postpone_expiry(
    session: Session, organization_id: str, call_id: str, *, expires_at: datetime, now: datetime
) -> bool:
    """Postpone the expiry of an open hold, and never bring it nearer.

    Return False if the call has no open hold, or if `expires_at` is not after `now`.
    """
    postponed: bool = session.execute(
        text("SELECT put_off_call_hold(:org, :call, :expires, :now)"),
        {"org": organization_id, "call": call_id, "expires": expires_at, "now": now},
    ).scalar_one()
    expire_row(session, CallHold, (organization_id, call_id))
    return postponed


def commit(
    session: Session,
    organization_id: str,
    *,
    call_id: str,
    amount_micros: int,
    currency: str,
    now: datetime,
) -> WalletOutcome:
    """Charge what a call cost, once, and release the rest of its hold.

    A frozen wallet is charged too. The charge is taken from the hold, then from the available
    money, then from the debt limit. The rest becomes an outstanding amount and freezes the wallet
    with `call_shortfall`. If the call has no hold, or its hold was released or expired, the call is
    charged directly. Units: `amount_micros` is 0 to 10^15. Replay: the same amount returns the
    first result; another amount is an IDEMPOTENCY_CONFLICT. Refuses: INVALID_AMOUNT, INVALID_CALL,
    WALLET_NOT_FOUND, CURRENCY_MISMATCH.
    """
    outcome = _call_hold_function(
        session,
        "commit_reserved_credits(:org, :call, :amount, :currency, :now)",
        organization_id,
        call_id,
        amount=clamp_amount(amount_micros),
        currency=currency,
        now=now,
    )
    return follow_up(session, organization_id, outcome, f"call:{call_id}:commit")


def release(
    session: Session, organization_id: str, *, call_id: str, now: datetime
) -> WalletOutcome:
    """Release the whole hold of a call that never took place.

    The released money pays the outstanding amount first. Replay: a hold that was released or has
    expired is left unchanged. Refuses: HOLD_NOT_FOUND, WALLET_NOT_FOUND; CALL_SETTLED if the call
    was charged.
    """
    outcome = _call_hold_function(
        session, "release_call_credits(:org, :call, :now)", organization_id, call_id, now=now
    )
    return follow_up(session, organization_id, outcome, f"call:{call_id}:released")


def expire(
    session: Session, organization_id: str, *, call_ids: Sequence[str], now: datetime
) -> list[str]:
    """Expire the holds of these calls that are open and past their expiry.

    Each hold is checked under the wallet's lock. Return the calls of the expired holds. The
    returned money pays the outstanding amount first. Replay: no hold is left to expire. Raises:
    WalletNotFound.
    """
    row = session.execute(
        text(
            "SELECT e.expired, (e.answer).* FROM"
            " cleanup_expired_reservations(:org, CAST(:calls AS text[]), :now) AS e"
        ),
        {"org": organization_id, "calls": list(call_ids), "now": now},
    ).one()
    figures = dict(row._mapping)
    expired: list[str] = figures.pop("expired")
    outcome = WalletOutcome(**figures)
    if not outcome.ok:
        raise WalletNotFound(organization_id)
    expire_row(session, Wallet, organization_id)
    for call_id in expired:
        expire_row(session, CallHold, (organization_id, call_id))
    follow_up(
        session, organization_id, outcome, *(f"call:{call_id}:expired" for call_id in expired)
    )
    return expired


def expired_candidates(session: Session, now: datetime, limit: int) -> list[ExpiredCandidate]:
    """List the open holds that are past their expiry, the oldest expiry first.

    The holds are read without a lock. The caller first reads their calls from the provider.
    `expire` then checks the holds again under the lock.
    """
    rows = session.execute(
        select(
            CallHold.organization_id,
            CallHold.call_id,
            CallHold.provider_call_id,
            CallHold.expires_at,
        )
        .where(CallHold.status == HoldStatus.OPEN, CallHold.expires_at <= now)
        .order_by(CallHold.expires_at, CallHold.organization_id, CallHold.call_id)
        .limit(limit)
    )
    return [ExpiredCandidate(*row) for row in rows]


def hold_of_call(session: Session, organization_id: str, call_id: str) -> CallHold | None:
    """Read a call's hold in its current state, open or settled."""
    return session.get(CallHold, (organization_id, call_id), populate_existing=True)


def _call_hold_function(
    session: Session, function: str, organization_id: str, call_id: str, **values: Any
) -> WalletOutcome:
    outcome = call_ledger(session, function, org=organization_id, call=call_id, **values)
    expire_row(session, CallHold, (organization_id, call_id))
    return outcome
