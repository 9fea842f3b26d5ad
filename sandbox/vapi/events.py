"""Vapi's server messages, and the life of a call that they tell of.

Messages are not sent again by default, since Vapi does not: a lost report is lost.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from sandbox.core import Sandbox
from sandbox.delivery import Parcel
from sandbox.exchange import Json
from sandbox.twilio.state import complete_call
from sandbox.vapi.state import LiveCall, epoch_ms

#: How often a living call looks at its Twilio leg, in seconds.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """How a call goes. Seconds; `talk_seconds` None means that only somebody else ends it."""

    queued_seconds: float
    ring_seconds: float
    talk_seconds: float | None
    max_duration_seconds: float
    answered: bool
    report: bool
    report_after_seconds: float
    deliver: bool
    #: The call's leg at Twilio: completing it there ends the call here.
    leg: Json | None


def parcel(sandbox: Sandbox, message: Json) -> Parcel:
    """This function will address a server message, with what proves its sender."""
    secret = sandbox.keys.secrets.vapi_server_secret
    headers = {"Content-Type": "application/json", "User-Agent": "vapi"}
    match sandbox.vapi.authentication:
        case "bearer":
            headers["Authorization"] = f"Bearer {secret}"
        case "x-vapi-secret":
            headers["X-Vapi-Secret"] = secret
    call_id = message.get("call", {}).get("id", "")
    return Parcel(
        provider="vapi",
        event_id=call_id,
        event_type=message["type"],
        transmission_id="",
        url=sandbox.webhook_url("vapi"),
        headers=headers,
        body=json.dumps({"message": message}, separators=(",", ":")).encode(),
    )


def status_update(call: LiveCall) -> Json:
    """This function will write a status-update of the call as it stands."""
    message: Json = {
        "type": "status-update",
        "status": call.shown["status"],
        "timestamp": epoch_ms(),
        "artifact": {},
        "customer": call.shown["customer"],
        "call": dict(call.shown),
    }
    if call.shown["status"] == "ended":
        message["endedReason"] = call.shown["endedReason"]
    return message


def end_of_call_report(call: LiveCall) -> Json:
    """This function will write the report of an ended call; unanswered ones have no start."""
    cost = call.shown["cost"]
    message: Json = {
        "type": "end-of-call-report",
        "endedReason": call.shown["endedReason"],
        "timestamp": epoch_ms(),
        "endedAt": call.shown["endedAt"],
        "cost": cost,
        "costs": [{"type": "vapi", "minutes": round(call.seconds() / 60, 4), "cost": cost}],
        "costBreakdown": {"vapi": cost, "total": cost},
        "durationSeconds": round(call.seconds(), 3),
        "artifact": {},
        "analysis": {},
        "customer": call.shown["customer"],
        "call": dict(call.shown),
    }
    if "startedAt" in call.shown:
        message["startedAt"] = call.shown["startedAt"]
    return message


async def live(sandbox: Sandbox, call: LiveCall, plan: Plan) -> None:
    """This function will live a call from queued to its report."""
    await _last(call, plan.queued_seconds, plan.leg)
    if not call.hang_up.is_set():
        _move(sandbox, call, plan, "ringing")
        await _last(call, plan.ring_seconds, plan.leg)
    if not plan.answered:
        call.end("customer-did-not-answer")
    if not call.hang_up.is_set():
        _move(sandbox, call, plan, "in-progress")
        talk = plan.talk_seconds
        longest = plan.max_duration_seconds
        await _last(call, longest if talk is None else min(talk, longest), plan.leg)
        over = talk is None or talk >= longest
        call.end("exceeded-max-duration" if over else "customer-ended-call")
    if plan.leg is not None:
        complete_call(plan.leg)
    _move(sandbox, call, plan, "ended")
    if plan.report and plan.deliver:
        await asyncio.sleep(plan.report_after_seconds)
        sandbox.courier.post(parcel(sandbox, end_of_call_report(call)), retry=False)


async def _last(call: LiveCall, seconds: float, leg: Json | None) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not call.hang_up.is_set() and (left := until - loop.time()) > 0:
        if leg is not None and leg["status"] == "completed":
            call.end("customer-ended-call")
            return
        try:
            wait = left if leg is None else min(left, _LOOK_SECONDS)
            await asyncio.wait_for(call.hang_up.wait(), wait)
        except TimeoutError:
            continue


def _move(sandbox: Sandbox, call: LiveCall, plan: Plan, status: str) -> None:
    call.set_status(status)
    if plan.deliver:
        sandbox.courier.post(parcel(sandbox, status_update(call)), retry=False)
