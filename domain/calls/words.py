"""What providers say of a call, taken in: words come late, twice, in any order, or not at all.

A word never moves a call back, and only the provider's own makes it ended. What the call cost is
settled by domain/calls/settlement.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from base.enums import CallDirection, CallStatus, EndCause
from base.facts import CALL_DURATION_MS_MAX, CallFacts, CallReport
from base.ids import new_id
from db.call_models import Call, CallDoor
from db.locks import lock_call, lock_wallet
from domain.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.calls.anomalies import clear_unanswered, tell_unknown_status
from domain.calls.charges import has_talked
from domain.calls.doors import find_door, leads_elsewhere, twilio_account_of
from domain.calls.endings import decide_ending, tell_not_ended
from domain.calls.metering import first_step_seconds
from domain.calls.opening import open_call, write_call
from domain.calls.rates import rate_for
from domain.calls.rows import (
    TALKING,
    call_of_provider,
    is_over,
    is_priced,
    mark_odd,
    note,
    stage_for,
)
from domain.calls.settlement import settle_by_word
from domain.calls.terms import terms_of
from domain.jobs import END_CALL, LOOK_AT_CALL

#: How far a call is; a word that is behind what is known is late.
_ORDER = {
    CallStatus.ADMITTED: 0,
    CallStatus.QUEUED: 1,
    CallStatus.RINGING: 2,
    CallStatus.IN_PROGRESS: 3,
    CallStatus.FORWARDING: 4,
    CallStatus.ENDED: 5,
}
_BEGUN = (*TALKING, CallStatus.ENDED)


def take_in_report(session: Session, report: CallReport, heard_at: datetime, now: datetime) -> bool:
    """This function will take in a verified message about a call; False if it is nobody's of ours.

    `heard_at` is when it reached us. A call that did not ask us is made known here once somebody
    talks: until then it may still ask. It is metered from now on, or settled at once if it is over.
    Replay: says nothing new.
    """
    call = _find(session, report.facts)
    if call is None and (report.final or report.facts.status in _BEGUN):
        call = _adopt(session, report.facts, now)
    if call is None:
        return False
    _take_in(session, call, report.facts, heard_at=heard_at, talking_ms=report.talking_ms, now=now)
    if report.facts.unknown_status is not None and call.settled_at is None:
        tell_unknown_status(session, call, report.facts, now)
        stage_for(session, LOOK_AT_CALL, [call])
    if report.final:
        _end(session, call, report.facts, now)
        settle_by_word(session, call, report.facts, "report", now)
    return True


def take_in_look(
    session: Session, organization_id: str, call_id: str, facts: CallFacts, now: datetime
) -> None:
    """This function will take in the provider's answer to our own question about a call.

    An ended call is settled by it. Replay: says nothing new.
    """
    call = _locked(session, organization_id, call_id)
    if call is None:
        return
    talking_ms = None
    if facts.started_at is not None:
        talking_ms = max(0, round((now - facts.started_at) / timedelta(milliseconds=1)))
    was_settled = call.settled_at is not None
    _take_in(session, call, facts, heard_at=now, talking_ms=talking_ms, now=now)
    if facts.status is CallStatus.ENDED:
        settle_by_word(session, call, facts, "look", now)
    if facts.status is not None and facts.unknown_status is None:
        clear_unanswered(session, organization_id, call_id, now)
    elif not was_settled:
        tell_unknown_status(session, call, facts, now)


def _find(session: Session, facts: CallFacts) -> Call | None:
    """By the provider's id, or by ours as we gave it along."""
    known = call_of_provider(session, facts.external_id)
    if known is not None:
        return _locked(session, known.organization_id, known.id)
    if not facts.organization_id or not facts.call_id or _is_anothers(session, facts):
        return None
    named = _locked(session, facts.organization_id, facts.call_id)
    if named is None or named.provider_call_id not in (None, facts.external_id):
        return None
    return named


