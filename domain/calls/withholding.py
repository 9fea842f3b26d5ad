"""Withhold a call's charge while a charged reservation may be the same call.

The company may commit a reservation before the provider reports its call. Any unpaired outgoing
call between the reserve and commit requests, with the same number or none, may then be that call.
At most one of them is. So at most one call waits for each such reservation, and the others are
charged. There are never more charges than calls.

Calls and reservations are matched as in a bipartite graph. A call is charged only if no exchange
among the waiting calls leaves a reservation for it. If two calls compete, the one whose duration
equals the charged one waits. Everything is read and changed under the wallet's lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import CallBillingState, CallOrigin
from base.problems.calls import FOREIGN_NUMBER
from db.locks import lock_calls
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.calls.anomalies import alert_unsettled
from domain.calls.billing import in_state, is_cost_settled
from domain.calls.double_charges import CLOCKS_DIFFER, may_be_outgoing
from domain.calls.rows import mark_anomaly, merged_ids, note, stage_for
from domain.jobs.types import REFRESH_CALL

#: How long after the company's commit a report without timestamps may still arrive.
_REPORT_DELAY_MAX = timedelta(seconds=900)
#: Durations that differ by no more than this may belong to the same call, in milliseconds.
_SAME_DURATION_MS = 5_000
#: The most reservations that are compared with one call. With more, the call waits for an operator.
_COMPARED_MAX = 500
#: For each of several calls: the charged, unpaired reservations that may belong to it, and the call
#: that waits for each of them already. A call's own reservation is first, then free ones, then the
#: nearest durations. The conditions repeat those of the partial index, so that any plan can use it.
#: The condition on created_at is not written as a range of the column. Otherwise a plan could use
#: an index on it and read all calls of a day.
_CANDIDATES = text("""
    SELECT c.call_id, r.id, r.duration_ms, r.held_by
    FROM unnest(CAST(:calls AS text[]), CAST(:parties AS text[]), CAST(:durations AS bigint[]),
                CAST(:settled_from AS timestamptz[]), CAST(:created_to AS timestamptz[]))
         WITH ORDINALITY AS c(call_id, party, duration_ms, settled_from, created_to, place)
    CROSS JOIN LATERAL (
        SELECT x.id, x.duration_ms, x.held_by, row_number() OVER (ORDER BY
            CASE WHEN x.held_by = c.call_id THEN 0 WHEN x.held_by IS NULL THEN 1 ELSE 2 END,
            abs(x.duration_ms - c.duration_ms), x.created_at, x.id) AS place
        FROM (SELECT r.id, r.duration_ms, r.created_at, (
            SELECT h.id FROM calls h WHERE h.organization_id = r.organization_id
                AND h.withheld_for = r.id AND h.settled_at IS NULL) AS held_by
        FROM calls r
        WHERE r.organization_id = :org AND r.origin = 'reserved' AND r.provider_call_id IS NULL
            AND r.merged_into IS NULL AND r.settled_by IN ('api', 'operator') AND r.cost_micros > 0
            AND r.settled_at >= c.settled_from
            AND c.created_to - r.created_at >= interval '0'
            AND (c.party IS NULL OR r.their_party IS NULL OR r.their_party = c.party)
            AND r.id <> ALL (CAST(:seen AS text[]))) x
        ORDER BY place LIMIT :most
    ) r
    ORDER BY c.place, r.place
""")


@dataclass(frozen=True)
class Withheld:
    """Whether a call's charge waits, and why."""

    why: str | None = None
    #: If the charge does not wait: a reservation that may belong to the call, and the call that
    #: waits for it.
    rival: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Edge:
    """A possible match: a call, a reservation, and the call that waits for it already."""

    call_id: str
    reservation_id: str
    duration_ms: int
    held_by: str | None

    def has_duration(self, duration_ms: int | None) -> bool:
        """Return whether the reservation was charged for about this duration."""
        return duration_ms is not None and abs(self.duration_ms - duration_ms) <= _SAME_DURATION_MS


