"""Brings Twilio subaccounts into their desired state, and confirms it by a read."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown, ProviderUnavailable, Refused
from base.problems.providers import CALL_MISSING, SUBACCOUNT_CLOSED, SUBACCOUNT_MISSING
from domain import subaccount_checks
from domain import subaccounts as twilio_state
from domain.jobs.types import CONVERGE_TWILIO
from domain.subaccounts import SubaccountLease
from providers.errors import CredentialsRejected
from workers.attempt import Later, LeaseTooOld, Run

log = get_logger(__name__)

#: The most seconds that are spent on ending calls before their subaccount is suspended.
_CALLS_BEFORE_SUSPENSION_SECONDS = 5.0
#: The most rounds in one run. If the desired state changes during a round,
#: another round follows.
_ROUNDS_MAX = 5
#: After any of these errors, no request of ours can still reach Twilio.
_ERRORS_WITHOUT_OPEN_REQUEST = (NotYet, ProviderUnavailable, CredentialsRejected, LeaseTooOld)


def converge_twilio(run: Run, brand_id: str) -> None:
    """Read the subaccount; set its desired state if it differs, and read it again.

    Twilio lets live calls continue in a suspended subaccount, so this actor also ends those calls,
    before and after the suspension.
    Replay: a subaccount in its desired state is left unchanged, except for live calls. While a lost
    request may still arrive, the job is postponed and reads again. If only a person can repair the
    subaccount (missing, closed, suspended by Twilio), the job is refused, and the same commit
    raises an alert.
    Raises: NotYet while another worker has the lease; Refused for a brand without a subaccount.
    Source: Twilio's pages on suspending a subaccount.
    """
    lease = run.transaction(
        lambda session: twilio_state.take_lease(
            session,
            brand_id,
            lease_seconds=CONVERGE_TWILIO.lease_seconds,
            unsure_seconds=run.waits.unsure_seconds,
        )
    )
    try:
        read_began = _converge(run, lease)
    except Refused as error:
        refused = error
        run.refuse(refused, lambda s: twilio_state.record_refusal(s, lease, refused, run.now))
        return
    except _ERRORS_WITHOUT_OPEN_REQUEST:
        _release_lease(run, lease)
        raise
    except BaseException:
        # A response was lost, or the job's time limit interrupted the wait for one.
        _release_lease(run, lease, unsure_seconds=run.waits.unsure_seconds)
        raise

    def end(session: Session) -> Later | None:
        read_seconds_ago = time.monotonic() - read_began
        if twilio_state.release_lease(session, lease, read_seconds_ago=read_seconds_ago):
            return Later(run.waits.recheck_seconds, "a lost request may still take effect")
        return None

    run.record(end)


def check_subaccount(run: Run, brand_id: str) -> None:
    """Read a subaccount's actual state; stage its repair if it is not as desired.

    The actor changes nothing at Twilio and takes no lease. Replay: safe.
    Raises: Refused for a brand without a subaccount.
    """
    sid = run.transaction(lambda session: twilio_state.subaccount_of(session, brand_id))
    try:
        facts = run.providers.twilio.get_subaccount(sid)
    except Refused as refused:
        # The repair reads the subaccount again and raises the alert.
        run.refuse(refused, lambda session: twilio_state.stage_repair(session, brand_id))
        return

    def record(session: Session) -> None:
        twilio_state.record_check(session, brand_id, facts, run.now)

    run.record(record)


def reconcile_twilio(run: Run) -> None:
    """Stage the checks of subaccounts that are due. Replay: a staged check is not due."""
    staged = subaccount_checks.stage_due_checks(run.job_session, run.now)
    log.info("subaccount_checks_staged", count=staged)


def _converge(run: Run, lease: SubaccountLease) -> float:
    """Run rounds until the desired state is reached; return when the last read began.

    The returned time is monotonic.
    """
    for _ in range(_ROUNDS_MAX):
        read_began = time.monotonic()
        facts, is_sent = run.providers.twilio.get_subaccount(lease.sid), False
        is_suspending = lease.desired is TwilioStatus.SUSPENDED
        if facts.status in twilio_state.CHANGEABLE_STATES and facts.status != lease.desired:
            run.transaction(_prior_state_recorder(run, lease, facts.status))
            if is_suspending:
                _complete_calls_before_suspension(run, lease.sid)
            # After half of the lease, the request might arrive while the next worker has the lease.
            run.check_lease()
            run.providers.twilio.set_subaccount_status(lease.sid, lease.desired)
            is_sent = True
            read_began = time.monotonic()
            facts = run.providers.twilio.get_subaccount(lease.sid)
        new_lease = run.transaction(_state_recorder(run, lease, facts, sent=is_sent))
        if is_suspending and new_lease is None and facts.status is TwilioStatus.SUSPENDED:
            # Calls may have begun between the first ending of calls and the suspension.
            _complete_calls(run, lease.sid)
        if facts.status not in twilio_state.CHANGEABLE_STATES:
            is_absent = facts.status is TwilioStatus.ABSENT
            code = SUBACCOUNT_MISSING if is_absent else SUBACCOUNT_CLOSED
            raise Refused(code, lease.sid, brand=lease.brand_id)
        if new_lease is None:
            return read_began
        lease = new_lease
    raise NotYet("desired and actual still differ", 1)


def _complete_calls_before_suspension(run: Run, sid: str) -> None:
    """End calls for a few seconds. The suspension follows even if calls are left."""
    try:
        _complete_calls(run, sid, seconds=_CALLS_BEFORE_SUSPENSION_SECONDS)
    except (NotYet, ProviderUnavailable, CredentialsRejected, Refused) as error:
        log.warning("calls_not_ended_before_suspension", subaccount=sid, error=str(error))


def _complete_calls(run: Run, sid: str, *, seconds: float | None = None) -> None:
    """End the live calls of a subaccount, for at most `seconds` if given.

    Raises: the provider's errors, except CALL_MISSING. OutcomeUnknown becomes ProviderUnavailable.
    """
    began = time.monotonic()
    for call_sid in run.providers.twilio.live_calls(sid):
        if seconds is not None and time.monotonic() - began > seconds:
            return
        run.check_lease()
        try:
            run.providers.twilio.complete_call(sid, call_sid)
        except Refused as refused:
            if refused.code != CALL_MISSING:
                raise
        except OutcomeUnknown as error:
            # A lost request can only end the call, so the subaccount's state is still certain.
            raise ProviderUnavailable(str(error)) from None


def _state_recorder(
    run: Run, lease: SubaccountLease, facts: SubaccountFacts, *, sent: bool
) -> Callable[[Session], SubaccountLease | None]:
    unsure_seconds = run.waits.unsure_seconds if sent else None
    return lambda session: twilio_state.record_state(
        session, lease, facts, run.now, sent_unsure_seconds=unsure_seconds
    )


def _prior_state_recorder(
    run: Run, lease: SubaccountLease, status: TwilioStatus
) -> Callable[[Session], None]:
    return lambda session: twilio_state.record_found_state(session, lease, status, run.now)


def _release_lease(
    run: Run, lease: SubaccountLease, *, unsure_seconds: float | None = None
) -> None:
    run.transaction(
        lambda session: twilio_state.release_lease(session, lease, unsure_seconds=unsure_seconds)
    )