def _is_anothers(session: Session, facts: CallFacts) -> bool:
    """Whether it comes by a door of another organization than it names: whoever begins a call may
    give along what he likes, but not choose whose number or assistant it is."""
    return leads_elsewhere(
        session,
        facts.organization_id,
        assistant_id=facts.assistant_id,
        phone_numbers=(facts.phone_number_id,),
    )


def _locked(session: Session, organization_id: str, call_id: str) -> Call | None:
    lock_wallet(session, organization_id)
    return lock_call(session, organization_id, call_id)


def _adopt(session: Session, facts: CallFacts, now: datetime) -> Call | None:
    door = find_door(
        session, assistant_id=facts.assistant_id, phone_numbers=(facts.phone_number_id,)
    )
    organization_id = door.organization_id if door is not None else _let_in_by(session, facts)
    wallet = None if organization_id is None else lock_wallet(session, organization_id)
    if organization_id is None or wallet is None:
        _tell_unknown(session, None, facts, "nobody's assistant or phone number", now)
        return None
    known = _find(session, facts)
    if known is not None:
        return known
    direction = facts.direction or CallDirection.INBOUND
    rate = rate_for(session, organization_id, direction, None)
    if rate is None:
        _tell_unknown(session, organization_id, facts, "no rate", now)
        return None
    call = _new_call(session, organization_id, door, facts, direction)
    if facts.status is CallStatus.ENDED:
        write_call(session, call, rate, wallet.currency, now)
    else:
        step = first_step_seconds(rate, terms_of(session, organization_id))
        # It talks already, so it gets what there is; where there is nothing, the ledger says why.
        paid = rate.seconds_for(wallet.balance_micros - wallet.held_micros)
        seconds = min(step, paid) or step
        outcome = open_call(session, call, rate, wallet.currency, seconds=seconds, now=now)
        if not outcome.ok:
            # It lives all the same, so it is known, and ended: what it costs by then is billed.
            write_call(session, call, rate, wallet.currency, now)
            frozen = outcome.outcome == "FROZEN_WALLET"
            decide_ending(
                session, call, EndCause.WALLET_FROZEN if frozen else EndCause.CREDIT_GONE, now
            )
    note(session, call, "adopted", now, "it did not ask us")
    for whose in (None, organization_id):
        clear_alerts(session, AlertKind.CALL_UNKNOWN, whose, facts.external_id, now=now)
    # One that was refused ends unconnected, and its report is the first we know of it: it asked.
    if not call.fail_open and not facts.never_connected:
        _tell_unasked(session, call, facts, now)
    return call


def _let_in_by(session: Session, facts: CallFacts) -> str | None:
    """Let in while our database was away, by a number that no message names, it bears our own word.

    Only one that rang in can be: a browser that begins a call gives along what it likes.
    """
    rang_in = facts.direction in (None, CallDirection.INBOUND)
    if facts.call_id is None or not rang_in or _is_anothers(session, facts):
        return None
    return facts.organization_id


def _new_call(
    session: Session,
    organization_id: str,
    door: CallDoor | None,
    facts: CallFacts,
    direction: CallDirection,
) -> Call:
    # One that was let in while our database was away bears the id that it was given then; whoever
    # dials twice for one of our calls gives it along twice, and the second is a call of its own.
    let_in = (
        facts.organization_id == organization_id
        and facts.call_id is not None
        and session.get(Call, (organization_id, facts.call_id)) is None
    )
    return Call(
        organization_id=organization_id,
        id=facts.call_id if let_in else new_id("call"),
        provider_call_id=facts.external_id,
        twilio_account_sid=twilio_account_of(session, door),
        direction=direction,
        fail_open=let_in,
    )


