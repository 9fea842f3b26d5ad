"""Refresh calls whose messages did not come in time, and release expired holds.

A hold is released only if no provider can be asked, or if the provider knows no such call. Without
an answer the hold stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, or_, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from base.enums import CallStatus, HoldStatus
from base.facts import CallFacts
from db.locks import lock_call, lock_calls, lock_wallet
from db.models import CallHold
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.calls.anomalies import clear_unanswered, tell_unsettled
from domain.calls.rows import HOLD_GRACE_SECONDS, TALKING, mark_odd, note, stage_for
from domain.calls.settlement import close_expired, settle_by_word
from domain.jobs.staging import owed, stage_many
from domain.jobs.types import EXPIRE_HOLDS, LOOK_AT_CALL
from domain.wallet import holds

#: Calls, and organizations, that one sweep finds at most.
SWEEP_MAX = 500
#: A call is not refreshed again within this many seconds, or within the wait for its report if that
#: is shorter.
_ASK_AGAIN_SECONDS = 60.0
#: "There is no such call" is believed this many seconds after the call was admitted. Until then its
#: provider may not know it yet.
ABSENT_SECONDS = 120

#: A hold that was made further in the future than this was made before the clock stepped back.
_FUTURE_SECONDS = 60.0
_PULL_BACK = text("SELECT pull_back_call_holds(CAST(:now AS timestamptz), :ahead)")


def sweep(
    session: Session, now: datetime, *, report_seconds: float, silent_seconds: float
) -> tuple[int, int]:
    """Stage refreshes of calls, and the expiry of holds that no provider can explain.

    Refreshed are calls whose hold has expired, calls that ended `report_seconds` ago without a
    report, and live calls without a message for `silent_seconds`. Each is refreshed at most once a
    minute. If its last refresh is still waiting, no other is staged and a person is alerted.
    Holds that were made in the future, because the database's clock stepped back, are treated as
    made now. Returns the numbers of refreshes and of organizations. Locks only the calls that it
    marks as asked, and skips calls that another transaction has locked.
    """
    session.execute(_PULL_BACK, {"now": now, "ahead": _FUTURE_SECONDS})
    looks = _calls_to_ask(session, now, report_seconds, silent_seconds)
    # A look is postponed, not failed, for as long as its provider's circuit is open.
    waiting = owed(session, LOOK_AT_CALL) if looks else set()
    unasked = [call for call in looks if (call.organization_id, call.id) not in waiting]
    for call in looks:
        call.asked_at = now
        if call not in unasked:
            _tell_unanswered(session, call, "its refresh is still waiting", now)
    stage_for(session, LOOK_AT_CALL, unasked)
    organizations = _organizations_to_expire(session, now)
    stage_many(session, EXPIRE_HOLDS, [(one, {"organization_id": one}) for one in organizations])
    return len(unasked), len(organizations)


def expire_unasked(session: Session, organization_id: str, now: datetime) -> list[str]:
    """Release an organization's expired holds about which no provider can be asked.

    Takes the wallet's lock; one batch. Returns the calls. Replay: nothing is left to expire.
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
    """Handle the provider's answer that it knows no such call.

    An expired hold is released; before it expires, the answer may only be early. If the provider
    had reported that somebody talked, the hold stays and a person is alerted. Replay: nothing is
    left to release.
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
        # The call existed, so our own meter settles it, or a person does.
        settle_by_word(session, call, CallFacts(call.provider_call_id, None), "look", now)
    elif call.status in TALKING:
        tell_unsettled(session, call, "it was in progress, and Vapi no longer knows it", now)
    elif not is_held or holds.expire(session, organization_id, call_ids=[call_id], now=now):
        close_expired(session, call, now)
    else:
        # The ticks would extend the hold for as long as there is money, so that it never expires.
        # The call's first message starts them again.
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
    """Postpone the expiry of a hold, because the provider says that the call is live."""
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
    """Alert a person that a call's provider does not answer; the hold stays.

    A call that was settled meanwhile needs no answer.
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
        # Not by age: calls that never get an answer would fill every sweep and keep out all others.
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
    """Match holds whose call has no row here, or no id at its provider."""
    return Call.provider_call_id.is_(None)
