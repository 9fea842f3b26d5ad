"""What keeps one call from being charged twice while it is not known to be one.

A reservation without the provider's id and a call that a report told of first may be the same call.
Which of them can be is decided by direction, time and number. All of it is read under the wallet's
lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session, aliased

from base.enums import CallDirection, CallOrigin
from base.facts import CALL_DURATION_MS_MAX
from db.call_models import Call
from domain.calls.rows import FOREIGN_NUMBER, is_priced, merged_ids

#: The mark of an adopted call whose direction no report has told.
NO_DIRECTION = "no_direction"
#: How far the provider's clock may differ from ours.
_CLOCKS_DIFFER = timedelta(seconds=5)
#: How long after the company's commit a report may still come that names no instants.
_REPORT_LATE = timedelta(seconds=900)
_LONGEST_CALL = timedelta(milliseconds=CALL_DURATION_MS_MAX)
#: Calls that one query reads at most.
_READ_MAX = 5


def adopted_calls_of(session: Session, reservation: Call) -> Sequence[Call]:
    """Return adopted calls that an unpaired reservation may be about, the oldest first.

    They are unpaired themselves, are outgoing, and were not over when it was reserved. A call that
    cost nothing is none: it cannot be charged twice.
    """
    return session.scalars(
        _unpaired(CallOrigin.ADOPTED, reservation)
        .where(
            Call.created_at >= reservation.created_at - _LONGEST_CALL,
            or_(
                Call.ended_seen_at.is_(None),
                Call.ended_seen_at >= reservation.created_at - _CLOCKS_DIFFER,
            ),
            or_(Call.settled_at.is_(None), Call.cost_micros > 0),
        )
        .order_by(Call.created_at)
        .limit(_READ_MAX)
    ).all()


def charged_reservation_of(session: Session, call: Call) -> Call | None:
    """Return the reservation under which an adopted call may have been charged already.

    It is unpaired, was committed by the company, and the call lies between its two requests. There
    is none for a call that is paired: its own reservation is known.
    """
    if call.origin != CallOrigin.ADOPTED or not is_outgoing(call) or merged_ids(session, call):
        return None
    found = session.scalars(
        _unpaired(CallOrigin.RESERVED, call)
        .where(
            Call.created_at >= call.created_at - _LONGEST_CALL - _REPORT_LATE,
            Call.settled_by.in_(("api", "operator")),
            Call.cost_micros > 0,
        )
        .order_by(Call.created_at)
    )
    return next((one for one in found if _lies_within(call, one)), None)


def why_withheld(session: Session, call: Call) -> str | None:
    """Return why a call's cost is for a person to decide; None if it may be charged."""
    if is_priced(call):
        return None
    if call.refusal == FOREIGN_NUMBER:
        return "its number or assistant belongs to other organizations; see call_foreign"
    reservation = charged_reservation_of(session, call)
    if reservation is None:
        return None
    return (
        f"reservation {reservation.id} was charged and may be this call: commit it again with"
        f" vapiCallId {call.provider_call_id}, or settle this call"
    )


def _unpaired(origin: CallOrigin, other: Call) -> Select[Call]:
    """Select calls of one origin that may be the same as one of another, and are not paired yet."""
    merged = aliased(Call)
    is_merged = (
        select(merged.id)
        .where(merged.organization_id == Call.organization_id, merged.merged_into == Call.id)
        .exists()
    )
    statement = select(Call).where(
        Call.organization_id == other.organization_id,
        Call.origin == origin,
        Call.merged_into.is_(None),
        ~is_merged,
    )
    if origin is CallOrigin.RESERVED:
        statement = statement.where(Call.provider_call_id.is_(None))
    else:
        statement = statement.where(_outgoing())
    if other.their_party is not None:
        same_number = or_(Call.their_party.is_(None), Call.their_party == other.their_party)
        statement = statement.where(same_number)
    return statement.execution_options(populate_existing=True)


def _outgoing() -> ColumnElement[bool]:
    return or_(
        Call.direction == CallDirection.OUTBOUND,
        and_(Call.direction == CallDirection.INBOUND, Call.oddities.contains([NO_DIRECTION])),
    )


def is_outgoing(call: Call) -> bool:
    """Return whether a call goes out, or may: its provider has not named the direction."""
    return call.direction == CallDirection.OUTBOUND or NO_DIRECTION in call.oddities


def _lies_within(call: Call, reservation: Call) -> bool:
    """Return whether a call may have been made between a reservation and its commit."""
    if reservation.settled_at is None:
        return False
    if call.started_at is not None:
        began, late = call.started_at, _CLOCKS_DIFFER
    else:
        began, late = call.created_at, _REPORT_LATE
    ended = call.ended_at or call.ended_seen_at or call.created_at
    begins_before_commit = began <= reservation.settled_at + late
    return begins_before_commit and ended >= reservation.created_at - _CLOCKS_DIFFER
