"""What nobody has said of a call in time is asked for; holds whose time is over are given back.

A hold is given back only where nobody is left to ask, or the provider knows no such call: an answer
that does not come keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from base.enums import CallStatus, HoldStatus
from base.facts import CallFacts
from db.call_models import Call
from db.locks import lock_call, lock_calls, lock_wallet
from db.models import CallHold
from domain import holds
from domain.alerts import AlertKind, Severity, raise_alert
from domain.calls.anomalies import clear_unanswered, tell_unsettled
from domain.calls.rows import HOLD_GRACE_SECONDS, TALKING, mark_odd, note, stage_for
from domain.calls.settlement import close_expired, settle_by_word
from domain.jobs import EXPIRE_HOLDS, LOOK_AT_CALL, owed, stage_many

#: Calls, and organizations, that one sweep finds at most.
SWEEP_MAX = 500
#: A call is not asked about again for so long, in seconds, or for as long as its report is waited
#: for, where that is less.
_ASK_AGAIN_SECONDS = 60.0
#: "There is no such call" is believed so long after the call was let in, in seconds: until then
#: its provider may not know it yet.
ABSENT_SECONDS = 120


def sweep(
    session: Session, now: datetime, *, report_seconds: float, silent_seconds: float
) -> tuple[int, int]:
    """This function will stage looks at calls, and the expiry of holds that nobody is asked about.

    Asked about are calls whose hold is over, that ended `report_seconds` ago without a report, or
    that live and were not heard of for `silent_seconds`; each once a minute at most, and not again
    while the last look is still owed, which is told to a person then. Gives how many looks and how
    many organizations. Locks only the calls it marks as asked; those that somebody else has locked
    are passed over.
    """
    looks = _calls_to_ask(session, now, report_seconds, silent_seconds)
    # A look is postponed, not failed, for as long as its provider's circuit is open.
    waiting = owed(session, LOOK_AT_CALL) if looks else set()
    unasked = [call for call in looks if (call.organization_id, call.id) not in waiting]
    for call in looks:
        call.asked_at = now
        if call not in unasked:
            _tell_unanswered(session, call, "its look is still owed", now)
    stage_for(session, LOOK_AT_CALL, unasked)
    organizations = _organizations_to_expire(session, now)
    stage_many(session, EXPIRE_HOLDS, [(one, {"organization_id": one}) for one in organizations])
    return len(unasked), len(organizations)


def expire_unasked(session: Session, organization_id: str, now: datetime) -> list[str]:
    """This function will give back an organization's holds that are over and have nobody to ask.

    Under the wallet's lock, in one batch. Gives their calls. Replay: nothing is left to expire.
    """
    if lock_wallet(session, organization_id) is None:
        return []
    ids = list(
        session.scalars(
            _expired(now, CallHold.call_id)
            .where(CallHold.organization_id == organization_id, _nobody_to_ask())
            .order_by(CallHold.call_id)
            .limit(SWEEP_MAX)
        )
    )
    expired = holds.expire(session, organization_id, call_ids=ids, now=now)
    for call in lock_calls(session, organization_id, expired):
        close_expired(session, call, now)
    return expired


def call_is_absent(session: Session, organization_id: str, call_id: str, now: datetime) -> None:
    """This function will act on the provider's word that it knows no such call.

    A hold that is over is given back; before that the word may only be early. That of a call that
    talked by the provider's own word stays, and a person is told. Replay: nothing is left to give
    back.
    """
    wallet = lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if wallet is None or call is None or call.settled_at is not None:
        return
    if (now - call.created_at).total_seconds() < ABSENT_SECONDS:
        return
    mark_odd(call, "absent")
    note(session, call, "absent", now, "the provider knows no such call")
    hold = holds.hold_of_call(session, organization_id, call_id)
    is_held = hold is not None and hold.status == HoldStatus.OPEN
    if call.status == CallStatus.ENDED and call.provider_call_id is not None:
        # It was there: what it cost is for our own meter to tell, or for a person.
        settle_by_word(session, call, CallFacts(call.provider_call_id, None), "look", now)
    elif call.status in TALKING:
        tell_unsettled(session, call, "it talked, and its provider knows it no more", now)
    elif not is_held or holds.expire(session, organization_id, call_ids=[call_id], now=now):
        close_expired(session, call, now)
    else:
        # Extended for as long as there is money, its hold would never come to its end. Its first
        # word has it metered again.
        call.tick_at = None
    clear_unanswered(session, organization_id, call_id, now)


def call_is_unreadable(
    session: Session,
    organization_id: str,
    call_id: str,
    why: str,
    now: datetime,
    *,
    report_seconds: float,
) -> None:
    """Settle an ended call by our own meter, because its provider's record cannot be read.

    Only once its report has had `report_seconds` from the end to arrive; until then, and while the
    call goes on, its hold stays and a person is told. Replay: a settled call is left as it is.
    """
    wallet = lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if wallet is None or call is None or call.settled_at is not None:
        return
    reported_by = now - timedelta(seconds=report_seconds)
    if call.ended_seen_at is None or call.ended_seen_at > reported_by:
        _tell_unanswered(session, call, why, now)
        return
    mark_odd(call, "unreadable")
    note(session, call, "unreadable", now, why)
    settle_by_word(session, call, CallFacts(call.provider_call_id or "", None), "look", now)


def put_off_hold(session: Session, organization_id: str, call_id: str, now: datetime) -> None:
    """This function will keep the hold of a call that, by its provider's word, lives on."""
    holds.put_off(
        session,
        organization_id,
        call_id,
        expires_at=now + timedelta(seconds=HOLD_GRACE_SECONDS),
        now=now,
    )


