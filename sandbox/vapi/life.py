"""The life of a call at Vapi, from the first notify to the report.

Each call is one task that sleeps, so a thousand idle calls cost nothing. Four things end an
accepted call: a control message that is obeyed, the maximum duration, the people on the line, and
the end of the leg at Twilio.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from secrets import SystemRandom

from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.twilio.calls import TwilioCall
from sandbox.twilio.events import tell_of
from sandbox.twilio.state import Account
from sandbox.vapi.admission import ANSWER_SECONDS, find_assistant
from sandbox.vapi.calls import LiveCall
from sandbox.vapi.events import end_of_call_report, parcel, status_update

_random = SystemRandom()


@dataclass(frozen=True)
class Plan:
    """How a call proceeds. Times are in seconds.

    If `talk_seconds` is None, the call continues until it is ended from outside or reaches its
    maximum duration.
    """

    queued_seconds: float = 0.05
    ring_seconds: float = 0.1
    talk_seconds: float | None = None
    answered: bool = True
    report: bool = True
    report_after_seconds: float = 0.1
    answer_limit_seconds: float = ANSWER_SECONDS
    deliver: bool = True


def carry(
    sandbox: Sandbox, call: LiveCall, account: Account, our_number: str, callback_url: str | None
) -> None:
    """Start the call's leg at Twilio. If either of the two ends, the other ends too.

    An account that is not active carries no call. The call then fails before any phone rings.
    """
    if account.status != "active":
        call.end("twilio-failed-to-connect-call")
        return
    customer = call.shown["customer"]["number"]
    if call.shown["type"] == "inboundPhoneCall":
        leg = sandbox.twilio.add_call(account, our_number, customer, "ringing", "inbound")
    else:
        leg = sandbox.twilio.add_call(account, customer, our_number, "queued")
    call.leg = leg
    call.shown["phoneCallProviderId"] = leg.shown["sid"]

    def follow(leg: TwilioCall) -> None:
        if leg.over:
            call.end("customer-ended-call")

    leg.watchers.append(follow)
    if callback_url is not None:
        tell_of(sandbox, account, leg, callback_url)


async def live(sandbox: Sandbox, call: LiveCall, plan: Plan) -> None:
    """Run a call from its start to its report."""
    if call.shown["type"] == "inboundPhoneCall":
        await find_assistant(sandbox, call, plan.answer_limit_seconds)
        await call.last(plan.ring_seconds)
    else:
        await call.last(plan.queued_seconds)
        if not call.over:
            _move(sandbox, call, plan, "ringing")
            await call.last(plan.ring_seconds)
        if not plan.answered:
            call.end("customer-did-not-answer")
    if not call.over:
        _move(sandbox, call, plan, "in-progress")
        await _talk(sandbox, call, plan)
    _move(sandbox, call, plan, "ended")
    await _report(sandbox, call, plan)


async def _talk(sandbox: Sandbox, call: LiveCall, plan: Plan) -> None:
    talk, longest = plan.talk_seconds, call.longest_seconds
    if talk is None or talk >= longest:
        await call.last(longest)
        if call.over:
            return
        if not sandbox.vapi.behaviour_of(call).ignore_max_duration:
            call.end("exceeded-max-duration")
            return
        await call.last(None if talk is None else talk - longest)
    else:
        await call.last(talk)
    call.end("customer-ended-call")


def _end_of_leg(call: LiveCall) -> str:
    if call.began is not None or call.shown["type"] == "inboundPhoneCall":
        return "completed"
    return "no-answer" if call.reason == "customer-did-not-answer" else "canceled"


def _move(sandbox: Sandbox, call: LiveCall, plan: Plan, status: str) -> None:
    call.set_status(status)
    if call.leg is not None:
        call.leg.move(_end_of_leg(call) if status == "ended" else status)
    lost = sandbox.vapi.behaviour_of(call).lose_status
    _tell(sandbox, call, plan, status_update(call), lost=lost)


async def _report(sandbox: Sandbox, call: LiveCall, plan: Plan) -> None:
    if not plan.report:
        return
    delay = sandbox.vapi.behaviour_of(call).report_delay_seconds
    await asyncio.sleep(plan.report_after_seconds if delay is None else delay)
    behaviour = sandbox.vapi.behaviour_of(call)
    copies = 2 if behaviour.double_reports else 1
    message = end_of_call_report(call)
    _tell(sandbox, call, plan, message, lost=behaviour.lose_reports, copies=copies)


def _tell(
    sandbox: Sandbox, call: LiveCall, plan: Plan, message: Json, *, lost: bool, copies: int = 1
) -> None:
    if not plan.deliver:
        return
    if lost or _random.random() < sandbox.vapi.behaviour_of(call).lose_probability:
        call.lost.append(message["type"])
        return
    addressed = parcel(sandbox, message, call.server_url)
    sandbox.courier.spawn(sandbox.courier.send(addressed, copies=copies, retry=False))
