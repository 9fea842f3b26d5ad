"""A call as Vapi writes it: what is believed, what is not, and what is said of it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from base.enums import CallDirection, CallStatus
from base.facts import CallReport, OtherReport
from providers.errors import MalformedWebhook
from providers.vapi.messages import (
    call_ask_of,
    external_id_of,
    is_ignored,
    parse,
    predial_of,
    report_of,
)
from providers.vapi.readings import call_facts

CALL_ID = "019d0000-0000-7000-8000-000000000003"
START, END = "2026-05-04T10:00:05.000Z", "2026-05-04T10:02:12.598Z"


def call(**more) -> dict:
    return {"id": CALL_ID, "type": "outboundPhoneCall", "status": "ended", **more}


def report(**more) -> dict:
    return {"type": "end-of-call-report", "endedReason": "customer-ended-call", **more}


def test_a_whole_report_is_read_exactly():
    facts = call_facts(
        call(
            assistantId="a1",
            phoneNumberId="n1",
            phoneCallProviderId="CA" + "0" * 32,
            customer={"number": "+15005550006"},
            assistantOverrides={
                "metadata": {"holdfast_organization": "org_1", "holdfast_call": "call_1"}
            },
        ),
        report(
            startedAt=START,
            endedAt=END,
            durationSeconds=Decimal("127.598"),
            cost=Decimal("0.1931"),
        ),
    )
    assert (facts.status, facts.direction) == (CallStatus.ENDED, CallDirection.OUTBOUND)
    assert (facts.duration_ms, facts.provider_cost_micros) == (127_598, 193_100)
    assert (facts.assistant_id, facts.phone_number_id) == ("a1", "n1")
    assert (facts.organization_id, facts.call_id) == ("org_1", "call_1")
    assert facts.their_party == "…0006"
    assert (facts.oddities, facts.provider_fault, facts.never_connected) == ((), False, False)


@pytest.mark.parametrize(
    ("said", "duration_ms", "oddities"),
    [
        ({"startedAt": START, "endedAt": END}, 127_598, ()),
        ({"durationSeconds": Decimal("12.5")}, 12_500, ()),
        ({"durationSeconds": 12}, 12_000, ()),
        ({"durationSeconds": Decimal("0.0005")}, 1, ()),
        ({"startedAt": END, "endedAt": START}, None, ("negative_duration",)),
        ({"startedAt": END, "endedAt": START, "durationSeconds": 3}, 3_000, ("negative_duration",)),
        ({"startedAt": START, "endedAt": "2027-01-01T00:00:00Z"}, None, ("absurd_duration",)),
        ({"startedAt": START, "endedAt": "soon"}, None, ("endedAt",)),
        ({"startedAt": 7, "endedAt": None}, None, ("startedAt",)),
        ({"durationSeconds": -1}, None, ("negative_duration",)),
        ({"durationSeconds": Decimal("1e9")}, None, ("absurd_duration",)),
        ({"durationSeconds": Decimal("1e999999999999999999")}, None, ("absurd_duration",)),
        ({"durationSeconds": Decimal("-1e999999999999999999")}, None, ("negative_duration",)),
        ({"durationSeconds": Decimal("1e-999999999999999999")}, 0, ()),
        ({"durationSeconds": "60"}, None, ("durationSeconds",)),
        ({"durationSeconds": True}, None, ("durationSeconds",)),
        ({"durationSeconds": None}, None, ()),
        (
            {"startedAt": START, "endedAt": END, "durationSeconds": 300},
            127_598,
            ("durations_disagree",),
        ),
        ({"startedAt": START, "endedAt": END, "durationSeconds": 132}, 127_598, ()),
    ],
)
def test_a_duration_is_from_start_to_end_or_by_the_seconds_or_none(said, duration_ms, oddities):
    facts = call_facts(call(), report(**said))
    assert (facts.duration_ms, facts.oddities) == (duration_ms, oddities)


@pytest.mark.parametrize(
    ("cost", "micros", "odd"),
    [
        (Decimal("0.0000005"), 1, False),
        (0, 0, False),
        (Decimal("1000"), 1_000_000_000, False),
        (Decimal("1000.01"), None, True),
        (Decimal("-0.01"), None, True),
        ("0.1", None, True),
        (Decimal("Infinity"), None, True),
        (None, None, False),
    ],
)
def test_a_cost_is_read_from_its_text_and_bounded(cost, micros, odd):
    facts = call_facts(call(), report(cost=cost))
    assert (facts.provider_cost_micros, "cost" in facts.oddities) == (micros, odd)


@pytest.mark.parametrize(
    ("reason", "never", "fault"),
    [
        ("customer-did-not-answer", True, False),
        ("customer-busy", True, False),
        ("assistant-request-returned-error", True, False),
        ("call.start.error-get-customer", True, True),
        ("call.in-progress.error-vapifault-worker-died", False, True),
        ("call.in-progress.error-providerfault-openai", False, True),
        ("pipeline-error-first-message-failed", False, True),
        ("customer-ended-call", False, False),
        ("a-reason-that-is-new", False, False),
    ],
)
def test_reasons_are_told_apart_by_how_they_begin(reason, never, fault):
    facts = call_facts(call(), report(endedReason=reason))
    assert (facts.never_connected, facts.provider_fault) == (never, fault)
    assert facts.duration_ms == (0 if never else None)


def test_one_that_talked_was_connected_whatever_its_reason_says():
    facts = call_facts(call(), report(endedReason="customer-busy", startedAt=START, endedAt=END))
    assert (facts.never_connected, facts.duration_ms) == (False, 127_598)


def test_the_messages_own_status_goes_before_its_copy_of_the_call():
    said = {"type": "status-update", "status": "ended", "endedReason": "hangup"}
    assert call_facts(call(status="in-progress"), said).status is CallStatus.ENDED
    assert call_facts(call(status="in-progress"), report()).status is CallStatus.ENDED
    odd = call_facts(call(status="levitating"), {"type": "status-update"})
    assert (odd.status, odd.oddities) == (None, ("status",))


@pytest.mark.parametrize("junk", [None, 7, "", "x" * 65, "a\0b", ["a"]])
def test_junk_in_place_of_ids_is_nothing(junk):
    facts = call_facts(
        call(
            assistantId=junk,
            phoneNumberId=junk,
            phoneCallProviderId=junk,
            customer={"number": junk} if junk != "x" * 65 else None,
            assistantOverrides={"metadata": {"holdfast_organization": junk}},
        )
    )
    assert (facts.assistant_id, facts.phone_number_id, facts.twilio_call_sid) == (None, None, None)
    assert facts.organization_id is None


def message(**content):
    return parse(json.dumps({"message": content}).encode())


def test_a_fact_has_one_name_however_often_it_is_told():
    first = message(type="status-update", status="ringing", call=call(), timestamp=1)
    again = message(type="status-update", status="ringing", call=call(), timestamp=2)
    later = message(type="status-update", status="ended", call=call())
    final = message(type="end-of-call-report", call=call())
    assert external_id_of(first) == external_id_of(again)
    assert len({external_id_of(one) for one in (first, later, final)}) == 3
    assert external_id_of(message(type="new", call=call())).startswith("body:")


def test_how_long_it_has_talked_is_by_the_providers_own_clock():
    told = report_of(
        message(
            type="status-update",
            status="in-progress",
            call=call(startedAt=START),
            timestamp=1_777_888_806_500,
        )
    )
    assert isinstance(told, CallReport)
    assert (told.talking_ms, told.final) == (1_500, False)


@pytest.mark.parametrize("timestamp", [None, "now", -1, True, 10**20])
def test_a_timestamp_that_is_junk_says_nothing(timestamp):
    told = report_of(
        message(
            type="status-update",
            status="in-progress",
            call=call(startedAt=START),
            timestamp=timestamp,
        )
    )
    assert told.talking_ms is None


def test_a_report_about_no_call_is_malformed_and_other_types_are_others():
    with pytest.raises(MalformedWebhook):
        report_of(message(type="end-of-call-report"))
    with pytest.raises(MalformedWebhook):
        report_of(message(type="status-update", status="ended", call={"id": "a/../b"}))
    assert report_of(message(type="call.rewound")) == OtherReport("call.rewound")


def test_numbers_never_pass_by_a_float():
    assert message(type="x", cost=0.1).content["cost"] == Decimal("0.1")


def test_words_and_turns_are_ignored_and_what_tells_of_a_call_is_not():
    assert all(
        is_ignored(one) for one in ("hang", "transcript", "chat.created", "assistant.started")
    )
    assert not any(
        is_ignored(one) for one in ("status-update", "end-of-call-report", "assistant-request", "x")
    )


def test_a_request_is_read_with_our_number_whole_and_theirs_masked():
    ask = call_ask_of(
        message(
            type="assistant-request",
            call=call(type="inboundPhoneCall", phoneNumberId="n1"),
            phoneNumber={"number": "+15005550001", "twilioAccountSid": "AC" + "0" * 32},
            customer={"number": "+15005550006"},
        )
    )
    assert (ask.our_number, ask.their_party) == ("+15005550001", "…0006")
    assert (ask.phone_number_id, ask.twilio_account_sid) == ("n1", "AC" + "0" * 32)
    assert ask.direction is CallDirection.INBOUND


def test_a_campaigns_question_names_it():
    ask = predial_of(message(type="campaign.predial", campaignId="c1", contact={"id": "k1"}))
    assert (ask.campaign_id, ask.contact_id) == ("c1", "k1")


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e-99999999999999999999", "NaN"])
def test_a_number_that_is_none_makes_a_message_malformed(number):
    with pytest.raises(MalformedWebhook):
        parse(f'{{"message": {{"type": "hang", "cost": {number}}}}}'.encode())
