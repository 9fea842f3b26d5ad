"""Admission: accept a call with a first hold and a maximum duration, or refuse it.

No call is admitted without a hold. The tick extends the hold, or ends the call before the hold is
used up (domain/calls/metering).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallOrigin, CallStatus, HoldStatus
from base.facts import AdmissionRequest, CallFacts
from base.ids import new_id
from base.masking import last_digits
from base.problems.calls import (
    CALL_SETTLED,
    DECIDED_TOO_LATE,
    NO_ASSISTANT,
    NO_RATE,
    UNKNOWN_ENTRY_POINT,
)
from base.problems.code import Code
from base.problems.wallet import INSUFFICIENT_FUNDS, WALLET_NOT_FOUND
from db.locks import lock_call, lock_wallet
from db.models import Wallet
from db.models.calls import Call, EntryPoint
from domain.calls.billing import CONTINUING_STATES, billing_state
from domain.calls.entry_points import find_entry_point, twilio_account_of
from domain.calls.foreign import release_foreign_reservation
from domain.calls.metering import first_step_seconds, seconds_to_end_in_time
from domain.calls.opening import insert_refused_call, open_call
from domain.calls.rates import Rate, find_rate, priced_number
from domain.calls.rows import call_of_provider, note, rate_of
from domain.calls.settings import DURATION_SECONDS_MIN, Terms, terms_of
from domain.calls.settlement import settle
from domain.entitlement import spending_block
from domain.wallet import holds

#: The text that is spoken to a call that belongs to no organization.
_NO_ORGANIZATION_TEXT = Terms().refusal_text


@dataclass(frozen=True)
class Admission:
    """The decision on a call: admitted for a duration, or refused with a spoken text."""

    organization_id: str | None
    call_id: str | None
    #: The refusal code; None if the call is admitted.
    refusal: Code | None
    text: str
    assistant_id: str | None = None
    max_duration_seconds: int = 0
    #: Whether this request admitted the call. False if an earlier request did.
    is_new: bool = field(default=False, compare=False)


class _NotAdmitted(Exception):
    """A call is refused; `code` is the reason."""

    def __init__(self, code: Code, call_id: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.call_id = call_id


def admit(session: Session, ask: AdmissionRequest, now: datetime) -> Admission:
    """Admit a call with its first hold, or refuse it and record the reason.

    The maximum duration is what the available money pays for, within the organization's terms. It
    is at least 10 s, and at least the time that ending a call takes. The first hold covers its
    first step.

    Replay: while the call is live, the same call gets the same answer. Once it is over or its end
    is decided, the answer is CALL_SETTLED. A refused call is decided again.

    Refuses: UNKNOWN_ENTRY_POINT, NO_ASSISTANT, NO_RATE, INSUFFICIENT_FUNDS, WALLET_NOT_FOUND, the
    reasons of `spending_block`, and the refusals of `holds.reserve`.
    """
    entry_point = find_entry_point(
        session,
        assistant_id=ask.assistant_id,
        phone_numbers=(ask.phone_number_id, ask.our_number),
    )
    if entry_point is None:
        return Admission(None, None, UNKNOWN_ENTRY_POINT, _NO_ORGANIZATION_TEXT)
    organization_id = entry_point.organization_id
    terms = terms_of(session, organization_id)
    _drop_foreign_reservation(session, ask, organization_id, now)
    wallet = lock_wallet(session, organization_id)
    # Read under the wallet's lock, so that two simultaneous requests for a call create one call.
    known = call_of_provider(session, ask.external_id)
    is_new = known is None or _was_refused_before(known, organization_id)
    call = known or Call(
        organization_id=organization_id, id=new_id("call"), provider_call_id=ask.external_id
    )
    try:
        if wallet is None:
            raise _NotAdmitted(WALLET_NOT_FOUND)
        if is_new:
            _admit_new_call(session, call, ask, entry_point, wallet, terms=terms, now=now)
        else:
            _readmit_known_call(session, call, wallet, terms, now)
    except _NotAdmitted as error:
        if wallet is not None and (is_new or error.code != CALL_SETTLED):
            _record_refusal(session, call, wallet, error.code, is_new=is_new, now=now)
        return Admission(organization_id, error.call_id, error.code, terms.refusal_text)
    return Admission(
        organization_id,
        call.id,
        None,
        terms.refusal_text,
        assistant_id=entry_point.assistant_id or call.assistant_id,
        max_duration_seconds=call.max_duration_seconds or DURATION_SECONDS_MIN,
        is_new=is_new,
    )


def withdraw(session: Session, organization_id: str, call_id: str, now: datetime) -> bool:
    """Undo an admission or a permission that was decided too late.

    The hold is released. If the provider has reported the call or requested admission again, the
    call stays unchanged, because the second answer may have admitted it. Return False if nothing
    was undone, as on replay.
    """
    lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if call is None or call.settled_at is not None or call.status != CallStatus.ADMITTED:
        return False
    if call.seen_at is not None:
        return False
    call.refusal = DECIDED_TOO_LATE
    settle(session, call, duration_ms=0, cost_micros=0, by="withdrawn", now=now)
    return True


def longest_seconds(rate: Rate, available_micros: int, terms: Terms) -> int | None:
    """Return how many seconds of a call the available money pays for.

    Bounds: at most the terms' maximum duration. Return None if the money pays for less than Vapi's
    shortest maximum duration, or for less time than ending a call takes.
    """
    paid_seconds = rate.seconds_for(available_micros)
    if paid_seconds < max(DURATION_SECONDS_MIN, seconds_to_end_in_time(terms)):
        return None
    return min(paid_seconds, terms.max_duration_seconds)


def _was_refused_before(call: Call, organization_id: str) -> bool:
    return call.status == CallStatus.REFUSED and call.organization_id == organization_id


def _readmit_known_call(
    session: Session, call: Call, wallet: Wallet, terms: Terms, now: datetime
) -> None:
    """Admit a known call again.

    Raises: _NotAdmitted if the call is over, its end is decided, or it belongs to another
    organization.
    """
    is_ours = call.organization_id == wallet.organization_id
    if not is_ours or billing_state(call) not in CONTINUING_STATES:
        raise _NotAdmitted(CALL_SETTLED, call.id)
    if call.max_duration_seconds is None:
        call.max_duration_seconds = _max_duration_seconds(session, call, wallet, terms)
    # Mark the call as reported, so that withdrawing a late first answer does not undo this answer.
    call.seen_at = now
    call.refusal = None


def _max_duration_seconds(session: Session, call: Call, wallet: Wallet, terms: Terms) -> int:
    """Return the maximum duration of a reserved call that now requests admission."""
    hold = holds.hold_of_call(session, call.organization_id, call.id)
    held = hold.reserved_micros if hold is not None and hold.status == HoldStatus.OPEN else 0
    available = max(0, wallet.balance_micros - wallet.held_micros)
    longest = longest_seconds(rate_of(call), held + available, terms)
    if longest is None:
        raise _NotAdmitted(INSUFFICIENT_FUNDS, call.id)
    return longest


def _admit_new_call(
    session: Session,
    call: Call,
    ask: AdmissionRequest,
    entry_point: EntryPoint,
    wallet: Wallet,
    *,
    terms: Terms,
    now: datetime,
) -> None:
    """Reserve a new call's first hold and write its row.

    Raises: _NotAdmitted if the call is refused.
    """
    call.origin, call.direction = CallOrigin.ADMITTED, ask.direction
    call.our_party, call.their_party = last_digits(ask.our_number), ask.their_party
    call.twilio_call_sid, call.phone_number_id = ask.twilio_call_sid, ask.phone_number_id
    if entry_point.assistant_id is None:
        raise _NotAdmitted(NO_ASSISTANT)
    refusal = spending_block(session, entry_point.organization_id, now)
    if refusal is not None:
        raise _NotAdmitted(refusal.code)
    number = priced_number(ask.direction, our_number=ask.our_number, their_number=ask.their_number)
    route_rate = find_rate(session, entry_point.organization_id, ask.direction, number)
    if route_rate is None:
        raise _NotAdmitted(NO_RATE)
    rate = route_rate.rate
    longest = longest_seconds(rate, wallet.balance_micros - wallet.held_micros, terms)
    if longest is None:
        raise _NotAdmitted(INSUFFICIENT_FUNDS)
    call.twilio_account_sid = twilio_account_of(session, entry_point) or ask.twilio_account_sid
    call.assistant_id = entry_point.assistant_id
    call.rate_route, call.number_seen = route_rate.route, number is not None
    call.max_duration_seconds = longest
    # Metering starts at the admission. The provider's report of the start then moves it to the real
    # start.
    call.metered_from = now
    first_seconds = min(first_step_seconds(rate, terms), longest)
    outcome = open_call(session, call, rate, wallet.currency, seconds=first_seconds, now=now)
    if not outcome.ok:
        raise _NotAdmitted(outcome.code)
    call.refusal = None


def _drop_foreign_reservation(
    session: Session, ask: AdmissionRequest, owner: str, now: datetime
) -> None:
    """Release a reservation that another organization made for this call.

    The call uses a number or an assistant of `owner`, so `owner` pays for it.
    """
    call = call_of_provider(session, ask.external_id)
    if call is None or call.organization_id == owner or call.origin != CallOrigin.RESERVED:
        return
    facts = CallFacts(
        ask.external_id, None, assistant_id=ask.assistant_id, phone_number_id=ask.phone_number_id
    )
    release_foreign_reservation(session, call, owner, facts, now)


def _record_refusal(
    session: Session, call: Call, wallet: Wallet, code: str, *, is_new: bool, now: datetime
) -> None:
    """Record why a call was refused.

    A new call gets a row without a hold. A reserved call keeps its status, because its hold is
    still open.
    """
    if is_new:
        insert_refused_call(session, call, wallet.currency, code, now)
    else:
        call.refusal = code
        note(session, call, "refused", now, code)
