"""Deliberate misbehaviour of Vapi's stand-in, and the backstops that remain."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from base.clock import wait_until
from tests.sandbox.calling import (
    end_leg,
    notify_in,
    order,
    read_call,
    read_leg,
    seen,
    start_call,
    wait_for_status,
)
from tests.support.sandbox import SANDBOX_SECONDS


def misbehave(sandbox, **changes: object) -> dict:
    return sandbox.control("POST", "/vapi/behaviour", changes)


def test_deaf_call_continues_until_twilio_ends_it(sandbox, listener, account):
    # Given two calls, of which one ignores orders and its maximum duration
    deaf = start_call(sandbox, twilio_sid=account["sid"], max_duration_seconds=0.3)
    other = start_call(sandbox, twilio_sid=account["sid"])
    applied = misbehave(sandbox, call_id=deaf["id"], deaf=True, ignore_max_duration=True)
    assert applied["deaf"] and applied["ignore_max_duration"] and not applied["lose_reports"]
    for call in (deaf, other):
        wait_for_status(sandbox, call, "in-progress")
    # When both are ordered to end, in each way
    for call in (deaf, other):
        ordered = order(sandbox, call, type="say", content="bye", endCallAfterSpoken=True)
        assert ordered.json() == {"success": True}
    order(sandbox, deaf, type="end-call")
    wait_for_status(sandbox, other, "ended")
    # Then that one goes on, past its maximum duration too
    assert wait_until(lambda: seen(sandbox, deaf)["seconds"] > 0.5, limit_seconds=SANDBOX_SECONDS)
    assert read_call(sandbox, deaf)["status"] == "in-progress"
    shown = seen(sandbox, deaf)
    assert [(one["type"], one["obeyed"]) for one in shown["orders"]] == [
        ("say", False),
        ("end-call", False),
    ]
    assert shown["spoken"] == []
    # When its leg is completed at Twilio / Then it ends at once
    completed = end_leg(sandbox, deaf, account["sid"])
    wait_for_status(sandbox, deaf, "ended")
    assert abs(seen(sandbox, deaf)["ended"] - completed) < 0.05
    assert read_leg(sandbox, deaf, account["sid"])["status"] == "completed"
    assert listener.wait_for_message(deaf["id"], "end-of-call-report")


def test_deaf_call_may_ignore_speech_only(sandbox, number, assistant):
    misbehave(sandbox, deaf_to_say=True)
    call = start_call(sandbox, number_id=number["id"], assistant_id=assistant["id"], deliver=False)
    wait_for_status(sandbox, call, "in-progress")
    order(sandbox, call, type="say", content="bye", endCallAfterSpoken=True)
    assert seen(sandbox, call)["spoken"] == []
    order(sandbox, call, type="end-call")
    assert wait_for_status(sandbox, call, "ended")["endedReason"] == "manually-canceled"
    # Then the behaviour of one call takes precedence over the general one
    call = start_call(sandbox, behaviour={"deaf_to_say": False}, deliver=False)
    order(sandbox, call, type="say", content="bye", endCallAfterSpoken=True)
    wait_for_status(sandbox, call, "ended")


def test_call_ignoring_its_maximum_ends_when_the_customer_hangs_up(sandbox):
    call = start_call(
        sandbox,
        max_duration_seconds=0.1,
        talk_seconds=0.3,
        behaviour={"ignore_max_duration": True},
        deliver=False,
    )
    assert wait_for_status(sandbox, call, "ended")["endedReason"] == "customer-ended-call"
    assert seen(sandbox, call)["seconds"] >= 0.3
    call = start_call(sandbox, max_duration_seconds=0.1, talk_seconds=0.3, deliver=False)
    assert wait_for_status(sandbox, call, "ended")["endedReason"] == "exceeded-max-duration"


@pytest.mark.parametrize(
    ("behaviour", "updates", "reports", "lost"),
    [
        ({}, 3, 1, []),
        ({"lose_reports": True}, 3, 0, ["end-of-call-report"]),
        ({"lose_status": True}, 0, 1, ["status-update"] * 3),
        ({"double_reports": True}, 3, 2, []),
        ({"lose_probability": 1}, 0, 0, ["status-update"] * 3 + ["end-of-call-report"]),
    ],
)
def test_messages_are_lost_and_repeated_as_configured(
    sandbox, listener, behaviour, updates, reports, lost
):
    misbehave(sandbox, **behaviour)
    call = start_call(sandbox, talk_seconds=0)
    # Then it ends nevertheless, and a later call is reported as usual
    assert wait_until(lambda: seen(sandbox, call)["lost"] == lost, limit_seconds=SANDBOX_SECONDS)
    listener.wait_for_message(call["id"], "status-update", updates)
    listener.wait_for_message(call["id"], "end-of-call-report", reports)
    sandbox.control("POST", "/reset")
    after = start_call(sandbox, talk_seconds=0)
    listener.wait_for_message(after["id"], "end-of-call-report")
    assert len(listener.messages(call["id"], "status-update")) == updates
    assert len(listener.messages(call["id"], "end-of-call-report")) == reports


def test_report_is_sent_after_the_configured_delay(sandbox, listener):
    misbehave(sandbox, report_delay_seconds=0.7)
    call = start_call(sandbox, talk_seconds=0)
    listener.wait_for_message(call["id"], "end-of-call-report")
    assert time.monotonic() - seen(sandbox, call)["ended"] >= 0.7


def test_misbehaviour_is_refused_when_a_field_or_call_is_invalid(sandbox):
    sandbox.control("POST", "/vapi/behaviour", {"death": True}, code=422)
    sandbox.control("POST", "/vapi/behaviour", {"lose_probability": 2}, code=422)
    sandbox.control("POST", "/vapi/behaviour", {"call_id": "x", "deaf": True}, code=404)
    assert not any(sandbox.control("GET", "/vapi/behaviour").values())


def test_read_of_a_call_fails_once_when_a_fault_is_set(sandbox):
    call = start_call(sandbox, deliver=False)
    sandbox.fault("vapi", "status", status=503, times=1, match={"path_contains": "/call/"})
    assert read_call(sandbox, call)["name"] == "FAULT"
    assert read_call(sandbox, call)["id"] == call["id"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads CPU time as Linux has it")
def test_thousand_idle_calls_use_little_processor_time(sandbox, listener, number, account):
    # Given a thousand calls with legs, and one more that talks for two seconds
    for _ in range(1000):
        start_call(sandbox, number_id=number["id"], deliver=False)
    assert wait_until(
        lambda: len(sandbox.control("GET", "/vapi/calls?status=in-progress")) == 1000,
        limit_seconds=SANDBOX_SECONDS,
        every_seconds=0.5,
    )
    last = start_call(sandbox, talk_seconds=2)
    listener.wait_for_message(last["id"], "status-update", 2)
    # When those two seconds pass
    before = cpu_seconds(sandbox)
    listener.wait_for_message(last["id"], "end-of-call-report")
    # Then the process was idle
    assert cpu_seconds(sandbox) - before < 0.2
    # When every leg is completed at once / Then all have ended by the last answer
    for call in sandbox.control("GET", "/vapi/calls?status=in-progress"):
        end_leg(sandbox, call["call"], account["sid"])
    assert len(sandbox.control("GET", "/vapi/calls?status=ended")) == 1001


def cpu_seconds(sandbox) -> float:
    """Return the sandbox's CPU time so far, in seconds.

    The process's name is in brackets and may contain blanks.
    """
    fields = Path(f"/proc/{sandbox.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_hundreds_of_inbound_calls_at_once_each_get_an_answer(sandbox, listener, number, assistant):
    # Given an ingress that refuses / When two hundred calls ring at the same time
    calls = [notify_in(sandbox, number, report=False) for _ in range(200)]
    assert wait_until(
        lambda: len(sandbox.control("GET", "/vapi/calls?status=ended")) == 200,
        limit_seconds=SANDBOX_SECONDS,
        every_seconds=0.2,
    )
    decisions = [one["decision"]["verdict"] for one in sandbox.control("GET", "/vapi/calls")]
    assert decisions == ["refused"] * len(calls)
    assert len({one["call"]["id"] for one in listener.messages(kind="assistant-request")}) == 200
