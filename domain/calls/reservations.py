"""Reservations: money that the company's backend sets aside for outgoing calls.

The company dials the call. A reservation writes the call's row and its hold. The call is metered
once the provider reports it in progress. The reservation is paired with the provider's call by the
provider's id, now or later, or by a token in the call's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallDirection, CallOrigin
from base.masking import last_digits
from base.problems.calls import CALL_SETTLED, INVALID_CALL, INVALID_DURATION, NO_RATE
from base.problems.code import Code
from base.problems.wallet import IDEMPOTENCY_CONFLICT, WALLET_NOT_FOUND
from db.locks import lock_wallet
from db.models import Wallet
from db.models.calls import Call
from domain.calls.merging import PairedOtherwise, may_merge, pair
from domain.calls.opening import hold_for, insert_call, open_call
from domain.calls.pairing import new_pairing_token
from domain.calls.rates import find_rate
from domain.calls.rows import call_of_provider, rate_of, resolve_merged
from domain.calls.settings import DURATION_SECONDS_MAX
from domain.entitlement import spending_block
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
    """Reserve the estimated cost of an outgoing call.

    Units: `estimated_seconds` 1 to 43,200; `number` is the called number in E.164. Without a
    number, the organization's general rate applies until the provider reports the number.

    Replay: as `holds.reserve`. A later request may add the provider's id. If a report of that call
    arrived first, reservation and call are merged.

    Refuses: NO_RATE, INVALID_DURATION, the reasons of `spending_block`, and the refusals of
    `holds.reserve`. IDEMPOTENCY_CONFLICT if the reservation or the provider's call is paired with
    another one.
    """
    wallet = lock_wallet(session, organization_id)
    if wallet is None:
        return _refused(WALLET_NOT_FOUND)
    if not 0 < estimated_seconds <= DURATION_SECONDS_MAX:
        return _refused(INVALID_DURATION)
    known = session.get(Call, (organization_id, call_id), populate_existing=True)
    if known is not None:
        return _repeat_reservation(
            session, known, provider_call_id, seconds=estimated_seconds, now=now
        )
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
        return _reserve_reported_call(
            session, call, other, number, seconds=estimated_seconds, now=now
        )
    call.provider_call_id = provider_call_id
    return _make_reservation(session, call, wallet, number, seconds=estimated_seconds, now=now)


def _make_reservation(
    session: Session, call: Call, wallet: Wallet, number: str | None, *, seconds: int, now: datetime
) -> Reserved:
    block = spending_block(session, call.organization_id, now)
    found = find_rate(session, call.organization_id, CallDirection.OUTBOUND, number)
    if block is not None or found is None:
        return _refused(block.code if block else NO_RATE)
    call.rate_route = found.route
    outcome = open_call(session, call, found.rate, wallet.currency, seconds=seconds, now=now)
    if not outcome.ok:
        return Reserved(outcome, None)
    return Reserved(outcome, call, call.pairing_token or "")


def _reserve_reported_call(
    session: Session, call: Call, other: Call, number: str | None, *, seconds: int, now: datetime
) -> Reserved:
    """Merge a new reservation into the call that its provider reported first.

    If that call has a hold, nothing more is set aside.
    """
    if not 0 < len(call.id) <= _ID_LENGTH_MAX:
        return _refused(INVALID_CALL)
    if not may_merge(session, call, other):
        return _refused(IDEMPOTENCY_CONFLICT)
    found = find_rate(session, call.organization_id, CallDirection.OUTBOUND, number)
    call.rate_route = found.route if found is not None else other.rate_route
    rate = found.rate if found is not None else rate_of(other)
    insert_call(session, call, rate, other.currency, now)
    return _pair_and_hold(session, call, str(other.provider_call_id), seconds=seconds, now=now)


def _repeat_reservation(
    session: Session,
    known: Call,
    provider_call_id: str | None,
    *,
    seconds: int,
    now: datetime,
) -> Reserved:
    if known.pairing_token is None and known.origin == CallOrigin.RESERVED:
        # A version without pairing tokens wrote this reservation.
        known.pairing_token = new_pairing_token()
    if provider_call_id is not None:
        try:
            return _pair_and_hold(session, known, provider_call_id, seconds=seconds, now=now)
        except PairedOtherwise as error:
            return _refused(error.code)
    return _hold_again(session, known, known, seconds=seconds, now=now)


def _pair_and_hold(
    session: Session, known: Call, provider_call_id: str, *, seconds: int, now: datetime
) -> Reserved:
    """Pair a reservation, and return the outcome for the resulting call.

    Raises: PairedOtherwise.
    """
    call = pair(session, known, provider_call_id, now)
    return _hold_again(session, known, call, seconds=seconds, now=now)


def _hold_again(
    session: Session, known: Call, call: Call, *, seconds: int, now: datetime
) -> Reserved:
    call = resolve_merged(session, call)
    if call.settled_at is not None:
        # A settled call that cost nothing may have no hold. The ledger would then reserve a new
        # one.
        return _refused(CALL_SETTLED)
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


def _refused(code: Code) -> Reserved:
    return Reserved(WalletOutcome(code, replayed=False), None)
