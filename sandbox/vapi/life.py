"""The life of a call at Vapi, from the first notify to the report.

Each call is one task that sleeps, so a thousand idle calls cost nothing. Four things end an
accepted call: a control message that is obeyed, the maximum duration, the people on the line, and
the end of the leg at Twilio.
"""

from __future__ import annotations

import asyncio
from secrets import SystemRandom

from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.twilio.calls import TwilioCall
from sandbox.twilio.events import send_status_callbacks
from sandbox.twilio.state import Account
from sandbox.vapi.admission import find_assistant
from sandbox.vapi.calls import LiveCall
from sandbox.vapi.events import end_of_call_report, parcel, status_update

_random = SystemRandom()


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
    call.shown["phoneCallProviderId"] = leg.shown["sid"]
    _tie(call, leg)
    if callback_url is not None:
        send_status_callbacks(sandbox, leg, callback_url)


def _tie(call: LiveCall, leg: TwilioCall) -> None:
    call.leg = leg

    def follow(leg: TwilioCall) -> None:
        if leg.over:
            call.end("customer-ended-call")

    leg.watchers.append(follow)
    follow(leg)


def resume(sandbox: Sandbox) -> None:
    """Continue the calls that were live when the sandbox stopped.

    A call that was in progress was so meanwhile, as at a real provider. If its time was over by
    then, it ended at that time. A call that rang rings again. The messages of that time are lost.
    """
    for leg in sandbox.twilio.calls.values():
        if leg.callback_url is not None:
            send_status_callbacks(sandbox, leg, leg.callback_url)
    for call in sandbox.vapi.calls.values():
        leg_of_call = sandbox.twilio.calls.get(call.shown["phoneCallProviderId"])
        if leg_of_call is not None:
            _tie(call, leg_of_call)
        if call.ended is None:
            sandbox.courier.spawn(live(sandbox, call))


async def live(sandbox: Sandbox, call: LiveCall) -> None:
    """Run a call to its report, from its start or from where it was."""
    if call.began is None and not call.over:
        await _ring(sandbox, call)
    if call.began is not None:
        await _talk(sandbox, call)
    _change_status(sandbox, call, "ended")
    await _report(sandbox, call)


async def _ring(sandbox: Sandbox, call: LiveCall) -> None:
    plan = call.plan
    if call.shown["type"] == "inboundPhoneCall":
        await find_assistant(sandbox, call, plan.answer_limit_seconds)
        await call.last(plan.ring_seconds)
    else:
        await call.last(plan.queued_seconds)
        if not call.over:
            _change_status(sandbox, call, "ringing")
            await call.last(plan.ring_seconds)
        if not plan.answered:
            call.end("customer-did-not-answer")
    if not call.over:
        _change_status(sandbox, call, "in-progress")


async def _talk(sandbox: Sandbox, call: LiveCall) -> None:
    talk, longest, before = call.plan.talk_seconds, call.longest_seconds, call.seconds_before
    if talk is None or talk >= longest:
        await call.last(longest - before)
        if call.over:
            return
        if not sandbox.vapi.behaviour_of(call).ignore_max_duration:
            call.end("exceeded-max-duration", after_seconds=longest)
            return
        before = max(before, longest)
    await call.last(None if talk is None else talk - before)
    call.end("customer-ended-call", after_seconds=talk)


def _end_of_leg(call: LiveCall) -> str:
    if call.began is not None or call.shown["type"] == "inboundPhoneCall":
        return "completed"
    return "no-answer" if call.reason == "customer-did-not-answer" else "canceled"


def _change_status(sandbox: Sandbox, call: LiveCall, status: str) -> None:
    call.set_status(status)
    if call.leg is not None:
        call.leg.set_status(_end_of_leg(call) if status == "ended" else status)
    lost = sandbox.vapi.behaviour_of(call).lose_status
    _send(sandbox, call, status_update(call), lost=lost)


async def _report(sandbox: Sandbox, call: LiveCall) -> None:
    if not call.plan.report:
        return
    delay = sandbox.vapi.behaviour_of(call).report_delay_seconds
    await asyncio.sleep(call.plan.report_after_seconds if delay is None else delay)
    behaviour = sandbox.vapi.behaviour_of(call)
    copies = 2 if behaviour.double_reports else 1
    message = end_of_call_report(call)
    _send(sandbox, call, message, lost=behaviour.lose_reports, copies=copies)


def _send(sandbox: Sandbox, call: LiveCall, message: Json, *, lost: bool, copies: int = 1) -> None:
    if not call.plan.deliver:
        return
    if lost or _random.random() < sandbox.vapi.behaviour_of(call).lose_probability:
        call.lost.append(message["type"])
        call.changed()
        return
    addressed = parcel(sandbox, message, call.server_url)
    sandbox.courier.spawn(sandbox.courier.send(addressed, copies=copies, retry=False))
