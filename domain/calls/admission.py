"""How a call is let in: by whose door, with what hold, and for how long.

A call is let in only with a hold; what a hold does not cover is metered, and ended in time
(domain/calls/metering).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from base.enums import CallDirection, CallStatus, HoldStatus
from base.facts import CallAsk
from base.ids import new_id
from db.call_models import Call, CallDoor
from db.locks import lock_call, lock_wallet
from db.models import Wallet
from domain import holds
from domain.calls.doors import find_door, twilio_account_of
from domain.calls.metering import first_step_seconds, seconds_to_end_in_time
from domain.calls.rates import Rate, rate_for
from domain.calls.rows import (
    BEGIN_LOOK_SECONDS,
    call_of_provider,
    hold_end,
    masked,
    note,
    rate_of,
)
from domain.calls.settlement import settle
from domain.calls.terms import Terms, terms_of
from domain.posture import can_send
from domain.wallet import WalletOutcome

#: Shortest and longest that the platform can be told to let a call last, in seconds. Source: Vapi's
#: API, maxDurationSeconds.
DURATION_SECONDS_MIN = 10
DURATION_SECONDS_MAX = 43_200
#: What is said where no organization is known whose words it could be.
_UNKNOWN_TEXT = Terms().refusal_text


@dataclass(frozen=True)
class Admission:
    """Our word on a call: let in, for so long, or refused with what is spoken."""

    organization_id: str | None
    call_id: str | None
    #: Why not; None lets it in.
    refusal: str | None
    text: str
    assistant_id: str | None = None
    max_duration_seconds: int = 0
    #: Whether the call was made known by this answer, and not by one before.
    is_new: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Reserved:
    """What came of reserving for a call that is made by the company's backend."""

    outcome: WalletOutcome
    call: Call | None


