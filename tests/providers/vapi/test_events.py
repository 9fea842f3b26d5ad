from __future__ import annotations

from decimal import Decimal

import pytest

from base.enums import CallDirection, CallStatus
from base.facts import AdmissionRequest, CallReport, OtherReport, PermissionRequest
from providers.errors import MalformedWebhook
from providers.vapi import events as messages
from tests.providers.vapi.support import (
    ACCOUNT,
    CALL,
    LEG,
    STARTED,
    STARTED_MS,
    call,
    parsed,
    report,
    status_update,
    written,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"message"',
        b"{}",
        b'{"message":null}',
        b'{"message":[]}',
        b'{"message":{}}',
        b'{"message":{"type":""}}',
        b'{"message":{"type":null}}',
        b'{"message":{"type":["hang"]}}',
        b'{"message":{"type":"a\\u0000"}}',
        b'{"message":{"type":"\\ud800"}}',
        b'{"message":{"type":"' + b"x" * 101 + b'"}}',
        b'{"message":{"type":"hang"},"message":{"type":"transcript"}}',
        b'{"message":{"type":"hang","type":"transcript"}}',
        b'{"message":{"type":"hang","call":{"id":"a","id":"b"}}}',
        b'{"message":{"type":"hang","cost":NaN}}',
        b'{"message":{"type":"hang","cost":-Infinity}}',
        b'{"message":{"type":"hang","cost":1.0e9999999999999999999}}',
        b'{"message":{"type":"hang","cost":' + b"9" * 5000 + b"}}",
        b'{"message":{"type":"hang","cost":1,}}',
        '{"message":{"type":"hang"}}'.encode("utf-16"),
        b'\xef\xbb\xbf{"message":{"type":"hang"}}',
        b'{"message":{"type":"ha\xffng"}}',
        b"[" * 100_000,
        b'{"message":' * 50_000,
    ],
)
def test_body_without_a_message_is_malformed(body):
    with pytest.raises(MalformedWebhook):
        messages.parse(body)


def test_numbers_never_become_floats():
    message = messages.parse(
        b'{"message":{"type":"hang","cost":0.1931,"big":12345678901234567.123456789,"n":7}}'
    )
    assert message.content["cost"] == Decimal("0.1931")
    assert message.content["big"] == Decimal("12345678901234567.123456789")
    assert message.content["n"] == 7
    assert not [one for one in message.content.values() if isinstance(one, float)]


@pytest.mark.parametrize(
    ("timestamp", "sent_ms"),
    [
        (STARTED_MS, STARTED_MS),
        (STARTED_MS // 1000, STARTED_MS),
        (Decimal("1777888805.125"), STARTED_MS + 125),
        (Decimal("1777888805000.9"), STARTED_MS),
        (0, None),
        (-1, None),
        (10**14 + 1, None),
        (Decimal("1e999999"), None),
        (True, None),
        ("1777888805000", None),
        (None, None),
        ({}, None),
    ],
)
def test_time_of_a_message_is_read_in_either_unit(timestamp, sent_ms):
    assert parsed({"type": "hang", "timestamp": timestamp}).sent_ms == sent_ms


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (status_update("ringing"), f"{CALL}:status-update:ringing"),
        (status_update("ringing", endedReason="x"), f"{CALL}:status-update:ringing"),
        (status_update("ended"), f"{CALL}:status-update:ended"),
        (
            status_update("ended", endedReason="customer-busy"),
            f"{CALL}:status-update:ended:customer-busy",
        ),
        (status_update("ended", endedReason="\n"), f"{CALL}:status-update:ended"),
    ],
)
def test_call_event_is_identified_by_its_fact(message, expected):
    assert messages.external_id_of(parsed(message)) == expected
    # And it has the same name if it is sent again later
    assert messages.external_id_of(parsed(message | {"timestamp": 5})) == expected


@pytest.mark.parametrize(
    ("message", "start"),
    [
        (report(), f"{CALL}:end-of-call-report:customer-ended-call:"),
        (report(("endedReason",)), f"{CALL}:end-of-call-report:"),
        (report(endedReason=7), f"{CALL}:end-of-call-report:"),
        (report(endedReason="r" * 200), f"{CALL}:end-of-call-report:"),
    ],
)
def test_report_with_another_body_has_another_id(message, start):
    name = messages.external_id_of(parsed(message))
    assert name.startswith(start) and len(name) <= 200
    # The same bytes are one event
    assert messages.external_id_of(parsed(message)) == name
    # A body with any other value is another event
    others = [
        parsed(message | changed)
        for changed in ({"durationSeconds": 40}, {"endedAt": None}, {"cost": 1}, {"timestamp": 5})
    ]
    assert len({name, *map(messages.external_id_of, others)}) == 5