def withhold(session: Session, call: Call, duration_ms: int, now: datetime) -> Withheld:
    """Decide whether an ended call's charge waits, and record for which reservation.

    The wallet and the call must already be locked. Replay: a call that waits goes on waiting while
    its reservation is charged and unpaired.
    """
    if is_cost_settled(call):
        return Withheld()
    if call.refusal == FOREIGN_NUMBER:
        return Withheld(
            "the call's number or assistant belongs to other organizations; see call_foreign"
        )
    if call.origin != CallOrigin.ADOPTED or not may_be_outgoing(call) or merged_ids(session, call):
        call.withheld_for = None
        return Withheld()
    call.duration_ms = duration_ms
    session.flush()
    path, is_complete = _find_path(session, call)
    if path:
        _assign(session, call, path, now)
        return Withheld(_why(call, path[0].reservation_id))
    if not is_complete:
        return Withheld(
            f"more than {_COMPARED_MAX} charged and unpaired reservations may belong to it"
        )
    return _replace_waiting_call(session, call, now)


def end_withholding(session: Session, reservation: Call, now: datetime) -> None:
    """Stop withholding the charge that waits for a reservation that is now paired.

    The call is refreshed and charged, unless another reservation may belong to it. Replay: no call
    is waiting any more.
    """
    if reservation.origin != CallOrigin.RESERVED:
        return
    session.flush()
    subject = reservation.id
    clear_alerts(session, AlertKind.CALL_AMBIGUOUS, reservation.organization_id, subject, now=now)
    found = session.scalars(
        select(Call.id).where(
            Call.organization_id == reservation.organization_id,
            Call.withheld_for == reservation.id,
            in_state(CallBillingState.WITHHELD),
        )
    ).all()
    for call in lock_calls(session, reservation.organization_id, list(found)):
        _stop_withholding(session, call, f"{reservation.id} is paired with another call", now)


def alert_ambiguous(session: Session, call: Call, rival: tuple[str, str], now: datetime) -> None:
    """Raise an alert for a charged call that may belong to a charged reservation.

    Another call may belong to that reservation too, and waits for it.
    """
    reservation_id, waiting = rival
    mark_anomaly(call, "may_be_reserved")
    raise_alert(
        session,
        AlertKind.CALL_AMBIGUOUS,
        call.organization_id,
        reservation_id,
        severity=Severity.WARNING,
        details={"withheld": waiting, "charged": call.id, "provider_call": call.provider_call_id},
        now=now,
    )


def _find_path(session: Session, call: Call) -> tuple[list[_Edge], bool]:
    """Find a reservation for a call, with the exchanges that free it; nearest first.

    The path begins with the call's own new reservation. An empty path with True means that there is
    none. An empty path with False means that there are too many to compare.
    """
    edge_of: dict[str, _Edge] = {}
    reservation_of: dict[str, str] = {}
    level: Sequence[Call] = [call]
    while level:
        edges, is_complete = _edges(session, level, list(edge_of))
        following: list[str] = []
        for edge in edges:
            if edge.reservation_id in edge_of:
                continue
            edge_of[edge.reservation_id] = edge
            if edge.held_by is None or edge.held_by == edge.call_id:
                return _unwind(edge_of, reservation_of, edge), True
            reservation_of[edge.held_by] = edge.reservation_id
            following.append(edge.held_by)
        if call.withheld_for is not None:
            # The search would have found the call's own reservation first. It did not, so that
            # reservation no longer qualifies.
            call.withheld_for = None
            session.flush()
        if not is_complete or len(edge_of) >= _COMPARED_MAX:
            return [], False
        level = lock_calls(session, call.organization_id, following)
    return [], True


