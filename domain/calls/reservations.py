"""Reservations: what the company's backend sets aside for an outgoing call.

The company dials the call. A reservation makes its row and its hold, and the call is metered once
somebody talks. It is paired with the provider's call by the provider's id, now or later, or by a
token in the call's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallDirection, CallOrigin
from base.masking import last_digits
from db.locks import lock_wallet
from db.models import Wallet
from db.models.calls import Call
from domain.calls.merging import PairedOtherwise, may_merge, pair
from domain.calls.opening import hold_for, open_call, write_call
from domain.calls.pairing import new_pairing_token
from domain.calls.rates import find_rate
from domain.calls.rows import call_of_provider, rate_of, resolve_merged
from domain.calls.settings import DURATION_SECONDS_MAX
from domain.posture import can_send
from domain.wallet.ledger import WalletOutcome

#: The longest id of a call, in characters.
_ID_LENGTH_MAX = 64


@dataclass(frozen=True)
class Reserved:
    """The outcome of a reservation and its call (if merged, the call that it became)."""

    outcome: WalletOutcome
    call: Call | None
    pairing_token: str = ""


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
    """Set aside what an outgoing call is estimated to cost.

    Units: `estimated_seconds` 1 to 43,200. `number` is the called number in E.164; without it the
    call has the organization's general rate until its provider names the number. Replay: as
    holds.reserve. The provider's id may come with a later request; if a report of that call came
    first, both are merged. Refuses: what holds.reserve refuses, can_send's reasons, NO_RATE,
    INVALID_DURATION; IDEMPOTENCY_CONFLICT if one of the two calls is paired otherwise.
    """
    wallet = lock_wallet(session, organization_id)
    if wallet is None:
        return _refused("WALLET_NOT_FOUND")
    if not 0 < estimated_seconds <= DURATION_SECONDS_MAX:
        return _refused("INVALID_DURATION")
    known = session.get(Call, (organization_id, call_id), populate_existing=True)
    if known is not None:
        return _reserved_again(session, known, provider_call_id, seconds=estimated_seconds, now=now)
    call = Call(
        organization_id=organization_id,
        id=call_id,
        direction=CallDirection.OUTBOUND,
        their_party=last_digits(number),
        appointment_id=appointment_id,
        origin=CallOrigin.RESERVED,
        pairing_token=new_pairing_token(),
    )
    other = call_of_provider(session, provider_call_id) if provider_call_id else None
    if other is not None:
        return _reserved_late(session, call, other, number, seconds=estimated_seconds, now=now)
    call.provider_call_id = provider_call_id
    return _reserved_first(session, call, wallet, number, seconds=estimated_seconds, now=now)


def _reserved_first(
    session: Session, call: Call, wallet: Wallet, number: str | None, *, seconds: int, now: datetime
) -> Reserved:
    may_not = can_send(session, call.organization_id, now)
    found = find_rate(session, call.organization_id, CallDirection.OUTBOUND, number)
    if may_not is not None or found is None:
        return _refused(may_not or "NO_RATE")
    call.rate_route = found.route
    outcome = open_call(session, call, found.rate, wallet.currency, seconds=seconds, now=now)
    if not outcome.ok:
        return Reserved(outcome, None)
    return Reserved(outcome, call, call.pairing_token or "")


def _reserved_late(
    session: Session, call: Call, other: Call, number: str | None, *, seconds: int, now: datetime
) -> Reserved:
    """Merge a reservation into the call that it names, which a report told of first.

    The call is held for already, so that nothing more is set aside.
    """
    if not 0 < len(call.id) <= _ID_LENGTH_MAX:
        return _refused("INVALID_CALL")
    if not may_merge(session, call, other):
        return _refused("IDEMPOTENCY_CONFLICT")
    found = find_rate(session, call.organization_id, CallDirection.OUTBOUND, number)
    call.rate_route = found.route if found is not None else other.rate_route
    rate = found.rate if found is not None else rate_of(other)
    write_call(session, call, rate, other.currency, now)
    return _paired(session, call, str(other.provider_call_id), seconds=seconds, now=now)


def _reserved_again(
    session: Session,
    known: Call,
    provider_call_id: str | None,
    *,
    seconds: int,
    now: datetime,
) -> Reserved:
    if known.pairing_token is None and known.origin == CallOrigin.RESERVED:
        # Reserved by a version before the tokens.
        known.pairing_token = new_pairing_token()
    if provider_call_id is not None:
        try:
            return _paired(session, known, provider_call_id, seconds=seconds, now=now)
        except PairedOtherwise as no:
            return _refused(no.code)
    return _held_again(session, known, known, seconds=seconds, now=now)


def _paired(
    session: Session, known: Call, provider_call_id: str, *, seconds: int, now: datetime
) -> Reserved:
    """Pair a reservation, and answer for the call that it is. Raises: PairedOtherwise."""
    call = pair(session, known, provider_call_id, now)
    return _held_again(session, known, call, seconds=seconds, now=now)


def _held_again(
    session: Session, known: Call, call: Call, *, seconds: int, now: datetime
) -> Reserved:
    call = resolve_merged(session, call)
    if call.settled_at is not None:
        # A settled call that cost nothing may have no hold by which the ledger would refuse.
        return _refused("CALL_SETTLED")
    outcome = hold_for(
        session,
        call,
        rate_of(call),
        call.currency,
        provider_call_id=call.provider_call_id,
        seconds=seconds,
        now=now,
    )
    return Reserved(outcome, call, known.pairing_token or "")


def _refused(code: str) -> Reserved:
    return Reserved(WalletOutcome(code, replayed=False), None)