@pytest.mark.parametrize(
    "message",
    [
        {"type": "status-update", "status": "ended"},
        {"type": "end-of-call-report"},
        status_update("ringing", call={"id": "../x"}),
        status_update("ringing", call={"id": "\x00"}),
        status_update("ringing", call={"id": "a" * 65}),
        status_update("ringing", call={"id": 5}),
        status_update(None),
        status_update("\x00"),
        {"type": "call.rewound", "call": call()},
        {"type": "campaign.predial", "campaignId": "c"},
    ],
)
def test_event_without_a_known_call_is_identified_by_its_body(message):
    name = messages.external_id_of(parsed(message))
    assert name.startswith("body:") and len(name) == 69
    assert messages.external_id_of(parsed(message)) == name
    assert messages.external_id_of(parsed(message | {"timestamp": 5})) != name


def test_longest_event_id_has_200_characters():
    def name(reason: str, status: str = "ended") -> str:
        message = status_update(status, endedReason=reason, call=call(id="a" * 64))
        return messages.external_id_of(parsed(message))

    exact = "r" * (200 - len("a" * 64 + ":status-update:ended:"))
    assert len(name(exact)) == 200 and name(exact).endswith(exact)
    names = {name(exact + "1"), name(exact + "2"), name("é" * 199), name("x", "s" * 200)}
    assert len(names) == 4
    assert all(len(one) <= 200 and one.startswith("a" * 64) for one in names)


def test_every_type_is_answered_or_ignored_or_kept():
    assert {
        "assistant-request",
        "campaign.predial",
        "tool-calls",
        "transfer-destination-request",
        "handoff-destination-request",
        "knowledge-base-request",
        "voice-request",
        "call.endpointing.request",
    } <= messages.ANSWERED_TYPES
    for kind in (
        "hang",
        "conversation-update",
        "transcript",
        "transcript[transcriptType='final']",
        "speech-update",
        "model-output",
        "user-interrupted",
        "voice-input",
        "language-change-detected",
        "language-changed",
        "transfer-update",
        "assistant.started",
        "assistant.speechStarted",
        "chat.created",
        "session.deleted",
    ):
        assert messages.is_ignored(kind), kind
        assert kind not in messages.ANSWERED_TYPES
    for kind in (
        *messages.ANSWERED_TYPES,
        "status-update",
        "end-of-call-report",
        "call.deleted",
        "call.rewound",
        "assistant-request",
        "HANG",
        "hangup",
        "chat",
    ):
        assert not messages.is_ignored(kind), kind


def test_status_is_a_report_that_is_not_final():
    found = messages.report_of(parsed(status_update("in-progress")))
    assert isinstance(found, CallReport)
    assert (found.final, found.talking_ms) == (False, 5_000)
    assert found.facts.status is CallStatus.IN_PROGRESS
    assert (found.facts.organization_id, found.facts.call_id) == ("org_1", "call_1")


def test_report_is_final():
    found = messages.report_of(parsed(report()))
    assert isinstance(found, CallReport)
    assert (found.final, found.facts.status) == (True, CallStatus.ENDED)


@pytest.mark.parametrize(
    ("timestamp", "talking_ms"),
    [
        (STARTED_MS, 0),
        (STARTED_MS - 1, 0),
        (STARTED_MS + 43_260_000, 43_260_000),
        (STARTED_MS + 43_260_001, None),
        (10**14, None),
        (None, None),
    ],
)
def test_talked_seconds_are_bounded_and_by_vapis_clock(timestamp, talking_ms):
    found = messages.report_of(parsed(status_update(timestamp=timestamp)))
    assert isinstance(found, CallReport)
    assert found.talking_ms == talking_ms


def test_talked_seconds_are_none_without_a_start():
    found = messages.report_of(parsed(status_update(call=call(("startedAt",)))))
    assert isinstance(found, CallReport)
    assert found.talking_ms is None


@pytest.mark.parametrize("named", [None, "x", [], {}, {"id": ""}, {"id": "a b"}, {"id": "a\n"}])
@pytest.mark.parametrize("make", [report, status_update])
def test_call_message_without_a_call_id_is_malformed(make, named):
    with pytest.raises(MalformedWebhook):
        messages.report_of(parsed(make(call=named)))


@pytest.mark.parametrize("kind", ["hang", "call.rewound", "tool-calls", "Status-Update"])
def test_unknown_type_is_an_other_report(kind):
    assert messages.report_of(parsed({"type": kind, "call": call()})) == OtherReport(kind)