def _unwind(edge_of: dict[str, _Edge], reservation_of: dict[str, str], last: _Edge) -> list[_Edge]:
    """Return the path from the call that needs a reservation to a free one."""
    path = [last]
    while (own := reservation_of.get(path[0].call_id)) is not None:
        path.insert(0, edge_of[own])
    return path


def _edges(session: Session, calls: Sequence[Call], seen: list[str]) -> tuple[list[_Edge], bool]:
    """Return each call's possible reservations, and whether the list is complete."""
    windows = [_window(call) for call in calls]
    rows = session.execute(
        _CANDIDATES,
        {
            "org": calls[0].organization_id,
            "calls": [call.id for call in calls],
            "parties": [call.their_party for call in calls],
            "durations": [call.duration_ms or 0 for call in calls],
            "settled_from": [began for began, _ in windows],
            "created_to": [ended for _, ended in windows],
            "seen": seen,
            "most": _COMPARED_MAX,
        },
    )
    edges = [_Edge(*row) for row in rows]
    counted = Counter(edge.call_id for edge in edges)
    return edges, max(counted.values(), default=0) < _COMPARED_MAX


def _window(call: Call) -> tuple[datetime, datetime]:
    """Return the earliest commit and the latest creation of a call's reservation."""
    if call.started_at is not None:
        began = call.started_at - CLOCKS_DIFFER
    else:
        began = call.created_at - _REPORT_DELAY_MAX
    ended = call.ended_at or call.ended_seen_at or call.created_at
    return began, ended + CLOCKS_DIFFER


def _assign(session: Session, call: Call, path: Sequence[_Edge], now: datetime) -> None:
    """Give each call of a path its new reservation.

    All calls lose their old ones first, because only one call may wait for a reservation.
    """
    ids = [edge.call_id for edge in path]
    moved = {one.id: one for one in lock_calls(session, call.organization_id, ids)}
    for one in moved.values():
        one.withheld_for = None
    session.flush()
    for edge in path:
        one = moved[edge.call_id]
        one.withheld_for = edge.reservation_id
        if one.id != call.id:
            # Its alert still names its former reservation.
            kind = AlertKind.CALL_UNSETTLED
            clear_alerts(session, kind, one.organization_id, one.id, now=now)
            alert_unsettled(session, one, _why(one, edge.reservation_id), now)
    session.flush()


def _replace_waiting_call(session: Session, call: Call, now: datetime) -> Withheld:
    """Replace a waiting call if only the new call has the charged duration.

    The replaced call is refreshed. If no waiting call can be replaced, the new call does not wait,
    and a rival is returned.
    """
    call.withheld_for = None
    session.flush()
    edges, _ = _edges(session, [call], [])
    waiting = {
        one.id: one
        for one in lock_calls(
            session, call.organization_id, [edge.held_by for edge in edges if edge.held_by]
        )
    }
    for edge in edges:
        other = waiting.get(edge.held_by or "")
        if other is None:
            continue
        if edge.has_duration(call.duration_ms) and not edge.has_duration(other.duration_ms):
            _stop_withholding(session, other, f"{call.id} fits {edge.reservation_id} better", now)
            call.withheld_for = edge.reservation_id
            session.flush()
            return Withheld(_why(call, edge.reservation_id))
    return Withheld(rival=(edges[0].reservation_id, str(edges[0].held_by)) if edges else None)


def _stop_withholding(session: Session, call: Call, why: str, now: datetime) -> None:
    """Stop withholding a call's charge, and refresh the call to decide again."""
    call.withheld_for = None
    session.flush()
    note(session, call, "withheld_no_more", now, why)
    clear_alerts(session, AlertKind.CALL_UNSETTLED, call.organization_id, call.id, now=now)
    stage_for(session, REFRESH_CALL, [call])


def _why(call: Call, reservation: str) -> str:
    return (
        f"reservation {reservation} was charged and may be this call: commit it again with"
        f" vapiCallId {call.provider_call_id}, or settle this call"
    )