def _take_in(
    session: Session,
    call: Call,
    facts: CallFacts,
    *,
    heard_at: datetime,
    talking_ms: int | None,
    now: datetime,
) -> None:
    _fill_in(call, facts)
    status, word = CallStatus(call.status), facts.status
    if word is not None:
        # A message without a status that we know is no sign of life.
        call.seen_at = now
    if word is not None and _ORDER[word] > _ORDER[status]:
        if word is CallStatus.ENDED:
            _end(session, call, facts, now)
            return
        call.status = word
        if word in TALKING and status not in TALKING:
            _reopen(session, call, now)
            _begin(call, heard_at, talking_ms, now)
            _end_settled(session, call, now)
        note(session, call, word, now)
    elif word in TALKING and status is CallStatus.ENDED and not has_talked(session, call):
        _note_late_talk(session, call, now)
    session.flush()


def _note_late_talk(session: Session, call: Call, now: datetime) -> None:
    """Note that somebody talked, when that is heard after the end.

    A call that was settled as never talked is asked about: its report may have denied the talk.
    """
    note(session, call, CallStatus.IN_PROGRESS, now, "heard after its end")
    if is_priced(call) and not call.cost_micros:
        stage_for(session, LOOK_AT_CALL, [call])


def _reopen(session: Session, call: Call, now: datetime) -> None:
    """A call whose hold was given back, since nobody knew of it, lives: it is metered, and can be
    ended, again."""
    if call.settled_at is None or is_priced(call):
        return
    call.settled_at = call.settled_by = call.cost_micros = call.duration_ms = None
    note(session, call, "reopened", now, "it lives all the same")
    if call.end_decided_at is not None:
        # It was to end before it was given up, and its ending was over with that.
        stage_for(session, END_CALL, [call])


def _end_settled(session: Session, call: Call, now: datetime) -> None:
    """The company said what it cost before anybody talked, so that nobody pays for it from here on:
    it is ended."""
    if call.settled_at is None or is_over(call):
        return
    tell_not_ended(session, call, "it talks, although the company has settled it", now)
    if not decide_ending(session, call, EndCause.SETTLED, now):
        # It was to end before it was settled, and its ending was over with that.
        stage_for(session, END_CALL, [call])


def _begin(call: Call, heard_at: datetime, talking_ms: int | None, now: datetime) -> None:
    """From here on it costs: by our clock, less the time that the provider says has passed."""
    if talking_ms is not None and not 0 <= talking_ms <= CALL_DURATION_MS_MAX:
        # Believed, a timestamp in other units than expected would end the call for want of credit.
        mark_odd(call, "talking_ms")
        talking_ms = None
    began = heard_at - timedelta(milliseconds=talking_ms or 0)
    # One that waited for our word cannot have begun before it; another may have talked for long.
    earliest = began if call.metered_from is None else call.created_at
    call.metered_from = min(max(began, earliest), now)
    call.started_at = call.started_at or call.metered_from
    if call.end_decided_at is None and call.settled_at is None:
        call.tick_at = now


def _end(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """It is over: a report says so too, whatever status its copy of the call may bear."""
    if call.status == CallStatus.ENDED:
        return
    call.status, call.ended_seen_at, call.tick_at = CallStatus.ENDED, now, None
    session.flush()
    note(session, call, "ended", now, facts.ended_reason or "")
    clear_alerts(session, AlertKind.CALL_NOT_ENDED, call.organization_id, call.id, now=now)


def _fill_in(call: Call, facts: CallFacts) -> None:
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
    mark_odd(call, *facts.oddities)


def _tell_unasked(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    raise_alert(
        session,
        AlertKind.DOOR_UNASKED,
        call.organization_id,
        facts.phone_number_id or facts.assistant_id or facts.external_id,
        severity=Severity.WARNING,
        details={"call": call.id, "direction": call.direction},
        now=now,
    )


def _tell_unknown(
    session: Session, organization_id: str | None, facts: CallFacts, why: str, now: datetime
) -> None:
    raise_alert(
        session,
        AlertKind.CALL_UNKNOWN,
        organization_id,
        facts.external_id,
        severity=Severity.CRITICAL,
        details={
            "why": why,
            "assistant": facts.assistant_id,
            "phone_number": facts.phone_number_id,
            "status": facts.status,
        },
        now=now,
    )
