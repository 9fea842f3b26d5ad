"""Runs a call at Vapi, from its start to its report.

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


def start_leg(
    sandbox: Sandbox, call: LiveCall, account: Account, our_number: str, callback_url: str | None
) -> None:
    """Start the call's leg at Twilio. If the call or the leg ends, the other ends too.

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
    _connect_leg(call, leg)
    if callback_url is not None:
        send_status_callbacks(sandbox, leg, callback_url)


def _connect_leg(call: LiveCall, leg: TwilioCall) -> None:
    call.leg = leg

    def end_with_leg(leg: TwilioCall) -> None:
        if leg.over:
            call.end("customer-ended-call")

    leg.watchers.append(end_with_leg)
    end_with_leg(leg)


def resume(sandbox: Sandbox) -> None:
    """Continue the calls that were live when the sandbox stopped.

    A call in progress continued while the sandbox was stopped, as at a real provider. If its time
    ran out meanwhile, it ended at that moment. A call that rang rings again. Messages that would
    have been sent meanwhile are lost.
    """
    for leg in sandbox.twilio.calls.values():
        if leg.callback_url is not None:
            send_status_callbacks(sandbox, leg, leg.callback_url)
    for call in sandbox.vapi.calls.values():
        leg_of_call = sandbox.twilio.calls.get(call.shown["phoneCallProviderId"])
        if leg_of_call is not None:
            _connect_leg(call, leg_of_call)
        if call.ended is None:
            sandbox.courier.spawn(run_call(sandbox, call))


async def run_call(sandbox: Sandbox, call: LiveCall) -> None:
    """Run a call until its report, from its start or from its state before a restart."""
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
        await call.wait_until_end(plan.ring_seconds)
    else:
        await call.wait_until_end(plan.queued_seconds)
        if not call.over:
            _change_status(sandbox, call, "ringing")
            await call.wait_until_end(plan.ring_seconds)
        if not plan.answered:
            call.end("customer-did-not-answer")
    if not call.over:
        _change_status(sandbox, call, "in-progress")


async def _talk(sandbox: Sandbox, call: LiveCall) -> None:
    talk_seconds, longest_seconds = call.plan.talk_seconds, call.longest_seconds
    seconds_before = call.seconds_before
    if talk_seconds is None or talk_seconds >= longest_seconds:
        await call.wait_until_end(longest_seconds - seconds_before)
        if call.over:
            return
        if not sandbox.vapi.behaviour_of(call).ignore_max_duration:
            call.end("exceeded-max-duration", after_seconds=longest_seconds)
            return
        seconds_before = max(seconds_before, longest_seconds)
    await call.wait_until_end(None if talk_seconds is None else talk_seconds - seconds_before)
    call.end("customer-ended-call", after_seconds=talk_seconds)


def _final_leg_status(call: LiveCall) -> str:
    if call.began is not None or call.shown["type"] == "inboundPhoneCall":
        return "completed"
    return "no-answer" if call.reason == "customer-did-not-answer" else "canceled"


def _change_status(sandbox: Sandbox, call: LiveCall, status: str) -> None:
    call.set_status(status)
    if call.leg is not None:
        call.leg.set_status(_final_leg_status(call) if status == "ended" else status)
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
    signed_parcel = parcel(sandbox, message, call.server_url)
    sandbox.courier.spawn(sandbox.courier.send(signed_parcel, copies=copies, retry=False))
