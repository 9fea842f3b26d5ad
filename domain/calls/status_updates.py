"""Apply provider reports to calls: late, repeated, out of order, or missing.

A report never moves a call's status back, and only the provider marks a call as ended.
domain/calls/settlement settles the cost.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from base.enums import CallBillingState, CallStatus, EndCause
from base.facts import CALL_DURATION_MS_MAX, CallFacts, CallReport
from db.locks import lock_call, lock_wallet
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.calls.adoption import adopt
from domain.calls.anomalies import alert_unknown_status, clear_unanswered
from domain.calls.billing import CLOSED_UNPRICED, CONTINUING_STATES, billing_state
from domain.calls.charges import has_talked
from domain.calls.ending import alert_not_ended, decide_ending
from domain.calls.foreign import is_foreign
from domain.calls.pairing import find_reported
from domain.calls.permission import find_permitted, take_over
from domain.calls.rating import rate_by_number
from domain.calls.rows import TALKING, mark_anomaly, note, stage_for
from domain.calls.second_holds import reserve_second_hold
from domain.calls.settlement import settle_from_provider
from domain.calls.withholding import end_withholding
from domain.jobs.types import END_CALL, REFRESH_CALL

#: The order of the statuses. A report of a status before the current one is late.
_STATUS_ORDER = {
    CallStatus.ADMITTED: 0,
    CallStatus.QUEUED: 1,
    CallStatus.RINGING: 2,
    CallStatus.IN_PROGRESS: 3,
    CallStatus.FORWARDING: 4,
    CallStatus.ENDED: 5,
}
_BEGUN_STATUSES = (*TALKING, CallStatus.ENDED)


def apply_report(
    session: Session, report: CallReport, received_at: datetime, now: datetime
) -> bool:
    """Apply a verified report to its call; return False if there is no call for it.

    `received_at` is when the message arrived. An unknown call is adopted once it is in progress or
    over, because until then it may still request admission. The call is metered from then on, or
    settled at once if it is over. A call that belongs to no organization is not adopted.

    A refused call stays refused, unless the report proves a conversation. Replay: changes nothing.
    """
    call = find_reported(session, report.facts, now) or find_permitted(session, report.facts)
    if call is not None and call.status == CallStatus.REFUSED:
        if not _proves_conversation(report.facts):
            _record_refused_end(session, call, report.facts, now)
            return True
        call = adopt(session, report.facts, now, refused=call)
    elif call is None and (report.final or report.facts.status in _BEGUN_STATUSES):
        call = adopt(session, report.facts, now)
    if call is None:
        return False
    take_over(session, call, report.facts, now)
    if not report.final:
        call = reserve_second_hold(session, call, report.facts, now)
    _apply_facts(
        session, call, report.facts, received_at=received_at, talking_ms=report.talking_ms, now=now
    )
    if report.facts.unknown_status is not None and call.settled_at is None:
        alert_unknown_status(session, call, report.facts, now)
        stage_for(session, REFRESH_CALL, [call])
    if report.final:
        _mark_ended(session, call, report.facts, now)
    rate_by_number(session, call, report.facts, now)
    if report.final:
        settle_from_provider(session, call, report.facts, "report", now)
    return True


def _proves_conversation(facts: CallFacts) -> bool:
    """Return whether a report proves a conversation."""
    return facts.status in TALKING or bool(facts.duration_ms)


def _record_refused_end(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """Record the end of a refused call.

    Replay: adds no line to the timeline.
    """
    is_first_end = facts.status is CallStatus.ENDED and call.ended_reason is None
    _copy_facts(call, facts)
    call.seen_at = now
    if is_first_end:
        note(session, call, "ended", now, facts.ended_reason or "")


def apply_refresh(
    session: Session, organization_id: str, call_id: str, facts: CallFacts, now: datetime
) -> None:
    """Apply the result of a call's refresh, and settle the call if it has ended.

    Replay: changes nothing.
    """
    talking_ms = None
    if facts.started_at is not None:
        talking_ms = max(0, round((now - facts.started_at) / timedelta(milliseconds=1)))
    known = session.get(Call, (organization_id, call_id), populate_existing=True)
    if known is not None and is_foreign(session, known, facts):
        # The call may belong to another organization. If the facts are applied as a report, they
        # lead to that organization.
        apply_report(session, CallReport(facts, final=False, talking_ms=talking_ms), now, now)
        return
    call = _lock_wallet_and_call(session, organization_id, call_id)
    if call is None or call.status == CallStatus.REFUSED:
        return
    was_settled = call.settled_at is not None
    call = reserve_second_hold(session, call, facts, now)
    _apply_facts(session, call, facts, received_at=now, talking_ms=talking_ms, now=now)
    rate_by_number(session, call, facts, now)
    if facts.status is CallStatus.ENDED:
        settle_from_provider(session, call, facts, "look", now)
    if facts.status is not None and facts.unknown_status is None:
        clear_unanswered(session, organization_id, call.id, now)
    elif not was_settled:
        alert_unknown_status(session, call, facts, now)


def _lock_wallet_and_call(session: Session, organization_id: str, call_id: str) -> Call | None:
    """Lock a call's wallet, then the call; if merged, the call that it became."""
    lock_wallet(session, organization_id)
    call = lock_call(session, organization_id, call_id)
    if call is not None and call.merged_into is not None:
        call = lock_call(session, organization_id, call.merged_into)
    return call


