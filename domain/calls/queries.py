"""Read calls: find one by any id, list them in pages, sum their costs by day.

This module only reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import ColumnElement, Date, and_, cast, func, or_, select, tuple_
from sqlalchemy.orm import Session

from base.enums import CallBillingState, CallStatus
from base.outcomes import Refused
from base.problems.calls import CALL_NOT_UNIQUE
from base.problems.operators import UNBOUNDED_SEARCH
from db.models import CallHold, Wallet, WalletEntry
from db.models.calls import IS_LIVE, Call, CallTimeline
from domain.calls.billing import NOT_ADMITTED, UNSETTLED_STATES, in_state
from domain.calls.rows import CallNotFound, holds_of, merged_ids, resolve_merged

#: The most calls on one page, and the most days in one report.
PAGE_MAX = 500
DAYS_MAX = 400
#: Every call has a wallet, so this join drops none. With it, PostgreSQL finds the calls of a period
#: through one index, organization by organization.
_WALLET_JOIN = Wallet.organization_id == Call.organization_id
#: The longest id of a call, in characters.
_ID_LENGTH_MAX = 64
#: The most calls with one id that are read, and named in an error.
_CALLS_WITH_ID_MAX = 5
#: The states of the calls that a report of costs counts.
_COST_STATES = (
    CallBillingState.TALKING_UNPAID,
    CallBillingState.CHARGED,
    CallBillingState.FREE,
    CallBillingState.EXPIRED,
)
#: The suffixes of the operation keys of a call's entries.
_ENTRY_KEY_SUFFIXES = ("commit", "released", "expired")


class CallNotUnique(Refused):
    """Several calls have this id, so it does not identify one of them."""

    def __init__(self, any_id: str, calls: Sequence[Call]) -> None:
        candidates = ", ".join(f"{call.id} of {call.organization_id}" for call in calls)
        super().__init__(
            CALL_NOT_UNIQUE, f"{any_id} names several calls: {candidates}", call=any_id
        )


class UnboundedList(Refused):
    """The list would read all calls of all organizations."""

    def __init__(self) -> None:
        super().__init__(
            UNBOUNDED_SEARCH, "to list calls that are over, give an organization or a time"
        )


@dataclass(frozen=True)
class CostsOfDay:
    """The totals of an organization's calls in one day (UTC, by `created_at`)."""

    organization_id: str
    day: date
    currency: str
    calls: int
    seconds: int
    cost_micros: int
    #: What the provider charges us for these calls, in micros of a US dollar.
    provider_cost_micros: int


@dataclass(frozen=True)
class CallDetails:
    """A call with its hold, its ledger entries and its timeline.

    If reservations were merged into the call, their entries and timelines are included.
    """

    call: Call
    hold: CallHold | None
    entries: list[WalletEntry]
    timeline: list[CallTimeline]
    merged: list[str]


def find_call(
    session: Session, any_id: str, organization_id: str | None = None, *, alone: bool = False
) -> Call | None:
    """Find a call by our id, Vapi's, Twilio's or its appointment's.

    An appointment's id finds its newest call. The id of a merged reservation finds the call that it
    became. Our ids and appointment ids are unique only within an organization.

    `alone` is for functions that change the call: they must not guess, so an appointment with
    several calls is refused. Return None if no call has the id. Raises: CallNotUnique.
    """
    if not 0 < len(any_id) <= _ID_LENGTH_MAX or "\0" in any_id:
        return None
    has_id = or_(Call.id == any_id, Call.provider_call_id == any_id, Call.twilio_call_sid == any_id)
    found = _find_newest_first(session, has_id, organization_id)
    if found:
        # Within one organization, our own id takes precedence over the provider's ids.
        found.sort(key=lambda call: call.id != any_id)
    else:
        found = _find_newest_first(session, Call.appointment_id == any_id, organization_id)
        if alone and len({call.merged_into or call.id for call in found}) > 1:
            raise CallNotUnique(any_id, found)
    if len({call.organization_id for call in found}) > 1:
        raise CallNotUnique(any_id, found)
    return resolve_merged(session, found[0]) if found else None


def read_call_details(session: Session, call: Call) -> CallDetails:
    """Return a call with its hold, its entries and its timeline."""
    merged = merged_ids(session, call)
    ids = [call.id, *merged]
    all_holds = holds_of(session, call, merged)
    # Entries have no index by key, so the query selects them by their time. An entry's time is the
    # settlement time of the call or of a hold.
    settled = {at for at in (call.settled_at, *(hold.settled_at for hold in all_holds)) if at}
    entries = session.scalars(
        select(WalletEntry)
        .where(
            WalletEntry.organization_id == call.organization_id,
            WalletEntry.created_at.in_(settled),
            WalletEntry.operation_key.in_(
                [f"call:{call_id}:{suffix}" for call_id in ids for suffix in _ENTRY_KEY_SUFFIXES]
            ),
        )
        .order_by(WalletEntry.entry_no)
        .execution_options(populate_existing=True)
    )
    timeline = session.scalars(
        select(CallTimeline)
        .where(CallTimeline.organization_id == call.organization_id, CallTimeline.call_id.in_(ids))
        .order_by(CallTimeline.id)
    )
    own_hold = next((hold for hold in all_holds if hold.call_id == call.id), None)
    return CallDetails(call, own_hold, list(entries), list(timeline), merged)


