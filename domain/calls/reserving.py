"""What is set aside for a call that goes out, when the company's backend asks for it.

The call is dialled elsewhere: here it is made known, held for, and metered once it talks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallDirection
from base.masking import last_digits
from db.call_models import Call
from db.locks import lock_wallet
from domain.calls.opening import hold_for, open_call
from domain.calls.rates import rate_for
from domain.calls.rows import call_of_provider, rate_of
from domain.calls.terms import DURATION_SECONDS_MAX
from domain.ledger import WalletOutcome
from domain.posture import can_send


@dataclass(frozen=True)
class Reserved:
    """What came of reserving for a call that is made by the company's backend."""

    outcome: WalletOutcome
    call: Call | None


def reserve_for_call(
    session: Session,
    organization_id: str,
    *,
    call_id: str,
    provider_call_id: str | None,
    estimated_seconds: int,
    now: datetime,
    number: str | None = None,
    appointment_id: str | None = None,
) -> Reserved:
    """This function will set aside what a call that goes out is estimated to cost.

    Units: `estimated_seconds` 1 to 43,200. Replay: as holds.reserve; the provider's id may come
    with a later one. Refuses: what that refuses, can_send's reasons, NO_RATE, INVALID_DURATION.
    """
    wallet = lock_wallet(session, organization_id)
    if wallet is None:
        return _refused("WALLET_NOT_FOUND")
    known = session.get(Call, (organization_id, call_id), populate_existing=True)
    if known is not None:
        return _reserved_again(session, known, provider_call_id, seconds=estimated_seconds, now=now)
    may_not = can_send(session, organization_id, now)
    rate = rate_for(session, organization_id, CallDirection.OUTBOUND, number)
    if may_not is not None or rate is None:
        return _refused(may_not or "NO_RATE")
    wrong = _why_not(session, organization_id, call_id, provider_call_id, estimated_seconds)
    if wrong is not None:
        return _refused(wrong)
    call = Call(
        organization_id=organization_id,
        id=call_id,
        provider_call_id=provider_call_id,
        direction=CallDirection.OUTBOUND,
        their_party=last_digits(number),
        appointment_id=appointment_id,
    )
    outcome = open_call(session, call, rate, wallet.currency, seconds=estimated_seconds, now=now)
    return Reserved(outcome, call if outcome.ok else None)


def _reserved_again(
    session: Session,
    known: Call,
    provider_call_id: str | None,
    *,
    seconds: int,
    now: datetime,
) -> Reserved:
    wrong = _why_not(session, known.organization_id, known.id, provider_call_id, seconds)
    if wrong is not None:
        return _refused(wrong)
    provider_call_id = provider_call_id or known.provider_call_id
    if known.provider_call_id not in (None, provider_call_id):
        return _refused("IDEMPOTENCY_CONFLICT")
    if known.settled_at is not None:
        # One that cost nothing may have no hold that says so.
        return _refused("CALL_SETTLED")
    outcome = hold_for(
        session,
        known,
        rate_of(known),
        known.currency,
        provider_call_id=provider_call_id,
        seconds=seconds,
        now=now,
    )
    if outcome.ok:
        known.provider_call_id = provider_call_id
    return Reserved(outcome, known)


def _why_not(
    session: Session,
    organization_id: str,
    call_id: str,
    provider_call_id: str | None,
    seconds: int,
) -> str | None:
    """What is wrong with what was asked, whether or not the call is known already."""
    if not 0 < seconds <= DURATION_SECONDS_MAX:
        return "INVALID_DURATION"
    other = call_of_provider(session, provider_call_id) if provider_call_id else None
    if other is not None and (other.organization_id, other.id) != (organization_id, call_id):
        return "IDEMPOTENCY_CONFLICT"
    return None


def _refused(code: str) -> Reserved:
    return Reserved(WalletOutcome(code, replayed=False), None)