class _NotAdmitted(Exception):
    """A call is not let in; `code` says why."""

    def __init__(self, code: str, call_id: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.call_id = call_id


def admit(session: Session, ask: CallAsk, now: datetime) -> Admission:
    """This function will let a call in with its first hold, or refuse it.

    It gets the time that what is available pays for at its start, 10 s at least, and no less than
    it takes to end it in time; the hold is the first step of that. Replay: the same call gets the
    same answer while it lives; CALL_SETTLED after. Refuses: UNKNOWN_DOOR, NO_ASSISTANT, NO_RATE,
    can_send's reasons, and what holds.reserve refuses.
    """
    door = find_door(
        session,
        assistant_id=ask.assistant_id,
        phone_numbers=(ask.phone_number_id, ask.our_number),
    )
    if door is None:
        return Admission(None, None, "UNKNOWN_DOOR", _UNKNOWN_TEXT)
    organization_id = door.organization_id
    terms = terms_of(session, organization_id)
    wallet = lock_wallet(session, organization_id)
    try:
        # Under the wallet's lock: the same request twice at once is one call.
        known = _known(session, ask, organization_id)
        call = known or _let_in(session, ask, door, wallet, terms, now=now)
        if known is not None:
            _answer_again(session, known, wallet, terms, now)
    except _NotAdmitted as no:
        return Admission(organization_id, no.call_id, no.code, terms.refusal_text)
    return Admission(
        organization_id,
        call.id,
        None,
        terms.refusal_text,
        assistant_id=door.assistant_id or call.assistant_id,
        max_duration_seconds=call.max_duration_seconds or DURATION_SECONDS_MIN,
        is_new=known is None,
    )


def withdraw(session: Session, organization_id: str, call_id: str, now: datetime) -> bool:
    """This function will undo the letting in of a call that was refused meanwhile.

    Its hold is given back; one that its provider says has begun, or asked about again, is left
    alone: the second answer may have let it in. False if nothing was left to undo. Replay: is one
    such.
    """
    lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if call is None or call.settled_at is not None or call.status != CallStatus.ADMITTED:
        return False
    if call.seen_at is not None:
        return False
    settle(session, call, duration_ms=0, cost_micros=0, by="withdrawn", now=now)
    return True


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
    known = session.get(Call, (organization_id, call_id), populate_existing=True)
    rate = (
        rate_of(known)
        if known is not None
        else rate_for(session, organization_id, CallDirection.OUTBOUND, number)
    )
    refusal = None if known is not None else can_send(session, organization_id, now)
    if wallet is None:
        return Reserved(refusal_of("WALLET_NOT_FOUND"), None)
    if refusal is not None or rate is None:
        return Reserved(refusal_of(str(refusal or "NO_RATE")), None)
    if not 0 < estimated_seconds <= DURATION_SECONDS_MAX:
        return Reserved(refusal_of("INVALID_DURATION"), None)
    other = call_of_provider(session, provider_call_id) if provider_call_id else None
    if other is not None and (other.organization_id, other.id) != (organization_id, call_id):
        return Reserved(refusal_of("IDEMPOTENCY_CONFLICT"), None)
    if known is not None:
        return _reserved_again(session, known, provider_call_id, seconds=estimated_seconds, now=now)
    call = Call(
        organization_id=organization_id,
        id=call_id,
        provider_call_id=provider_call_id,
        direction=CallDirection.OUTBOUND,
        their_party=masked(number),
        appointment_id=appointment_id,
    )
    outcome = open_call(session, call, rate, wallet.currency, seconds=estimated_seconds, now=now)
    return Reserved(outcome, call if outcome.ok else None)


def open_call(
    session: Session, call: Call, rate: Rate, currency: str, *, seconds: int, now: datetime
) -> WalletOutcome:
    """This function will reserve for a new call and write its row; nothing of it where refused."""
    outcome = holds.reserve(
        session,
        call.organization_id,
        call_id=call.id,
        provider_call_id=call.provider_call_id,
        amount_micros=max(1, rate.cost_micros(1000 * seconds)),
        currency=currency,
        expires_at=hold_end(now, seconds),
        now=now,
    )
    if not outcome.ok:
        return outcome
    write_call(session, call, rate, currency, now)
    note(session, call, "reserved", now, f"{seconds} s")
    return outcome


def write_call(session: Session, call: Call, rate: Rate, currency: str, now: datetime) -> None:
    """This function will add a new call's row, with the rate that holds for all of it."""
    call.status = call.status or CallStatus.ADMITTED
    call.currency = currency
    call.micros_per_minute = rate.micros_per_minute
    call.increment_seconds = rate.increment_seconds
    call.minimum_micros = rate.minimum_micros
    call.created_at = now
    if call.status != CallStatus.ENDED:
        call.tick_at = now if call.metered_from else now + timedelta(seconds=BEGIN_LOOK_SECONDS)
    session.add(call)
    session.flush()


def longest_seconds(rate: Rate, available_micros: int, terms: Terms) -> int | None:
    """This function will give how long a call may last on what is available; None is too short.

    Too short is what the platform cannot be told, or what is over before the call can be ended.
    """
    paid = rate.seconds_for(available_micros)
    if paid < max(DURATION_SECONDS_MIN, seconds_to_end_in_time(terms)):
        return None
    return min(paid, terms.max_duration_seconds)


def refusal_of(code: str) -> WalletOutcome:
    """This function will say no in the ledger's own form, where it was not asked."""
    return WalletOutcome(code, False, None, None, None, None, None)


def _known(session: Session, ask: CallAsk, organization_id: str) -> Call | None:
    call = call_of_provider(session, ask.external_id)
    if call is None:
        return None
    is_over = call.status == CallStatus.ENDED or call.settled_at is not None
    if call.organization_id != organization_id or is_over or call.end_decided_at is not None:
        raise _NotAdmitted("CALL_SETTLED", call.id)
    return call


def _answer_again(
    session: Session, call: Call, wallet: Wallet | None, terms: Terms, now: datetime
) -> None:
    if call.max_duration_seconds is None and wallet is not None:
        call.max_duration_seconds = _cap_of(session, call, wallet, terms)
    # A word of its provider's as any other: what answered the first one late must not undo this.
    call.seen_at = now


def _cap_of(session: Session, call: Call, wallet: Wallet, terms: Terms) -> int:
    """For one that is known by its hold alone: it was reserved for, and now asks who answers."""
    hold = holds.hold_of_call(session, call.organization_id, call.id)
    held = hold.reserved_micros if hold is not None and hold.status == HoldStatus.OPEN else 0
    available = max(0, wallet.balance_micros - wallet.held_micros)
    longest = longest_seconds(rate_of(call), held + available, terms)
    if longest is None:
        raise _NotAdmitted("INSUFFICIENT_FUNDS", call.id)
    return longest


def _let_in(
    session: Session,
    ask: CallAsk,
    door: CallDoor,
    wallet: Wallet | None,
    terms: Terms,
    *,
    now: datetime,
) -> Call:
    if wallet is None:
        raise _NotAdmitted("WALLET_NOT_FOUND")
    if door.assistant_id is None:
        raise _NotAdmitted("NO_ASSISTANT")
    refusal = can_send(session, door.organization_id, now)
    if refusal is not None:
        raise _NotAdmitted(refusal)
    rate = rate_for(session, door.organization_id, ask.direction, ask.our_number)
    if rate is None:
        raise _NotAdmitted("NO_RATE")
    longest = longest_seconds(rate, wallet.balance_micros - wallet.held_micros, terms)
    if longest is None:
        raise _NotAdmitted("INSUFFICIENT_FUNDS")
    call = Call(
        organization_id=door.organization_id,
        id=new_id("call"),
        provider_call_id=ask.external_id,
        twilio_call_sid=ask.twilio_call_sid,
        twilio_account_sid=twilio_account_of(session, door) or ask.twilio_account_sid,
        direction=ask.direction,
        our_party=masked(ask.our_number),
        their_party=ask.their_party,
        assistant_id=door.assistant_id,
        phone_number_id=ask.phone_number_id,
        max_duration_seconds=longest,
        # Ours is the first word of its life: it costs from now on, until its provider's own word.
        metered_from=now,
    )
    first_seconds = min(first_step_seconds(rate, terms), longest)
    outcome = open_call(session, call, rate, wallet.currency, seconds=first_seconds, now=now)
    if not outcome.ok:
        raise _NotAdmitted(outcome.outcome)
    return call


def _reserved_again(
    session: Session,
    known: Call,
    provider_call_id: str | None,
    *,
    seconds: int,
    now: datetime,
) -> Reserved:
    provider_call_id = provider_call_id or known.provider_call_id
    if known.provider_call_id not in (None, provider_call_id):
        return Reserved(refusal_of("IDEMPOTENCY_CONFLICT"), None)
    if known.settled_at is not None:
        # One that cost nothing may have no hold that says so.
        return Reserved(refusal_of("CALL_SETTLED"), None)
    outcome = holds.reserve(
        session,
        known.organization_id,
        call_id=known.id,
        provider_call_id=provider_call_id,
        amount_micros=max(1, rate_of(known).cost_micros(1000 * seconds)),
        currency=known.currency,
        expires_at=hold_end(now, seconds),
        now=now,
    )
    if outcome.ok:
        known.provider_call_id = provider_call_id
    return Reserved(outcome, known)
