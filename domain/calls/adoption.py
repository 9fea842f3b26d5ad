"""Adopt calls that began without our admission: hold money for them, or end them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallDirection, CallOrigin, CallStatus, EndCause
from base.facts import CallFacts
from base.ids import new_id
from base.problems.wallet import FROZEN_WALLET
from db.locks import lock_wallet
from db.models import Wallet
from db.models.calls import Call, EntryPoint
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.calls.double_charges import NO_DIRECTION
from domain.calls.ending import decide_ending
from domain.calls.entry_points import find_entry_point, twilio_account_of
from domain.calls.metering import first_step_seconds
from domain.calls.opening import insert_call, open_call
from domain.calls.pairing import fail_open_organization, find_reported
from domain.calls.permission import find_permitted
from domain.calls.rates import NO_RATE, Rate, find_rate, priced_number
from domain.calls.rows import mark_anomaly, note
from domain.calls.settings import terms_of


def adopt(
    session: Session, facts: CallFacts, now: datetime, *, refused: Call | None = None
) -> Call | None:
    """Adopt a call that its provider reported first, or a refused call that goes on.

    If the call is known and was not refused, return it unchanged. If it belongs to no organization,
    raise an alert and return None. If no rate fits, the row has no rate (see
    `rating.rate_by_number`). Locks the wallet, then the call.
    """
    entry_point = find_entry_point(
        session,
        assistant_id=facts.assistant_id,
        phone_numbers=(facts.phone_number_id,),
        campaign_id=facts.campaign_id,
    )
    if refused is not None:
        organization_id: str | None = refused.organization_id
    else:
        organization_id = (
            entry_point.organization_id
            if entry_point is not None
            else fail_open_organization(session, facts)
        )
    wallet = None if organization_id is None else lock_wallet(session, organization_id)
    if organization_id is None or wallet is None:
        why = "the call's assistant and phone number do not lead to one organization"
        _alert_unknown_call(session, None, facts, why, now)
        return None
    # Read again under the wallet's lock, because another message may have adopted the call first.
    known = find_reported(session, facts, now) or find_permitted(session, facts)
    if known is not None and known.status != CallStatus.REFUSED:
        return known
    direction = facts.direction or CallDirection.INBOUND
    number = priced_number(direction, our_number=facts.our_number, their_number=facts.their_number)
    route_rate = find_rate(session, organization_id, direction, number)
    call = known or _new_call(session, organization_id, entry_point, facts, direction)
    call.rate_route = None if route_rate is None else route_rate.route
    call.number_seen = route_rate is not None and number is not None
    if route_rate is None:
        # Without a rate nothing can be held. `rate_by_number` raises an alert and has the call
        # ended.
        insert_call(session, call, NO_RATE, wallet.currency, now)
    elif facts.status is CallStatus.ENDED:
        insert_call(session, call, route_rate.rate, wallet.currency, now)
    else:
        hold_or_end(session, call, wallet, route_rate.rate, now)
    why = "the refused call continues" if known else "Vapi requested no admission for the call"
    note(session, call, "adopted", now, why)
    for alert_owner in (None, organization_id):
        clear_alerts(session, AlertKind.CALL_UNKNOWN, alert_owner, facts.external_id, now=now)
    # Versions before 0007 recorded no refusals, so a call that was never connected may be one that
    # they refused. Such a call does not prove that its entry point skips the admission request.
    if known is None and not call.fail_open and not facts.never_connected:
        _alert_no_admission_request(session, call, facts, now)
    return call


def hold_or_end(
    session: Session,
    call: Call,
    wallet: Wallet,
    rate: Rate,
    now: datetime,
    *,
    names_provider: bool = True,
) -> None:
    """Write a live call's row with its hold. If the hold is refused, end the call.

    If the wallet has a debt limit and is not frozen, the call goes on without a hold. Its first
    tick, which is due once the call is in progress, may lend it part of the debt limit.

    `names_provider` is False if another hold already has the provider's call id.
    """
    step_seconds = first_step_seconds(rate, terms_of(session, wallet.organization_id))
    # The call is in progress, so hold what is available. If nothing is, request a whole step, so
    # that the ledger's refusal gives the reason.
    paid_seconds = rate.seconds_for(wallet.balance_micros - wallet.held_micros)
    seconds = min(step_seconds, paid_seconds) or step_seconds
    outcome = open_call(
        session,
        call,
        rate,
        wallet.currency,
        seconds=seconds,
        now=now,
        names_provider=names_provider,
    )
    if not outcome.ok:
        # The call is in progress without a hold: record it and end it. Its cost until then is
        # charged.
        insert_call(session, call, rate, wallet.currency, now)
        frozen = outcome.outcome == FROZEN_WALLET
        if not frozen and wallet.debt_limit_micros > 0:
            return
        cause = EndCause.FROZEN_WALLET if frozen else EndCause.INSUFFICIENT_FUNDS
        decide_ending(session, call, cause, now)


def _new_call(
    session: Session,
    organization_id: str,
    entry_point: EntryPoint | None,
    facts: CallFacts,
    direction: CallDirection,
) -> Call:
    """Build the row of an adopted call.

    The call gets a new id, which cannot be guessed. A call that was admitted while the database did
    not answer keeps its id from then.
    """
    was_fail_open = fail_open_organization(session, facts) == organization_id
    is_id_unused = (
        was_fail_open and session.get(Call, (organization_id, facts.call_id or "")) is None
    )
    call = Call(
        organization_id=organization_id,
        id=facts.call_id if is_id_unused else new_id("call"),
        provider_call_id=facts.external_id,
        twilio_account_sid=twilio_account_of(session, entry_point),
        direction=direction,
        origin=CallOrigin.ADMITTED if was_fail_open else CallOrigin.ADOPTED,
        fail_open=was_fail_open,
        oddities=[],
    )
    if facts.direction is None and not was_fail_open:
        mark_anomaly(call, NO_DIRECTION)
    return call


def _alert_no_admission_request(
    session: Session, call: Call, facts: CallFacts, now: datetime
) -> None:
    raise_alert(
        session,
        AlertKind.ENTRY_POINT_UNASKED,
        call.organization_id,
        facts.phone_number_id or facts.assistant_id or facts.external_id,
        severity=Severity.WARNING,
        details={"call": call.id, "direction": call.direction},
        now=now,
    )


def _alert_unknown_call(
    session: Session, organization_id: str | None, facts: CallFacts, why: str, now: datetime
) -> None:
    raise_alert(
        session,
        AlertKind.CALL_UNKNOWN,
        organization_id,
        facts.external_id,
        severity=Severity.CRITICAL,
        details={
            "why": why,
            "assistant": facts.assistant_id,
            "phone_number": facts.phone_number_id,
            "status": facts.status,
        },
        now=now,
    )
