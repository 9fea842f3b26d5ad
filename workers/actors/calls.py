"""Calls: ends, warns and refreshes them, and releases expired holds.

Two workers may end or refresh the same call. Neither can undo the other's work, so a call needs no
lease.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from base.enums import CallStatus
from base.log import get_logger
from base.outcomes import HeldBack, NotYet, OutcomeUnknown, ProviderUnavailable, Refused
from db.models.calls import Call
from domain.calls import ending as endings
from domain.calls import reconcile
from domain.calls.ending import Round
from domain.calls.status_updates import apply_refresh
from domain.jobs.types import REFRESH_TRIES, WARN_TRIES
from providers.errors import AnswerTooLarge, AnswerUnreadable, CredentialsRejected
from providers.vapi.api import VapiCall
from workers.attempt import Later, Run

log = get_logger(__name__)

#: After any of these errors, the call may not have ended at the provider. The next round tries
#: again.
_ENDING_ERRORS = (NotYet, OutcomeUnknown, ProviderUnavailable, CredentialsRejected, Refused)


def end_call(run: Run, organization_id: str, call_id: str) -> None:
    """Carry out one round of ending a call; postpone the job until the call is over.

    Replay: a call that is over is left unchanged. Ending a call twice ends it once.
    Raises: CallNotFound.
    """
    round_ = run.transaction(
        lambda session: endings.begin_round(session, organization_id, call_id, run.now)
    )
    if round_ is None:
        run.record(lambda _: None)
        return
    vapi_call, accepted_orders, held_back_seconds = _end_at_vapi(run, round_)
    if vapi_call is not None and vapi_call.facts.status is CallStatus.ENDED:
        run.record(_answer_recorder(run, organization_id, call_id, vapi_call))
        return
    if not accepted_orders or round_.always_uses_twilio:
        accepted_orders += _end_at_twilio(run, round_)

    def end(session: Session) -> Later | None:
        seconds = endings.end_round(
            session, organization_id, call_id, round_, accepted=accepted_orders, now=run.now
        )
        if seconds is None:
            return None
        # If Vapi was held back, the next round starts only when Vapi may be called again.
        return Later(max(seconds, held_back_seconds), "it has not ended yet")

    run.record(end)


def warn_call(run: Run, organization_id: str, call_id: str) -> None:
    """Make the assistant warn the caller that the credit is nearly used up.

    A call that is over or ending is not warned. Replay: if the first response was lost, the warning
    may be spoken twice. After `WARN_TRIES` failed attempts the job ends as done, without a warning.
    Raises: the provider's errors.
    """
    warning = run.transaction(lambda session: endings.warning_of(session, organization_id, call_id))
    if warning is not None:
        provider_call_id, text = warning
        try:
            vapi_call = run.providers.vapi.get_call(provider_call_id)
            if vapi_call is not None and vapi_call.control_url is not None:
                run.providers.vapi.say(vapi_call.control_url, text, then_end=False)
        except (OutcomeUnknown, ProviderUnavailable, CredentialsRejected) as error:
            if run.claim.failures + 1 < WARN_TRIES:
                raise
            log.warning("call_not_warned", call=call_id, error=str(error))
    run.record(lambda _: None)


def look_at_call(run: Run, organization_id: str, call_id: str) -> None:
    """Read a call from its provider, and apply the provider's answer.

    A live call keeps its hold. A call that is over is settled. If the provider does not know the
    call, the call's hold is released once that hold has expired. After `REFRESH_TRIES` attempts
    without an answer, the hold stays, an alert is raised, and `reconcile_calls` stages the next
    refresh. If the record of an ended call cannot be read, our own meter settles the call. Replay:
    reading changes nothing at the provider. Raises: the provider's errors.
    """
    provider_call_id = run.transaction(
        lambda session: _provider_call_id(session, organization_id, call_id)
    )
    if provider_call_id is None:
        run.record(lambda _: None)
        return
    try:
        vapi_call = run.providers.vapi.get_call(provider_call_id)
    except (ProviderUnavailable, CredentialsRejected, Refused) as error:
        # Another try cannot help if the ID is not one of Vapi's, or the record is too large.
        is_final = isinstance(error, Refused | AnswerTooLarge)
        if run.claim.failures + 1 < REFRESH_TRIES and not is_final:
            raise
        run.record(_failure_recorder(run, organization_id, call_id, error))
        return
    run.record(_answer_recorder(run, organization_id, call_id, vapi_call))


def reconcile_calls(run: Run) -> None:
    """Stage refreshes of calls without a recent report, and the expiry of holds.

    Replay: a call is refreshed at most once a minute.
    """
    refreshes, organizations = reconcile.sweep(
        run.job_session,
        run.now,
        report_seconds=run.waits.report_seconds,
        silent_seconds=run.waits.silent_seconds,
    )
    log.info("calls_swept", refreshes=refreshes, organizations=organizations)


def expire_holds(run: Run, organization_id: str) -> None:
    """Release an organization's expired holds whose calls have no ID at a provider.

    Replay: a hold expires once.
    """
    reconcile.expire_unreported(run.job_session, organization_id, run.now)


def _end_at_vapi(run: Run, round_: Round) -> tuple[VapiCall | None, list[str], float]:
    """Read the call from Vapi, and order its end there if it is live.

    Return Vapi's answer, the accepted orders, and the seconds for which Vapi may not be called.
    """
    vapi_call: VapiCall | None = None
    accepted_orders: list[str] = []
    held_back_seconds = 0.0
    if round_.provider_call_id is None:
        return vapi_call, accepted_orders, held_back_seconds
    try:
        # The control URL is taken from the API's answer, never from a webhook.
        vapi_call = run.providers.vapi.get_call(round_.provider_call_id)
        is_live = vapi_call is not None and vapi_call.facts.status is not CallStatus.ENDED
        if vapi_call is not None and is_live and vapi_call.control_url is not None:
            accepted_orders = _order_end(run, round_, vapi_call.control_url)
    except HeldBack as error:
        held_back_seconds = error.delay_seconds
    except _ENDING_ERRORS as error:
        log.warning("vapi_not_notified", call=round_.provider_call_id, error=str(error))
    return vapi_call, accepted_orders, held_back_seconds


def _order_end(run: Run, round_: Round, control_url: str) -> list[str]:
    if round_.speaks:
        is_accepted = run.providers.vapi.say(control_url, round_.text, then_end=True)
        return ["say"] if is_accepted else []
    return ["end"] if run.providers.vapi.end(control_url) else []


def _end_at_twilio(run: Run, round_: Round) -> list[str]:
    if round_.twilio_call_sid is None:
        return []
    for account in round_.twilio_account_sids or (run.settings.twilio_account_sid,):
        try:
            run.providers.twilio.complete_call(account, round_.twilio_call_sid)
        except _ENDING_ERRORS as error:
            log.warning("twilio_not_notified", call=round_.twilio_call_sid, error=str(error))
        else:
            return ["twilio"]
    return []


def _failure_recorder(
    run: Run, organization_id: str, call_id: str, error: Exception
) -> Callable[[Session], None]:
    def record(session: Session) -> None:
        if isinstance(error, AnswerUnreadable):
            reconcile.call_is_unreadable(
                session,
                organization_id,
                call_id,
                str(error),
                run.now,
                report_seconds=run.waits.report_seconds,
            )
        else:
            reconcile.alert_unanswered(session, organization_id, call_id, str(error), run.now)

    return record


def _answer_recorder(
    run: Run, organization_id: str, call_id: str, vapi_call: VapiCall | None
) -> Callable[[Session], None]:
    def record(session: Session) -> None:
        if vapi_call is None:
            reconcile.call_is_absent(session, organization_id, call_id, run.now)
            return
        apply_refresh(session, organization_id, call_id, vapi_call.facts, run.now)
        # A call with an unknown status may be over, so its hold's expiry is not postponed.
        if vapi_call.facts.status not in (None, CallStatus.ENDED):
            reconcile.postpone_expiry(session, organization_id, call_id, run.now)

    return record


def _provider_call_id(session: Session, organization_id: str, call_id: str) -> str | None:
    call = session.get(Call, (organization_id, call_id))
    return None if call is None else call.provider_call_id