def test_inbound_request_is_read_with_the_callers_number_masked():
    asked = {
        "type": "assistant-request",
        "phoneNumber": {"id": "number-2", "number": "+15005550001", "twilioAccountSid": ACCOUNT},
        "customer": {"number": "+15005550006"},
        "call": call(("assistantId",), type="inboundPhoneCall", status="ringing"),
    }
    read = messages.call_ask_of(parsed(asked))
    assert read == AdmissionRequest(
        external_id=CALL,
        direction=CallDirection.INBOUND,
        assistant_id=None,
        phone_number_id="number-1",
        our_number="+15005550001",
        their_number="+15005550006",
        their_party="…0006",
        twilio_call_sid=LEG,
        twilio_account_sid=ACCOUNT,
    )
    # The number sets the price of the call and is never written to a log
    assert "+15005550006" not in repr(read)


def test_fields_are_read_from_the_call_when_missing_beside_it():
    inner = call(
        ("phoneNumberId",),
        type="webCall",
        phoneNumber={"id": "number-2", "number": "+15005550001"},
    )
    ask = messages.call_ask_of(parsed({"type": "assistant-request", "call": inner}))
    assert (ask.direction, ask.phone_number_id) == (CallDirection.WEB, "number-2")
    assert (ask.our_number, ask.their_party) == ("+15005550001", "…0006")


@pytest.mark.parametrize(
    "number", ["15005550001", "+1 500 555 0001", "sip:a@b", "", "+" + "1" * 16, "+١٢٣٤٥", 5, None]
)
def test_number_of_ours_that_is_not_e164_is_none(number):
    asked = {"type": "assistant-request", "phoneNumber": {"number": number}, "call": call()}
    assert messages.call_ask_of(parsed(asked)).our_number is None


def test_invalid_parts_of_a_request_are_none():
    inner = {
        "id": CALL,
        "type": 5,
        "assistantId": ["a"],
        "phoneNumberId": "n" * 65,
        "phoneCallProviderId": "CA1",
        "customer": "x",
    }
    asked = {"type": "assistant-request", "phoneNumber": [], "customer": 5, "call": inner}
    assert messages.call_ask_of(parsed(asked)) == AdmissionRequest(
        CALL, CallDirection.INBOUND, None, None, None, None, None, None
    )


def test_request_without_a_call_is_malformed():
    for named in ({}, {"call": None}, {"call": {"id": "a/b"}}):
        with pytest.raises(MalformedWebhook):
            messages.call_ask_of(parsed({"type": "assistant-request", **named}))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"campaignId": "c", "contact": {"id": "p"}}, PermissionRequest("c", "p", None, None)),
        ({"campaign": {"id": "c", "assistantId": "a"}}, PermissionRequest("c", "", "a", None)),
        (
            {"campaignId": "c", "assistantId": "a", "phoneNumberId": "n", "contact": []},
            PermissionRequest("c", "", "a", "n"),
        ),
        (
            {"campaignId": "c", "campaign": {"phoneNumberId": "n"}, "contact": {"id": 5}},
            PermissionRequest("c", "", None, "n"),
        ),
    ],
)
def test_predial_request_is_read(fields, expected):
    assert messages.predial_of(parsed({"type": "campaign.predial", **fields})) == expected


@pytest.mark.parametrize(
    "fields", [{}, {"campaignId": ""}, {"campaignId": 5}, {"campaignId": "c" * 65}]
)
def test_predial_request_without_a_campaign_is_malformed(fields):
    with pytest.raises(MalformedWebhook):
        messages.predial_of(parsed({"type": "campaign.predial", **fields}))


def test_answers_have_the_documented_shapes():
    assert messages.answer_admitted("a", 60, {"holdfast_call": "call_1"}) == {
        "assistantId": "a",
        "assistantOverrides": {
            "maxDurationSeconds": 60,
            "metadata": {"holdfast_call": "call_1"},
        },
    }
    assert messages.answer_refused("no credit") == {"error": "no credit"}
    # If the answer to a predial is anything but the boolean true, the contact is not called
    assert messages.answer_predial(True) == {"eligible": True}
    assert messages.answer_predial(False) == {"eligible": False}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tool-calls", {"results": []}),
        ("function-call", {"results": []}),
        ("voice-request", {"data": ""}),
        ("call.endpointing.request", {"timeoutSeconds": 0.5}),
        ("knowledge-base-request", {"documents": []}),
        ("transfer-destination-request", {}),
    ],
)
def test_other_requests_get_an_answer_of_their_type(kind, expected):
    assert kind in messages.ANSWERED_TYPES
    assert messages.answer_other(kind) == expected


def test_handoff_is_declined_with_the_fields_its_schema_requires():
    answer = messages.answer_other("handoff-destination-request")
    assert answer["destination"] == {}
    assert answer["error"]


def test_every_answered_type_has_an_answer():
    decided = {messages.ASSISTANT_REQUEST, messages.PREDIAL}
    for kind in messages.ANSWERED_TYPES - decided:
        assert isinstance(messages.answer_other(kind), dict)


def test_message_written_by_these_tests_is_what_vapi_writes():
    assert b'"cost": 0.1931' in written(report())
    assert STARTED.encode() in written(report())
