"""Holds: money set aside for a call, and what becomes of it; the ledger's SQL decides and writes.

A refusal is an answer (`outcome`), not an exception. Amounts are micros, 1 to 10^15. A replay gives
the wallet's figures as they are now, but for commit, which answers as the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import HoldStatus
from db.engine import forget
from db.models import CallHold, Wallet
from domain.wallet.ledger import WalletNotFound, WalletOutcome, call_ledger, follow_up, refusable

#: The largest number PostgreSQL's integer holds; an extension beyond it is out of order as well.
_INTEGER_MAX = 2**31 - 1


@dataclass(frozen=True)
class ExpiredCandidate:
    """A hold that was open and expired when it was read, without a lock."""

    organization_id: str
    call_id: str
    provider_call_id: str | None
    expires_at: datetime


@dataclass(frozen=True)
class Extension:
    """One more step of a hold. `nth` counts a hold's extensions from 1."""

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
    """This function will set money aside for a call, out of what is available.

    Replay: a call has one hold; while it is open, a further request answers OK and changes nothing,
    whatever amount it asks for. Refuses: CALL_SETTLED once the call is; FROZEN_WALLET,
    INSUFFICIENT_FUNDS; IDEMPOTENCY_CONFLICT where call and provider's call are paired otherwise;
    INVALID_AMOUNT, INVALID_CALL (ids are 1 to 64 characters), INVALID_EXPIRY (not after now),
    WALLET_NOT_FOUND, CURRENCY_MISMATCH.
    """
    outcome = _call(
        session,
        "reserve_call_credits(:org, :call, :provider_call, :amount, :currency, :expires, :now)",
        organization_id,
        call_id,
        provider_call=provider_call_id,
        amount=refusable(amount_micros),
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
    """This function will add to an open hold and put its end off; never bring it nearer.

    Units: `nth` counts a hold's extensions from 1. Bounds: the whole hold at most 10^15. Replay:
    the newest again, with the same amount, or an older one; with another amount, or one too far,
    IDEMPOTENCY_CONFLICT. Refuses: HOLD_NOT_FOUND, CALL_SETTLED, INVALID_EXTENSION, and what reserve
    refuses. A hold past its end that nobody has expired yet may be extended.
    """
    outcome = _call(
        session,
        "extend_call_credits(:org, :call, CAST(:nth AS integer), :amount, :expires, :now)",
        organization_id,
        call_id,
        nth=max(0, min(nth, _INTEGER_MAX)),
        amount=refusable(amount_micros),
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
    """This function will extend many holds of one wallet in one call, and give each one's outcome.

    Each as `extend` does, in the order given; a refusal of one leaves the others.
    """
    row = session.execute(
        text(
            "SELECT m.outcomes, (m.answer).* FROM extend_call_credits_many(:org,"
            " CAST(:calls AS text[]), CAST(:nths AS integer[]), CAST(:amounts AS bigint[]),"
            " :expires, :now) AS m"
        ),
        {
            "org": organization_id,
            "calls": [one.call_id for one in extensions],
            "nths": [one.nth for one in extensions],
            "amounts": [refusable(one.amount_micros) for one in extensions],
            "expires": expires_at,
            "now": now,
        },
    ).one()
    answer = dict(row._mapping)
    outcomes: list[str] = answer.pop("outcomes")
    forget(session, Wallet, organization_id)
    for one in extensions:
        forget(session, CallHold, (organization_id, one.call_id))
    if answer["outcome"] is not None:
        follow_up(session, organization_id, WalletOutcome(**answer))
    return outcomes


def put_off(
    session: Session, organization_id: str, call_id: str, *, expires_at: datetime, now: datetime
) -> bool:
    """This function will put off the end of an open hold, never nearer; False if none is open."""
    put: bool = session.execute(
        text("SELECT put_off_call_hold(:org, :call, :expires, :now)"),
        {"org": organization_id, "call": call_id, "expires": expires_at, "now": now},
    ).scalar_one()
    forget(session, CallHold, (organization_id, call_id))
    return put


def commit(
    session: Session,
    organization_id: str,
    *,
    call_id: str,
    amount_micros: int,
    currency: str,
    now: datetime,
) -> WalletOutcome:
    """This function will charge what a call cost, once, and give the rest of its hold back.

    Allowed while frozen. Takes from the hold, then from what is available, then within the debt
    limit; the rest is owed and freezes with call_shortfall. Without a hold, or after it was
    released or expired, it bills directly. Units: `amount_micros` 0 to 10^15. Replay: the same
    amount answers as the first time; another, IDEMPOTENCY_CONFLICT. Refuses: INVALID_AMOUNT,
    INVALID_CALL, WALLET_NOT_FOUND, CURRENCY_MISMATCH.
    """
    outcome = _call(
        session,
        "commit_reserved_credits(:org, :call, :amount, :currency, :now)",
        organization_id,
        call_id,
        amount=refusable(amount_micros),
        currency=currency,
        now=now,
    )
    return follow_up(session, organization_id, outcome, f"call:{call_id}:commit")


def release(
    session: Session, organization_id: str, *, call_id: str, now: datetime
) -> WalletOutcome:
    """This function will give back the whole hold of a call that never began.

    What is owed is paid out of it first. Replay: one given back already is left as it is. Refuses:
    HOLD_NOT_FOUND, WALLET_NOT_FOUND; CALL_SETTLED when the call was billed.
    """
    outcome = _call(
        session, "release_call_credits(:org, :call, :now)", organization_id, call_id, now=now
    )
    return follow_up(session, organization_id, outcome, f"call:{call_id}:released")


def expire(
    session: Session, organization_id: str, *, call_ids: Sequence[str], now: datetime
) -> list[str]:
    """This function will give back those holds that are, under the lock, still open and expired.

    Gives their calls. What is owed is paid first. Replay: nothing is left to expire. Raises:
    WalletNotFound.
    """
    row = session.execute(
        text(
            "SELECT e.expired, (e.answer).* FROM"
            " cleanup_expired_reservations(:org, CAST(:calls AS text[]), :now) AS e"
        ),
        {"org": organization_id, "calls": list(call_ids), "now": now},
    ).one()
    answer = dict(row._mapping)
    expired: list[str] = answer.pop("expired")
    outcome = WalletOutcome(**answer)
    if not outcome.ok:
        raise WalletNotFound(organization_id)
    forget(session, Wallet, organization_id)
    for call_id in expired:
        forget(session, CallHold, (organization_id, call_id))
    follow_up(session, organization_id, outcome, *(f"call:{one}:expired" for one in expired))
    return expired


def expired_candidates(session: Session, now: datetime, limit: int) -> list[ExpiredCandidate]:
    """This function will give open holds that are past their end, the longest past first.

    Read without a lock: ask for their calls, then let `expire` decide again under the lock.
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
    """This function will give a call's hold as it is now, whatever became of it."""
    return session.get(CallHold, (organization_id, call_id), populate_existing=True)


def _call(
    session: Session, function: str, organization_id: str, call_id: str, **values: Any
) -> WalletOutcome:
    outcome = call_ledger(session, function, org=organization_id, call=call_id, **values)
    forget(session, CallHold, (organization_id, call_id))
    return outcome