def list_calls(
    session: Session,
    *,
    organization_id: str | None = None,
    live: bool = True,
    refused_since: datetime | None = None,
    status: CallStatus | None = None,
    state: CallBillingState | None = None,
    unsettled: bool = False,
    since: datetime | None = None,
    after: str | None = None,
    limit: int = PAGE_MAX,
) -> Sequence[Call]:
    """List calls, newest first.

    `after` is the cursor of the previous page's last call. `live` leaves out calls that are over,
    except those refused since `refused_since`. Merged reservations are left out unless `state` is
    MERGED. Bounds: PAGE_MAX calls.

    Raises: CallNotFound if no call is at the cursor. Raises UnboundedList unless `live`,
    `unsettled`, an unsettled `state`, an organization or `since` limits the list.
    """
    is_indexed = live or unsettled or state in UNSETTLED_STATES
    if not (is_indexed or organization_id or since):
        raise UnboundedList
    statement = select(Call)
    if state is not None:
        statement = statement.where(in_state(state))
    else:
        statement = statement.where(Call.merged_into.is_(None))
    if live:
        is_live: ColumnElement[bool] = IS_LIVE
        if refused_since is not None:
            recent = and_(Call.status == CallStatus.REFUSED, Call.created_at >= refused_since)
            is_live = or_(is_live, recent)
        statement = statement.where(is_live)
    if unsettled:
        statement = statement.where(Call.settled_at.is_(None))
    if status is CallStatus.REFUSED:
        statement = statement.where(Call.refusal.is_not(None), in_state(*NOT_ADMITTED))
    elif status is not None:
        statement = statement.where(Call.status == status)
    if since is not None:
        statement = statement.where(Call.created_at >= since)
    if organization_id is not None:
        statement = statement.where(Call.organization_id == organization_id)
    elif not is_indexed:
        statement = statement.join(Wallet, _WALLET_JOIN)
    position = tuple_(Call.created_at, Call.organization_id, Call.id)
    if after is not None:
        last = _call_at_cursor(session, after)
        statement = statement.where(position < (last.created_at, last.organization_id, last.id))
    return session.scalars(
        statement.order_by(Call.created_at.desc(), Call.organization_id.desc(), Call.id.desc())
        .limit(min(limit, PAGE_MAX))
        .execution_options(populate_existing=True)
    ).all()


def cursor_of(call: Call) -> str:
    """Return the cursor of the page that follows this call."""
    return f"{call.organization_id}/{call.id}"


def costs_by_day(
    session: Session,
    *,
    organization_id: str | None = None,
    first_day: date,
    last_day: date,
) -> list[CostsOfDay]:
    """Sum the settled calls of each organization and UTC day, oldest first.

    Refused and withdrawn calls do not count. A merged reservation counts as the call that it
    became. Both days are included. The API and the CLI limit the period to DAYS_MAX days.
    """
    day = cast(func.timezone("UTC", Call.created_at), Date)
    statement = (
        select(
            Call.organization_id,
            day,
            Call.currency,
            func.count(),
            func.sum(Call.duration_ms),
            func.sum(Call.cost_micros),
            func.sum(Call.provider_cost_micros),
        )
        .where(
            Call.created_at >= datetime.combine(first_day, time.min, UTC),
            Call.created_at <= datetime.combine(last_day, time.max, UTC),
            in_state(*_COST_STATES),
        )
        .group_by(Call.organization_id, day, Call.currency)
        .order_by(day, Call.organization_id)
    )
    if organization_id is not None:
        statement = statement.where(Call.organization_id == organization_id)
    else:
        statement = statement.join(Wallet, _WALLET_JOIN)
    return [
        CostsOfDay(
            organization_id=row[0],
            day=row[1],
            currency=row[2],
            calls=row[3],
            seconds=int(row[4] or 0) // 1000,
            cost_micros=int(row[5] or 0),
            provider_cost_micros=int(row[6] or 0),
        )
        for row in session.execute(statement)
    ]


def ending_ms(call: Call) -> tuple[int | None, int | None]:
    """Return the ms from the decision to end a call to the order, and to the end.

    The order is the first one that Vapi or Twilio accepted; the end is when it was reported. Either
    is None if it has not happened.
    """
    return _ms_between(call.end_decided_at, call.end_told_at), _ms_between(
        call.end_decided_at, call.ended_seen_at
    )


def _find_newest_first(
    session: Session, condition: ColumnElement[bool], organization_id: str | None
) -> list[Call]:
    statement = select(Call).where(condition)
    if organization_id is not None:
        statement = statement.where(Call.organization_id == organization_id)
    return list(
        session.scalars(
            statement.order_by(Call.created_at.desc(), Call.organization_id, Call.id)
            .limit(_CALLS_WITH_ID_MAX)
            .execution_options(populate_existing=True)
        )
    )


def _call_at_cursor(session: Session, cursor: str) -> Call:
    organization_id, _, call_id = cursor.partition("/")
    last = session.get(Call, (organization_id, call_id), populate_existing=True)
    if last is None:
        raise CallNotFound(cursor)
    return last


def _ms_between(decided_at: datetime | None, at: datetime | None) -> int | None:
    if decided_at is None or at is None:
        return None
    return round((at - decided_at) / timedelta(milliseconds=1))