def _apply_facts(
    session: Session,
    call: Call,
    facts: CallFacts,
    *,
    received_at: datetime,
    talking_ms: int | None,
    now: datetime,
) -> None:
    was_paired = call.provider_call_id is not None
    _copy_facts(call, facts)
    if not was_paired:
        end_withholding(session, call, now)
    status, reported = CallStatus(call.status), facts.status
    if reported is not None:
        # A message without a known status does not prove that the call is live.
        call.seen_at = now
    if reported is not None and _STATUS_ORDER[reported] > _STATUS_ORDER[status]:
        if reported is CallStatus.ENDED:
            _mark_ended(session, call, facts, now)
            return
        call.status = reported
        if reported in TALKING and status not in TALKING:
            _reopen_closed_call(session, call, now)
            _start_meter(call, received_at, talking_ms, now)
            _end_settled_call(session, call, now)
        note(session, call, reported, now)
    elif reported in TALKING and status is CallStatus.ENDED and not has_talked(session, call):
        _note_late_talk(session, call, now)
    session.flush()


def _note_late_talk(session: Session, call: Call, now: datetime) -> None:
    """Record that the provider reported the call in progress only after its end.

    A call that was settled as one without a conversation is refreshed, because its report may have
    denied the conversation.
    """
    note(session, call, CallStatus.IN_PROGRESS, now, "reported in progress after its end")
    if billing_state(call) is CallBillingState.FREE:
        stage_for(session, REFRESH_CALL, [call])


def _reopen_closed_call(session: Session, call: Call, now: datetime) -> None:
    """Reopen a call that was closed without a price, to end it and to charge it.

    A call that may go on gets a second hold instead (see domain/calls/second_holds).
    """
    if billing_state(call) not in CLOSED_UNPRICED:
        return
    call.settled_at = call.settled_by = call.cost_micros = call.duration_ms = None
    note(session, call, "reopened", now, "the caller talks although the hold was released")
    if call.end_decided_at is not None:
        # The end was decided before the hold was released. The release stopped the attempts to end
        # the call.
        stage_for(session, END_CALL, [call])


def _end_settled_call(session: Session, call: Call, now: datetime) -> None:
    """End a call that the company settled before it was in progress.

    From then on, nothing pays for the call.
    """
    if billing_state(call) is not CallBillingState.TALKING_UNPAID:
        return
    alert_not_ended(session, call, "the call continues, although the company settled it", now)
    if not decide_ending(session, call, EndCause.SETTLED, now):
        # The end was decided before the settlement, which stopped the attempts to end the call.
        stage_for(session, END_CALL, [call])


def _start_meter(call: Call, received_at: datetime, talking_ms: int | None, now: datetime) -> None:
    """Start the meter when the message arrived, less the talk time that it states."""
    if talking_ms is not None and not 0 <= talking_ms <= CALL_DURATION_MS_MAX:
        # A timestamp in unexpected units would make the call seem very long, and end it for lack of
        # credit.
        mark_anomaly(call, "talking_ms")
        talking_ms = None
    began = received_at - timedelta(milliseconds=talking_ms or 0)
    # A call that we admitted cannot have begun before its admission. Any other call may have begun
    # long ago.
    earliest = began if call.metered_from is None else call.created_at
    call.metered_from = min(max(began, earliest), now)
    call.started_at = call.started_at or call.metered_from
    if billing_state(call) in CONTINUING_STATES:
        call.tick_at = now


def _mark_ended(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """Mark a call as ended.

    The final report ends a call even if its copy of the call has another status.
    """
    if call.status == CallStatus.ENDED:
        return
    call.status, call.ended_seen_at, call.tick_at = CallStatus.ENDED, now, None
    session.flush()
    note(session, call, "ended", now, facts.ended_reason or "")
    clear_alerts(session, AlertKind.CALL_NOT_ENDED, call.organization_id, call.id, now=now)


def _copy_facts(call: Call, facts: CallFacts) -> None:
    call.provider_call_id = call.provider_call_id or facts.external_id
    call.twilio_call_sid = call.twilio_call_sid or facts.twilio_call_sid
    call.twilio_account_sid = call.twilio_account_sid or facts.twilio_account_sid
    call.assistant_id = call.assistant_id or facts.assistant_id
    call.phone_number_id = call.phone_number_id or facts.phone_number_id
    call.our_party = call.our_party or facts.our_party
    call.their_party = call.their_party or facts.their_party
    call.started_at = facts.started_at or call.started_at
    call.ended_at = facts.ended_at or call.ended_at
    call.ended_reason = facts.ended_reason or call.ended_reason
    if facts.provider_cost_micros is not None:
        call.provider_cost_micros = facts.provider_cost_micros
    mark_anomaly(call, *facts.anomalies)
