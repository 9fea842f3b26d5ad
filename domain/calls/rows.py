"""Rows of calls: find and lock them, read their facts, write their timeline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import CallDirection, CallStatus, EndCause
from base.outcomes import Refused
from base.problems.calls import CALL_NOT_FOUND
from base.problems.code import Code
from db.locks import lock_call, lock_wallet
from db.models import CallHold, Wallet
from db.models.calls import Call, CallTimeline
from domain.calls.rates import Rate
from domain.jobs.declaration import JobType
from domain.jobs.staging import stage_many

#: Seconds that a hold stays open after the talk time that it covers. This is longer than a report
#: takes to arrive.
HOLD_GRACE_SECONDS = 900
#: How often a call that has not begun is refreshed, in seconds.
BEGIN_REFRESH_SECONDS = 30
#: The statuses of a call in progress: it was connected and has not ended.
TALKING = (CallStatus.IN_PROGRESS, CallStatus.FORWARDING)
_DETAIL_LENGTH_MAX = 500


class CallNotFound(Refused):
    """There is no call with this id."""

    def __init__(self, call_id: str) -> None:
        super().__init__(CALL_NOT_FOUND, call_id, call=call_id)


def call_of_provider(session: Session, provider_call_id: str) -> Call | None:
    """Find the call with this id at its provider, without locking it."""
    return session.scalars(
        select(Call)
        .where(Call.provider_call_id == provider_call_id)
        .execution_options(populate_existing=True)
    ).one_or_none()


def resolve_merged(session: Session, call: Call) -> Call:
    """Return the call that a merged reservation became, or any other call unchanged.

    Takes no lock.
    """
    if call.merged_into is None:
        return call
    return session.get_one(Call, (call.organization_id, call.merged_into), populate_existing=True)


def merged_ids(session: Session, call: Call) -> list[str]:
    """Return the ids of the reservations that were merged into a call."""
    return list(
        session.scalars(
            select(Call.id)
            .where(Call.organization_id == call.organization_id, Call.merged_into == call.id)
            .order_by(Call.id)
        )
    )


def holds_of(session: Session, call: Call, merged: Sequence[str]) -> list[CallHold]:
    """Return the holds of a call and of the reservations that were merged into it."""
    return list(
        session.scalars(
            select(CallHold)
            .where(
                CallHold.organization_id == call.organization_id,
                CallHold.call_id.in_([call.id, *merged]),
            )
            .order_by(CallHold.call_id)
            .execution_options(populate_existing=True)
        )
    )


def call_and_wallet(session: Session, organization_id: str, call_id: str) -> tuple[Call, Wallet]:
    """Lock a call's wallet, then the call.

    For a merged reservation, the call that it became is locked and returned. Raises: CallNotFound.
    """
    wallet = lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if call is not None and call.merged_into is not None:
        call = lock_call(session, organization_id, call.merged_into)
    if wallet is None or call is None:
        raise CallNotFound(call_id)
    return call, wallet


def rate_of(call: Call) -> Rate:
    """Return a call's rate; NO_RATE if none was found yet (see `has_rate`)."""
    return Rate(call.micros_per_minute, call.increment_seconds, call.minimum_micros)


def has_rate(call: Call) -> bool:
    """Return whether a rate was found for a call.

    Without a rate, a call is neither metered nor charged.
    """
    return call.micros_per_minute > 0


def end_code(call: Call) -> Code | None:
    """Return the code of the reason for which a call is ended; None if it is not."""
    return None if call.end_cause is None else EndCause(call.end_cause).code


def parties(call: Call) -> tuple[str | None, str | None]:
    """Return the calling and the called number's last digits; None if unknown."""
    if call.direction == CallDirection.OUTBOUND:
        return call.our_party, call.their_party
    return call.their_party, call.our_party


def is_permission(call: Call) -> bool:
    """Return whether a call is a campaign's permission that is not dialled yet."""
    return call.contact_id is not None and call.provider_call_id is None


def hold_end(now: datetime, seconds: int) -> datetime:
    """Return when a hold expires that covers this many seconds from now."""
    return now + timedelta(seconds=seconds + HOLD_GRACE_SECONDS)


def note(session: Session, call: Call, what: str, now: datetime, detail: str = "") -> None:
    """Add a line to a call's timeline; cut the detail at 500 characters."""
    session.add(
        CallTimeline(
            organization_id=call.organization_id,
            call_id=call.id,
            at=now,
            what=what,
            detail=detail[:_DETAIL_LENGTH_MAX],
        )
    )


def mark_anomaly(call: Call, *anomalies: str) -> None:
    """Add anomalies to a call, by their short names.

    Replay: adds nothing.
    """
    call.oddities = sorted({*call.oddities, *anomalies})


def stage_for(session: Session, job: JobType, calls: Sequence[Call]) -> None:
    """Stage one job for each of these calls, in a few statements."""
    session.flush()
    stage_many(
        session,
        job,
        [
            (call.organization_id, {"organization_id": call.organization_id, "call_id": call.id})
            for call in calls
        ],
    )
