"""Refresh calls whose messages are overdue, and release expired holds.

A hold is released only if its call has no id at the provider, or if the provider does not know that
id. If the provider does not answer, the hold stays.
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
from domain.calls.anomalies import alert_unsettled, clear_unanswered
from domain.calls.rows import HOLD_GRACE_SECONDS, TALKING, mark_anomaly, note, stage_for
from domain.calls.settlement import close_expired, settle_from_provider
from domain.jobs.staging import open_arguments, stage_many
from domain.jobs.types import EXPIRE_HOLDS, REFRESH_CALL
from domain.wallet import holds

#: The most calls, and the most organizations, that one sweep handles.
SWEEP_MAX = 500
#: The shortest time between two refreshes of a call, in seconds. If the wait for a call's report is
#: shorter, that wait applies.
_REFRESH_INTERVAL_SECONDS = 60.0
#: How long after its admission a call may still be unknown to its provider, in seconds. Until then,
#: the answer "there is no such call" is ignored.
ABSENT_SECONDS = 120

#: A hold whose creation time is more than this many seconds in the future was made before the clock
#: stepped back.
_FUTURE_HOLD_SECONDS = 60.0
_PULL_BACK_HOLDS_SQL = text("SELECT pull_back_call_holds(CAST(:now AS timestamptz), :ahead)")


def sweep(
    session: Session, now: datetime, *, report_seconds: float, silent_seconds: float
) -> tuple[int, int]:
    """Stage refreshes of overdue calls, and the expiry of holds without a provider id.

    A call is refreshed if its hold has expired, or if it ended `report_seconds` ago without a
    report. A live call is also refreshed after `silent_seconds` without a message. Between two
    refreshes of a call there is at least a minute, or `report_seconds` if that is shorter. If the
    call's last refresh still waits, the sweep stages no other one and raises an alert.

    If the database's clock stepped back, holds that were made in the future are treated as made
    now. Return the numbers of refreshes and of organizations. Locks only the calls that it marks as
    refreshed, and skips calls that another transaction has locked. Bounds: SWEEP_MAX of each.
    """
    session.execute(_PULL_BACK_HOLDS_SQL, {"now": now, "ahead": _FUTURE_HOLD_SECONDS})
    overdue = _lock_overdue_calls(session, now, report_seconds, silent_seconds)
    # While the provider's circuit breaker is open, a refresh is postponed and does not fail, so it
    # raises no alert itself.
    waiting = open_arguments(session, REFRESH_CALL) if overdue else set()
    to_refresh = [call for call in overdue if (call.organization_id, call.id) not in waiting]
    for call in overdue:
        call.asked_at = now
        if call not in to_refresh:
            _alert_unanswered(session, call, "the call's refresh is still waiting", now)
    stage_for(session, REFRESH_CALL, to_refresh)
    organizations = _organizations_to_expire(session, now)
    stage_many(
        session, EXPIRE_HOLDS, [(owner, {"organization_id": owner}) for owner in organizations]
    )
    return len(to_refresh), len(organizations)


def expire_unreported(session: Session, organization_id: str, now: datetime) -> list[str]:
    """Release an organization's expired holds whose calls have no provider's id.

    Return the ids of the calls. Locks the wallet. Bounds: SWEEP_MAX holds. Replay: nothing is left
    to expire.
    """
    if lock_wallet(session, organization_id) is None:
        return []
    ids = list(
        session.scalars(
            _select_expired_holds(now, CallHold.call_id)
            .where(CallHold.organization_id == organization_id, _lacks_provider_id())
            .order_by(CallHold.call_id)
            .limit(SWEEP_MAX)
        )
    )
    expired = holds.expire(session, organization_id, call_ids=ids, now=now)
    for call in lock_calls(session, organization_id, expired):
        close_expired(session, call, now)
    return expired


def call_is_absent(session: Session, organization_id: str, call_id: str, now: datetime) -> None:
    """Handle the provider's answer that it does not know a call.

    An expired hold is released. Before it expires, the answer may only be early. If the provider
    had reported the call in progress, the hold stays and an alert is raised. If it had reported the
    end, our own meter settles the call, or an alert is raised. Replay: nothing is left to release.
    """
    wallet = lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if wallet is None or call is None or call.settled_at is not None:
        return
    if (now - call.created_at).total_seconds() < ABSENT_SECONDS:
        return
    mark_anomaly(call, "absent")
    note(session, call, "absent", now, "the provider does not know the call")
    hold = holds.hold_of_call(session, organization_id, call_id)
    is_held = hold is not None and hold.status == HoldStatus.OPEN
    if call.status == CallStatus.ENDED and call.provider_call_id is not None:
        # The call existed, so our own meter settles it. Without a meter, an operator must.
        settle_from_provider(session, call, CallFacts(call.provider_call_id, None), "look", now)
    elif call.status in TALKING:
        alert_unsettled(session, call, "the call was in progress, and Vapi no longer knows it", now)
    elif not is_held or holds.expire(session, organization_id, call_ids=[call_id], now=now):
        close_expired(session, call, now)
    else:
        # The ticks would extend the hold for as long as there is money, and it would never expire.
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
    """Settle an ended call by our own meter, because its record cannot be read.

    The report gets `report_seconds` from the end to arrive. Until then, and while the call goes on,
    the hold stays and an alert is raised. Replay: a settled call is left unchanged.
    """
    wallet = lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if wallet is None or call is None or call.settled_at is not None:
        return
    reported_by = now - timedelta(seconds=report_seconds)
    if call.ended_seen_at is None or call.ended_seen_at > reported_by:
        _alert_unanswered(session, call, why, now)
        return
    mark_anomaly(call, "unreadable")
    note(session, call, "unreadable", now, why)
    settle_from_provider(session, call, CallFacts(call.provider_call_id or "", None), "look", now)


def postpone_expiry(session: Session, organization_id: str, call_id: str, now: datetime) -> None:
    """Postpone the expiry of a hold, because the provider reports the call as live.

    The hold then stays open for at least HOLD_GRACE_SECONDS from now.
    """
    holds.postpone_expiry(
        session,
        organization_id,
        call_id,
        expires_at=now + timedelta(seconds=HOLD_GRACE_SECONDS),
        now=now,
    )


def alert_unanswered(
    session: Session, organization_id: str, call_id: str, why: str, now: datetime
) -> None:
    """Raise an alert if the provider does not answer about a call; the hold stays.

    A call that was settled meanwhile needs no answer.
    """
    call = lock_call(session, organization_id, call_id)
    if call is not None and call.settled_at is None:
        _alert_unanswered(session, call, why, now)


def _alert_unanswered(session: Session, call: Call, why: str, now: datetime) -> None:
    raise_alert(
        session,
        AlertKind.HOLD_UNANSWERED,
        call.organization_id,
        call.id,
        severity=Severity.WARNING,
        details={"why": why[:200]},
        now=now,
    )


def _lock_overdue_calls(
    session: Session, now: datetime, report_seconds: float, silent_seconds: float
) -> Sequence[Call]:
    silent_since = now - timedelta(seconds=silent_seconds)
    reported_by = now - timedelta(seconds=report_seconds)
    refreshed_before = now - timedelta(seconds=min(_REFRESH_INTERVAL_SECONDS, report_seconds))
    has_expired_hold = (
        select(CallHold.call_id)
        .where(
            CallHold.organization_id == Call.organization_id,
            CallHold.call_id == Call.id,
            CallHold.status == HoldStatus.OPEN,
            CallHold.expires_at <= now,
        )
        .exists()
    )
    is_live = Call.status != CallStatus.ENDED
    return session.scalars(
        select(Call)
        .where(
            Call.settled_at.is_(None),
            Call.provider_call_id.is_not(None),
            # An instant in the future was written before the clock stepped back, so it is long
            # past.
            or_(Call.asked_at.is_(None), Call.asked_at < refreshed_before, Call.asked_at > now),
            or_(
                has_expired_hold,
                Call.ended_seen_at < reported_by,
                Call.ended_seen_at > now,
                and_(is_live, or_(Call.seen_at < silent_since, Call.seen_at > now)),
                and_(is_live, Call.seen_at.is_(None), Call.created_at < silent_since),
            ),
        )
        # The call that was refreshed longest ago comes first. If the oldest call came first, calls
        # that never get an answer would fill every sweep and keep out all others.
        .order_by(Call.asked_at.asc().nulls_first(), Call.created_at)
        .limit(SWEEP_MAX)
        .with_for_update(key_share=True, skip_locked=True, of=Call)
        .execution_options(populate_existing=True)
    ).all()


def _organizations_to_expire(session: Session, now: datetime) -> Sequence[str]:
    return session.scalars(
        _select_expired_holds(now, CallHold.organization_id)
        .where(_lacks_provider_id())
        .group_by(CallHold.organization_id)
        .order_by(CallHold.organization_id)
        .limit(SWEEP_MAX)
    ).all()


def _select_expired_holds(now: datetime, column: InstrumentedAttribute[str]) -> Select[str]:
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


def _lacks_provider_id() -> ColumnElement[bool]:
    """Match holds whose call has no row here, or no id at its provider."""
    return Call.provider_call_id.is_(None)