def tell_unanswered(
    session: Session, organization_id: str, call_id: str, why: str, now: datetime
) -> None:
    """This function will tell a person that a call's provider does not answer; its hold stays.

    One that is settled meanwhile needs no answer.
    """
    call = lock_call(session, organization_id, call_id)
    if call is not None and call.settled_at is None:
        _tell_unanswered(session, call, why, now)


def _tell_unanswered(session: Session, call: Call, why: str, now: datetime) -> None:
    raise_alert(
        session,
        AlertKind.HOLD_UNANSWERED,
        call.organization_id,
        call.id,
        severity=Severity.WARNING,
        details={"why": why[:200]},
        now=now,
    )


def _calls_to_ask(
    session: Session, now: datetime, report_seconds: float, silent_seconds: float
) -> Sequence[Call]:
    silent = now - timedelta(seconds=silent_seconds)
    reported_by = now - timedelta(seconds=report_seconds)
    asked_before = now - timedelta(seconds=min(_ASK_AGAIN_SECONDS, report_seconds))
    over = (
        select(CallHold.call_id)
        .where(
            CallHold.organization_id == Call.organization_id,
            CallHold.call_id == Call.id,
            CallHold.status == HoldStatus.OPEN,
            CallHold.expires_at <= now,
        )
        .exists()
    )
    live = Call.status != CallStatus.ENDED
    return session.scalars(
        select(Call)
        .where(
            Call.settled_at.is_(None),
            Call.provider_call_id.is_not(None),
            # An instant later than now was written before the clock was set back: long ago.
            or_(Call.asked_at.is_(None), Call.asked_at < asked_before, Call.asked_at > now),
            or_(
                over,
                Call.ended_seen_at < reported_by,
                Call.ended_seen_at > now,
                and_(live, or_(Call.seen_at < silent, Call.seen_at > now)),
                and_(live, Call.seen_at.is_(None), Call.created_at < silent),
            ),
        )
        # Not by age: those of which nobody can tell would be asked about for ever, and no others.
        .order_by(Call.asked_at.asc().nulls_first(), Call.created_at)
        .limit(SWEEP_MAX)
        .with_for_update(key_share=True, skip_locked=True, of=Call)
        .execution_options(populate_existing=True)
    ).all()


def _organizations_to_expire(session: Session, now: datetime) -> Sequence[str]:
    return session.scalars(
        _expired(now, CallHold.organization_id)
        .where(_nobody_to_ask())
        .group_by(CallHold.organization_id)
        .order_by(CallHold.organization_id)
        .limit(SWEEP_MAX)
    ).all()


def _expired(now: datetime, column: InstrumentedAttribute[str]) -> Select[str]:
    return (
        select(column)
        .select_from(CallHold)
        .outerjoin(
            Call,
            and_(
                Call.organization_id == CallHold.organization_id,
                Call.id == CallHold.call_id,
            ),
        )
        .where(CallHold.status == HoldStatus.OPEN, CallHold.expires_at <= now)
    )


def _nobody_to_ask() -> ColumnElement[bool]:
    """No row of the call, which then only the ledger knows, or none that names its provider's."""
    return Call.provider_call_id.is_(None)
