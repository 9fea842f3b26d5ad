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


def misbehave(house, **changes: object) -> dict:
    return house.control("POST", "/vapi/behaviour", changes)


def test_deaf_call_continues_until_twilio_ends_it(house, listener, account):
    # Given two calls, of which one ignores orders and its maximum duration
    deaf = start_call(house, twilio_sid=account["sid"], max_duration_seconds=0.3)
    other = start_call(house, twilio_sid=account["sid"])
    told = misbehave(house, call_id=deaf["id"], deaf=True, ignore_max_duration=True)
    assert told["deaf"] and told["ignore_max_duration"] and not told["lose_reports"]
    for call in (deaf, other):
        wait_for_status(house, call, "in-progress")
    # When both are ordered to end, in each way
    for call in (deaf, other):
        said = order(house, call, type="say", content="bye", endCallAfterSpoken=True)
        assert said.json() == {"success": True}
    order(house, deaf, type="end-call")
    wait_for_status(house, other, "ended")
    # Then that one goes on, past its maximum duration too
    assert wait_until(lambda: seen(house, deaf)["seconds"] > 0.5, limit_seconds=SANDBOX_SECONDS)
    assert read_call(house, deaf)["status"] == "in-progress"
    shown = seen(house, deaf)
    assert [(one["type"], one["obeyed"]) for one in shown["orders"]] == [
        ("say", False),
        ("end-call", False),
    ]
    assert shown["spoken"] == []
    # When its leg is completed at Twilio / Then it ends at once
    completed = end_leg(house, deaf, account["sid"])
    wait_for_status(house, deaf, "ended")
    assert abs(seen(house, deaf)["ended"] - completed) < 0.05
    assert read_leg(house, deaf, account["sid"])["status"] == "completed"
    assert listener.wait_for_message(deaf["id"], "end-of-call-report")


def test_deaf_call_may_ignore_speech_only(house, number, assistant):
    misbehave(house, deaf_to_say=True)
    call = start_call(house, number_id=number["id"], assistant_id=assistant["id"], deliver=False)
    wait_for_status(house, call, "in-progress")
    order(house, call, type="say", content="bye", endCallAfterSpoken=True)
    assert seen(house, call)["spoken"] == []
    order(house, call, type="end-call")
    assert wait_for_status(house, call, "ended")["endedReason"] == "manually-canceled"
    # Then the behaviour of one call takes precedence over the general one
    call = start_call(house, behaviour={"deaf_to_say": False}, deliver=False)
    order(house, call, type="say", content="bye", endCallAfterSpoken=True)
    wait_for_status(house, call, "ended")


def test_call_ignoring_its_maximum_ends_when_the_customer_hangs_up(house):
    call = start_call(
        house,
        max_duration_seconds=0.1,
        talk_seconds=0.3,
        behaviour={"ignore_max_duration": True},
        deliver=False,
    )
    assert wait_for_status(house, call, "ended")["endedReason"] == "customer-ended-call"
    assert seen(house, call)["seconds"] >= 0.3
    call = start_call(house, max_duration_seconds=0.1, talk_seconds=0.3, deliver=False)
    assert wait_for_status(house, call, "ended")["endedReason"] == "exceeded-max-duration"


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
    house, listener, behaviour, updates, reports, lost
):
    misbehave(house, **behaviour)
    call = start_call(house, talk_seconds=0)
    # Then it ends nevertheless, and a later call is reported as usual
    assert wait_until(lambda: seen(house, call)["lost"] == lost, limit_seconds=SANDBOX_SECONDS)
    listener.wait_for_message(call["id"], "status-update", updates)
    listener.wait_for_message(call["id"], "end-of-call-report", reports)
    house.control("POST", "/reset")
    after = start_call(house, talk_seconds=0)
    listener.wait_for_message(after["id"], "end-of-call-report")
    assert len(listener.messages(call["id"], "status-update")) == updates
    assert len(listener.messages(call["id"], "end-of-call-report")) == reports


def test_report_is_sent_after_the_configured_delay(house, listener):
    misbehave(house, report_delay_seconds=0.7)
    call = start_call(house, talk_seconds=0)
    listener.wait_for_message(call["id"], "end-of-call-report")
    assert time.monotonic() - seen(house, call)["ended"] >= 0.7


def test_misbehaviour_is_refused_when_a_field_or_call_is_invalid(house):
    house.control("POST", "/vapi/behaviour", {"death": True}, code=422)
    house.control("POST", "/vapi/behaviour", {"lose_probability": 2}, code=422)
    house.control("POST", "/vapi/behaviour", {"call_id": "x", "deaf": True}, code=404)
    assert not any(house.control("GET", "/vapi/behaviour").values())


def test_read_of_a_call_fails_once_when_a_fault_is_set(house):
    call = start_call(house, deliver=False)
    house.fault("vapi", "status", status=503, times=1, match={"path_contains": "/call/"})
    assert read_call(house, call)["name"] == "FAULT"
    assert read_call(house, call)["id"] == call["id"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads CPU time as Linux has it")
def test_thousand_idle_calls_use_little_processor_time(house, listener, number, account):
    # Given a thousand calls with legs, and one more that talks for two seconds
    for _ in range(1000):
        start_call(house, number_id=number["id"], deliver=False)
    assert wait_until(
        lambda: len(house.control("GET", "/vapi/calls?status=in-progress")) == 1000,
        limit_seconds=SANDBOX_SECONDS,
        every_seconds=0.5,
    )
    last = start_call(house, talk_seconds=2)
    listener.wait_for_message(last["id"], "status-update", 2)
    # When those two seconds pass
    before = cpu_seconds(house)
    listener.wait_for_message(last["id"], "end-of-call-report")
    # Then the process was idle
    assert cpu_seconds(house) - before < 0.2
    # When every leg is completed at once / Then all have ended by the last answer
    for call in house.control("GET", "/vapi/calls?status=in-progress"):
        end_leg(house, call["call"], account["sid"])
    assert len(house.control("GET", "/vapi/calls?status=ended")) == 1001


def cpu_seconds(house) -> float:
    """Return the sandbox's CPU time so far, in seconds.

    The process's name is in brackets and may contain blanks.
    """
    fields = Path(f"/proc/{house.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_hundreds_of_inbound_calls_at_once_each_get_an_answer(house, listener, number, assistant):
    # Given an ingress that refuses / When two hundred calls ring at the same time
    calls = [notify_in(house, number, report=False) for _ in range(200)]
    assert wait_until(
        lambda: len(house.control("GET", "/vapi/calls?status=ended")) == 200,
        limit_seconds=SANDBOX_SECONDS,
        every_seconds=0.2,
    )
    decisions = [one["decision"]["verdict"] for one in house.control("GET", "/vapi/calls")]
    assert decisions == ["refused"] * len(calls)
    assert len({one["call"]["id"] for one in listener.messages(kind="assistant-request")}) == 200
