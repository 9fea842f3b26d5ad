"""Prevent a double charge while a reservation and its call are not paired.

A reservation without the provider's id may be the same call as an adopted one. Direction, time and
number decide which adopted calls qualify. If the report arrives before the commit, the commit is
refused: this module finds the calls. If the commit arrives first, the adopted call's charge waits
(domain/calls/withholding). Everything is read under the wallet's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, not_, or_, select
from sqlalchemy.orm import Session, aliased

from base.enums import CallBillingState, CallDirection, CallOrigin
from base.facts import CALL_DURATION_MS_MAX
from db.models.calls import Call
from domain.calls.billing import in_state

#: The anomaly of a call that was adopted from a report without a direction.
NO_DIRECTION = "no_direction"
#: How far the provider's clock may differ from ours.
CLOCKS_DIFFER = timedelta(seconds=5)
_CALL_DURATION_MAX = timedelta(milliseconds=CALL_DURATION_MS_MAX)
#: The most calls that one query reads.
_CALLS_READ_MAX = 5


def adopted_calls_of(session: Session, reservation: Call) -> Sequence[Call]:
    """Return adopted calls that may be the same as a reservation, oldest first.

    These calls are outgoing and unpaired, and had not ended before the reservation was made. Calls
    without a cost and calls that wait for another reservation are left out, because they cannot be
    charged twice.
    Bounds: 5 calls.
    """
    return session.scalars(
        _select_unpaired_calls(reservation)
        .where(
            Call.created_at >= reservation.created_at - _CALL_DURATION_MAX,
            or_(
                Call.ended_seen_at.is_(None),
                Call.ended_seen_at >= reservation.created_at - CLOCKS_DIFFER,
            ),
            or_(Call.settled_at.is_(None), Call.cost_micros > 0),
            not_(in_state(CallBillingState.WITHHELD)),
        )
        .order_by(Call.created_at)
        .limit(_CALLS_READ_MAX)
    ).all()


def _select_unpaired_calls(reservation: Call) -> Select[Call]:
    """Select adopted, unpaired outgoing calls with the reservation's number or none."""
    merged = aliased(Call)
    is_merged = (
        select(merged.id)
        .where(merged.organization_id == Call.organization_id, merged.merged_into == Call.id)
        .exists()
    )
    statement = select(Call).where(
        Call.organization_id == reservation.organization_id,
        Call.origin == CallOrigin.ADOPTED,
        Call.merged_into.is_(None),
        ~is_merged,
        _may_be_outgoing_sql(),
    )
    if reservation.their_party is not None:
        same_number = or_(Call.their_party.is_(None), Call.their_party == reservation.their_party)
        statement = statement.where(same_number)
    return statement.execution_options(populate_existing=True)


def _may_be_outgoing_sql() -> ColumnElement[bool]:
    return or_(
        Call.direction == CallDirection.OUTBOUND,
        and_(Call.direction == CallDirection.INBOUND, Call.oddities.contains([NO_DIRECTION])),
    )


def may_be_outgoing(call: Call) -> bool:
    """Return whether a call is outgoing, or may be because its direction is unknown."""
    return call.direction == CallDirection.OUTBOUND or NO_DIRECTION in call.oddities
