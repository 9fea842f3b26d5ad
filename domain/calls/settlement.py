"""Charge a call once, for its actual duration at its own rate.

If the duration cannot be determined, an alert is raised and the hold stays.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallDirection, HoldStatus
from base.facts import CALL_DURATION_MS_MAX, CallFacts
from base.operators import Operator
from base.outcomes import Refused
from base.problems.calls import CALL_IN_PROGRESS, CALL_SETTLED, INVALID_DURATION, NO_RATE
from base.problems.code import Code
from base.problems.wallet import IDEMPOTENCY_CONFLICT
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.calls.anomalies import alert_unsettled, alert_waived, clear_unanswered
from domain.calls.billing import is_cost_settled, is_over
from domain.calls.charges import charge_for, has_talked, metered_ms, reported_talk_ms
from domain.calls.rates import Rate, find_rate
from domain.calls.rows import (
    TALKING,
    call_and_wallet,
    has_rate,
    is_permission,
    mark_anomaly,
    note,
    rate_of,
    stage_for,
)
from domain.calls.withholding import Withheld, alert_ambiguous, withhold
from domain.jobs.types import REFRESH_CALL
from domain.operator_notes import record_action
from domain.wallet import holds
from domain.wallet.ledger import WalletOutcome


class InvalidDuration(Refused):
    """A duration is negative, or longer than any call may last."""

    def __init__(self, call_id: str) -> None:
        why = f"a duration must be 0 to {CALL_DURATION_MS_MAX} ms"
        super().__init__(INVALID_DURATION, why, call=call_id)


class CallSettled(Refused):
    """The cost of a call is already settled."""

    def __init__(self, call_id: str) -> None:
        super().__init__(CALL_SETTLED, call_id, call=call_id)


class NotSettled(Refused):
    """A call could not be charged; the code is the reason."""

    def __init__(self, call_id: str, code: Code) -> None:
        super().__init__(code, call_id, call=call_id)


def settle_from_provider(
    session: Session, call: Call, facts: CallFacts, by: str, now: datetime
) -> None:
    """Settle an ended call by its provider's report or by a refresh.

    `by` is "report" or "look" (a refresh). If a report has no duration, or denies a conversation
    that the provider reported before, the call is refreshed. If the refresh has the same fault, our
    own meter's duration is charged. If our meter has no duration either, an alert is raised. The
    call's anomalies record a denied conversation and a use of our meter.

    The call must already be locked. Replay: a call is settled once. A later report moves no money,
    but raises an alert if the cost would differ. A call that was closed without a price is charged
    by a later report.
    """
    duration_ms = reported_talk_ms(call, facts, by)
    if is_cost_settled(call):
        _alert_if_cost_differs(session, call, facts, duration_ms, by=by, now=now)
        return
    if duration_ms == 0 and has_talked(session, call):
        mark_anomaly(call, "talk_denied")
        duration_ms = None
    if duration_ms is None and by == "report":
        stage_for(session, REFRESH_CALL, [call])
        return
    if duration_ms is None:
        duration_ms = metered_ms(call)
        if duration_ms is None:
            alert_unsettled(
                session, call, "neither Vapi nor our meter has the call's duration", now
            )
            return
        mark_anomaly(call, "metered_by_us")
    _charge_or_alert(session, call, facts, duration_ms, by=by, now=now)


def _charge_or_alert(
    session: Session, call: Call, facts: CallFacts, duration_ms: int, *, by: str, now: datetime
) -> None:
    """Charge a call for its duration, or raise an alert if the charge may be wrong.

    The charge may be wrong if the call has no rate, or if another charge may be for the same call.
    If the ledger refuses the charge, an alert is raised too.
    """
    if duration_ms and not has_rate(call):
        alert_unsettled(session, call, "the organization has no rate for the call", now)
        return
    charge = charge_for(session, call, facts, duration_ms)
    withheld = withhold(session, call, duration_ms, now) if charge.cost_micros else Withheld()
    if withheld.why is not None:
        alert_unsettled(session, call, withheld.why, now)
        return
    try:
        cost = charge.cost_micros
        settle(session, call, duration_ms=duration_ms, cost_micros=cost, by=by, now=now)
    except NotSettled as error:
        # The ledger would refuse a later report as well, so an operator must decide.
        alert_unsettled(session, call, f"the ledger refused the charge: {error.code}", now)
        return
    if withheld.rival is not None:
        alert_ambiguous(session, call, withheld.rival, now)
    if charge.waived_micros:
        mark_anomaly(call, "platform_fault_waived")
        note(session, call, "waived", now, f"{charge.waived_micros} micros: {facts.ended_reason}")
        alert_waived(session, call, charge.waived_micros, now)


def _alert_if_cost_differs(
    session: Session,
    call: Call,
    facts: CallFacts,
    duration_ms: int | None,
    *,
    by: str,
    now: datetime,
) -> None:
    """Raise an alert if a settled call would now have another cost.

    If a report has no duration, the call is refreshed first.
    """
    if duration_ms is None and by == "report":
        stage_for(session, REFRESH_CALL, [call])
        return
    if duration_ms == 0 and not call.cost_micros and has_talked(session, call):
        # The call was settled as a call without a conversation. Later, the provider reported it in
        # progress.
        why = "the call was settled as one without a conversation, but Vapi reports one"
        _alert_cost_differs(session, call, now, why=why)
        return
    if duration_ms is None:
        duration_ms = metered_ms(call)
    if duration_ms is None or not has_rate(call):
        return
    cost = charge_for(session, call, facts, duration_ms).cost_micros
    if call.cost_micros != cost:
        _alert_cost_differs(session, call, now, said_micros=cost, said_ms=duration_ms)


def settle(
    session: Session, call: Call, *, duration_ms: int, cost_micros: int, by: str, now: datetime
) -> WalletOutcome:
    """Charge the call and release the rest of its hold.

    An amount that cannot be charged becomes an outstanding amount and raises an alert. The wallet
    and the call must already be locked. Raises: NotSettled if the ledger refuses, with
    IDEMPOTENCY_CONFLICT if another cost was charged before.
    """
    hold = holds.hold_of_call(session, call.organization_id, call.id)
    if cost_micros == 0 and hold is not None and hold.status == HoldStatus.OPEN:
        outcome = holds.release(session, call.organization_id, call_id=call.id, now=now)
    elif cost_micros == 0:
        outcome = WalletOutcome("OK", replayed=True)
    else:
        outcome = holds.commit(
            session,
            call.organization_id,
            call_id=call.id,
            amount_micros=cost_micros,
            currency=call.currency,
            now=now,
        )
    if not outcome.ok:
        raise NotSettled(call.id, outcome.code)
    call.duration_ms, call.cost_micros = duration_ms, cost_micros
    call.settled_at, call.settled_by, call.tick_at = now, by, None
    call.withheld_for = None
    session.flush()
    note(session, call, "settled", now, f"{by}: {duration_ms} ms, {cost_micros} micros")
    _alert_shortfall(session, call, now)
    _clear_resolved_alerts(session, call, now)
    return outcome


def settle_by_api(
    session: Session, organization_id: str, call_id: str, duration_ms: int, now: datetime
) -> WalletOutcome:
    """Settle a call for the duration that the company's backend states.

    Units: `duration_ms` 0 to 43,260,000. Replay: a duration with the same cost returns OK and
    changes nothing. Another cost is refused with IDEMPOTENCY_CONFLICT.

    Raises: InvalidDuration, CallNotFound, NotSettled. Raises Refused CALL_IN_PROGRESS while the
    provider reports the call in progress, because a settled call is no longer metered. If the
    provider reports it in progress afterwards, the call is ended.
    """
    if not 0 <= duration_ms <= CALL_DURATION_MS_MAX:
        raise InvalidDuration(call_id)
    call, _ = call_and_wallet(session, organization_id, call_id)
    if call.status in TALKING and not is_cost_settled(call):
        raise Refused(CALL_IN_PROGRESS, call_id, call=call_id)
    cost = _rate_to_charge(session, call).cost_micros(duration_ms)
    if is_cost_settled(call):
        if call.cost_micros != cost:
            raise NotSettled(call_id, IDEMPOTENCY_CONFLICT)
        return WalletOutcome("OK", replayed=True)
    return settle(session, call, duration_ms=duration_ms, cost_micros=cost, by="api", now=now)


def settle_manually(
    session: Session,
    organization_id: str,
    call_id: str,
    *,
    duration_ms: int,
    operator: Operator,
    now: datetime,
) -> WalletOutcome:
    """Settle a call for the duration that an operator states.

    The call is then over for us, whatever its provider reports. If the company settled a call that
    is still in progress, only a settlement of 0 can be replaced by another cost. Units:
    `duration_ms` 0 to 43,260,000. Raises: InvalidDuration, CallNotFound, CallSettled, NotSettled.
    """
    if not 0 <= duration_ms <= CALL_DURATION_MS_MAX:
        raise InvalidDuration(call_id)
    call, _ = call_and_wallet(session, organization_id, call_id)
    if is_cost_settled(call) and is_over(call):
        raise CallSettled(call_id)
    record_action(
        session, "call.settle", f"{organization_id} {call_id}", operator=operator, now=now
    )
    cost = _rate_to_charge(session, call).cost_micros(duration_ms)
    if call.cost_micros and cost != call.cost_micros:
        raise NotSettled(call_id, IDEMPOTENCY_CONFLICT)
    return settle(session, call, duration_ms=duration_ms, cost_micros=cost, by="operator", now=now)


def close_expired(session: Session, call: Call, now: datetime) -> None:
    """Close a call without a charge, because its hold has expired.

    A later report can still charge it. The call must already be locked. Replay: a settled call is
    left unchanged.
    """
    if call.settled_at is None:
        # A permission that was not used never became a call.
        by = "withdrawn" if is_permission(call) else "expiry"
        call.cost_micros, call.settled_at, call.settled_by, call.tick_at = 0, now, by, None
        session.flush()
        note(session, call, "expired", now)
        _clear_resolved_alerts(session, call, now)


def _rate_to_charge(session: Session, call: Call) -> Rate:
    """Return the rate that a call is charged by.

    A call without a rate gets the organization's current general rate for its direction. Raises:
    NotSettled NO_RATE.
    """
    if has_rate(call):
        return rate_of(call)
    route_rate = find_rate(session, call.organization_id, CallDirection(call.direction), None)
    if route_rate is None:
        raise NotSettled(call.id, NO_RATE)
    return route_rate.rate


def _clear_resolved_alerts(session: Session, call: Call, now: datetime) -> None:
    """Clear the alerts that a call's settlement resolves."""
    clear_unanswered(session, call.organization_id, call.id, now)
    for kind in (AlertKind.CALL_UNSETTLED, AlertKind.CALL_NOT_ENDED):
        clear_alerts(session, kind, call.organization_id, call.id, now=now)
    if call.provider_call_id is not None:
        kind_unknown = AlertKind.CALL_UNKNOWN
        clear_alerts(session, kind_unknown, call.organization_id, call.provider_call_id, now=now)


def _alert_cost_differs(session: Session, call: Call, now: datetime, **details: int | str) -> None:
    raise_alert(
        session,
        AlertKind.CALL_DIFFERS,
        call.organization_id,
        call.id,
        severity=Severity.WARNING,
        details={"settled_micros": call.cost_micros, **details},
        now=now,
    )


def _alert_shortfall(session: Session, call: Call, now: datetime) -> None:
    hold = holds.hold_of_call(session, call.organization_id, call.id)
    if hold is None or not hold.shortfall_micros:
        return
    raise_alert(
        session,
        AlertKind.CALL_SHORTFALL,
        call.organization_id,
        call.id,
        severity=Severity.CRITICAL,
        details={"owed_micros": hold.shortfall_micros, "cost_micros": call.cost_micros},
        now=now,
    )
