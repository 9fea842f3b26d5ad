"""Permission for a campaign at the provider to dial a contact, with a hold.

A permission is the row of a call that its provider has not reported yet, with a short hold. The
dialled call takes the row over, matched by campaign and number. An unused permission expires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import CallDirection, CallOrigin
from base.facts import CallFacts, PermissionRequest
from base.ids import new_id
from base.masking import last_digits
from base.problems.calls import CALL_SETTLED, NO_CONTACT, NO_RATE, UNKNOWN_ENTRY_POINT
from base.problems.code import Code
from base.problems.wallet import INSUFFICIENT_FUNDS, WALLET_NOT_FOUND
from db.locks import lock_call, lock_wallet
from db.models import Wallet
from db.models.calls import IS_LIVE, Call, EntryPoint
from domain.calls.admission import longest_seconds
from domain.calls.entry_points import find_entry_point, twilio_account_of
from domain.calls.metering import first_step_seconds
from domain.calls.opening import open_call
from domain.calls.rates import find_rate
from domain.calls.rows import HOLD_GRACE_SECONDS, is_permission, note, stage_for
from domain.calls.settings import terms_of
from domain.entitlement import spending_block
from domain.jobs.types import END_CALL
from domain.wallet import holds

#: How long a permission holds money until its call is reported, in seconds. The provider dials as
#: soon as it has the answer.
PERMISSION_SECONDS = 180.0


@dataclass(frozen=True)
class Permission:
    """The answer to a campaign: `refusal` is the code, or None if it may dial."""

    organization_id: str | None
    call_id: str | None
    refusal: str | None
    #: Whether this request created the permission. False if an earlier request did.
    is_new: bool = field(default=False, compare=False)


def permit(
    session: Session,
    ask: PermissionRequest,
    now: datetime,
    *,
    permission_seconds: float = PERMISSION_SECONDS,
) -> Permission:
    """Permit a campaign to dial a contact, with a hold for the call, or refuse it.

    The conditions and the hold are those of an inbound call. Replay: while the permission, or the
    call that took it over, is open, the same contact gets the same answer. Nothing more is held.

    Refuses: UNKNOWN_ENTRY_POINT, NO_RATE, INSUFFICIENT_FUNDS, WALLET_NOT_FOUND, the reasons of
    `spending_block`, and the refusals of `holds.reserve`. NO_CONTACT if the contact has no id,
    because two requests for it could not be recognized as one. CALL_SETTLED while the permitted
    call is being ended.
    """
    entry_point = find_entry_point(
        session,
        assistant_id=ask.assistant_id,
        phone_numbers=(ask.phone_number_id,),
        campaign_id=ask.campaign_id,
    )
    if entry_point is None:
        return Permission(None, None, UNKNOWN_ENTRY_POINT)
    organization_id = entry_point.organization_id
    wallet = lock_wallet(session, organization_id)
    # Read under the wallet's lock, so that two simultaneous requests for a contact create one hold.
    known = _open_permission(session, organization_id, ask)
    if known is not None:
        # The first answer may come too late and be withdrawn. A permission that is marked as seen
        # is not withdrawn with it.
        known.seen_at = now
        refusal = CALL_SETTLED if known.end_decided_at is not None else None
        return Permission(organization_id, known.id, refusal)
    if not ask.contact_id or wallet is None:
        return Permission(organization_id, None, NO_CONTACT if wallet else WALLET_NOT_FOUND)
    expires_at = now + timedelta(seconds=permission_seconds)
    made = _hold(session, ask, entry_point, wallet, expires_at=expires_at, now=now)
    if isinstance(made, Code):
        return Permission(organization_id, None, made)
    return Permission(organization_id, made.id, None, is_new=True)


def find_permitted(session: Session, facts: CallFacts) -> Call | None:
    """Find and lock the permission of a dialled call, by its campaign and number.

    If several permissions have the same last digits, the oldest is used, because their holds are
    alike.
    """
    if facts.campaign_id is None or facts.their_party is None:
        return None
    entry_point = find_entry_point(
        session,
        assistant_id=facts.assistant_id,
        phone_numbers=(facts.phone_number_id,),
        campaign_id=facts.campaign_id,
    )
    if entry_point is None or facts.direction not in (None, CallDirection.OUTBOUND):
        return None
    lock_wallet(session, entry_point.organization_id)
    call_id = session.scalar(
        select(Call.id)
        .where(
            Call.organization_id == entry_point.organization_id,
            Call.campaign_id == facts.campaign_id,
            Call.their_party == facts.their_party,
            Call.provider_call_id.is_(None),
            Call.settled_at.is_(None),
        )
        .order_by(Call.created_at, Call.id)
        .limit(1)
    )
    return None if call_id is None else lock_call(session, entry_point.organization_id, call_id)


def take_over(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """Turn a permission into the reported call, and postpone its hold's expiry.

    The hold then lasts at least HOLD_GRACE_SECONDS from now. If the permission's end was decided, a
    job ends the call. Replay: a call that is no longer a permission is left unchanged.
    """
    if not is_permission(call):
        return
    call.provider_call_id = facts.external_id
    holds.postpone_expiry(
        session,
        call.organization_id,
        call.id,
        expires_at=now + timedelta(seconds=HOLD_GRACE_SECONDS),
        now=now,
    )
    note(session, call, "dialled", now)
    if call.end_decided_at is not None:
        stage_for(session, END_CALL, [call])


def _open_permission(session: Session, organization_id: str, ask: PermissionRequest) -> Call | None:
    return session.scalars(
        select(Call)
        .where(
            Call.organization_id == organization_id,
            Call.campaign_id == ask.campaign_id,
            Call.contact_id == ask.contact_id,
            IS_LIVE,
        )
        .order_by(Call.created_at.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).one_or_none()


def _hold(
    session: Session,
    ask: PermissionRequest,
    entry_point: EntryPoint,
    wallet: Wallet,
    *,
    expires_at: datetime,
    now: datetime,
) -> Call | Code:
    """Hold the first step of a call; return its row, or the code of the refusal."""
    refusal = spending_block(session, entry_point.organization_id, now)
    if refusal is not None:
        return refusal.code
    found = find_rate(
        session, entry_point.organization_id, CallDirection.OUTBOUND, ask.their_number
    )
    if found is None:
        return NO_RATE
    terms = terms_of(session, entry_point.organization_id)
    longest = longest_seconds(found.rate, wallet.balance_micros - wallet.held_micros, terms)
    if longest is None:
        return INSUFFICIENT_FUNDS
    call = Call(
        organization_id=entry_point.organization_id,
        id=new_id("call"),
        direction=CallDirection.OUTBOUND,
        origin=CallOrigin.ADMITTED,
        twilio_account_sid=twilio_account_of(session, entry_point),
        their_party=last_digits(ask.their_number),
        assistant_id=ask.assistant_id,
        phone_number_id=ask.phone_number_id,
        campaign_id=ask.campaign_id,
        contact_id=ask.contact_id,
        rate_route=found.route,
    )
    outcome = open_call(
        session,
        call,
        found.rate,
        wallet.currency,
        seconds=min(first_step_seconds(found.rate, terms), longest),
        now=now,
        expires_at=expires_at,
    )
    return call if outcome.ok else outcome.code
