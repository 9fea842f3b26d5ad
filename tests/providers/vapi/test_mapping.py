from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from base.enums import CallDirection, CallStatus
from base.facts import CallFacts
from providers.vapi.mapping import call_facts
from tests.providers.vapi.support import (
    ACCOUNT,
    CALL,
    ENDED,
    LEG,
    STARTED,
    call,
    parsed,
    report,
    status_update,
)

NEVER = "customer-did-not-answer"


def facts(message: dict[str, Any]) -> CallFacts:
    content = parsed(message).content
    return call_facts(content["call"], content)


def test_every_field_of_a_report_is_read():
    message = report(
        phoneNumber={"id": "number-2", "number": "+15005550001", "twilioAccountSid": ACCOUNT}
    )
    read = facts(message)
    assert read == CallFacts(
        external_id=CALL,
        status=CallStatus.ENDED,
        direction=CallDirection.OUTBOUND,
        assistant_id="assistant-1",
        phone_number_id="number-1",
        twilio_call_sid=LEG,
        twilio_account_sid=ACCOUNT,
        our_party="…0001",
        our_number="+15005550001",
        their_party="…0006",
        their_number="+15005550006",
        organization_id="org_1",
        call_id="call_1",
        started_at=datetime(2026, 5, 4, 10, 0, 5, tzinfo=UTC),
        ended_at=datetime(2026, 5, 4, 10, 2, 12, 598_000, tzinfo=UTC),
        duration_ms=127_598,
        ended_reason="customer-ended-call",
        provider_cost_micros=193_100,
    )
    # The numbers set the price of the call and are never written to a log
    assert "+1500555" not in repr(read)


def test_call_from_the_api_is_read_by_the_same_rules():
    from_message = facts(report())
    shown = call(
        status="ended", endedAt=ENDED, endedReason="customer-ended-call", cost=Decimal("0.1931")
    )
    assert call_facts(shown) == from_message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("scheduled", CallStatus.QUEUED),
        ("queued", CallStatus.QUEUED),
        ("ringing", CallStatus.RINGING),
        ("in-progress", CallStatus.IN_PROGRESS),
        ("forwarding", CallStatus.FORWARDING),
        ("ended", CallStatus.ENDED),
    ],
)
def test_status_is_mapped_to_our_terms(status, expected):
    assert facts(status_update(status)).status is expected


@pytest.mark.parametrize(
    ("status", "named"),
    [
        ("not-found", "not-found"),
        ("deletion-failed", "deletion-failed"),
        ("ENDED", "ENDED"),
        ("", "?"),
        ("x" * 41, "?"),
        ("\x00", "?"),
        (5, "?"),
        (["ended"], "?"),
        ({}, "?"),
    ],
)
def test_unknown_status_is_none_and_an_anomaly(status, named):
    found = facts(status_update(status))
    assert (found.status, found.anomalies) == (None, ("status",))
    assert found.unknown_status == named


@pytest.mark.parametrize("status", [None, "deletion-failed", "archived"])
@pytest.mark.parametrize(
    "end", [{"endedAt": ENDED, "endedReason": "customer-ended-call"}, {"endedAt": ENDED}]
)
def test_call_with_only_an_end_has_ended(status, end):
    shown = call(status=status, **end)
    found = call_facts(shown)
    assert (found.status, found.duration_ms) == (CallStatus.ENDED, 127_598)
    assert found.unknown_status == status
    del shown["status"]
    assert call_facts(shown).status is CallStatus.ENDED


@pytest.mark.parametrize("end", [{}, {"endedAt": None, "endedReason": None}])
def test_call_without_status_or_end_has_no_status(end):
    found = call_facts(call(("status",), **end))
    assert (found.status, found.unknown_status, found.duration_ms) == (None, None, None)


def test_known_status_takes_precedence_over_an_end():
    # The end is used only if the copy has no status that we know
    found = call_facts(call(status="in-progress", endedAt=ENDED))
    assert (found.status, found.unknown_status) == (CallStatus.IN_PROGRESS, None)


def test_message_without_a_status_uses_the_status_in_its_call():
    assert facts(status_update(None)).status is CallStatus.IN_PROGRESS
    nowhere = facts(status_update(None, call=call(("status",))))
    assert (nowhere.status, nowhere.anomalies) == (None, ())


@pytest.mark.parametrize("make", [lambda **more: status_update("ended", **more), report])
def test_stale_call_in_a_report_does_not_undo_the_end(make):
    # Given a report of the end whose copy of the call is still in progress
    found = facts(make(call=call(status="in-progress")))
    # Then the call has ended
    assert (found.status, found.anomalies) == (CallStatus.ENDED, ("stale_status",))


@pytest.mark.parametrize(
    ("fields", "duration_ms", "anomalies"),
    [
        ({}, 127_598, ()),
        ({"durationSeconds": None}, 127_598, ()),
        ({"durationSeconds": Decimal("132.598")}, 127_598, ()),
        ({"durationSeconds": Decimal("132.599")}, 127_598, ("durations_disagree",)),
        ({"durationSeconds": Decimal("122.597")}, 127_598, ("durations_disagree",)),
        ({"durationSeconds": -1}, 127_598, ("negative_duration",)),
        ({"durationSeconds": "127"}, 127_598, ("durationSeconds",)),
        ({"endedAt": STARTED, "durationSeconds": 0}, 0, ()),
        ({"endedAt": STARTED, "durationSeconds": None}, 0, ()),
        # Equal instants contradict a counted duration: the one that is not zero is used
        ({"endedAt": STARTED, "durationSeconds": Decimal("12.2")}, 12_200, ("durations_disagree",)),
        ({"endedAt": STARTED, "durationSeconds": 3}, 3_000, ("durations_disagree",)),
        ({"durationSeconds": 0}, 127_598, ("durations_disagree",)),
        ({"endedAt": "2026-05-04T10:00:05.0005Z", "durationSeconds": 0}, 1, ()),
        ({"endedAt": "2026-05-04T10:00:05.000499Z", "durationSeconds": 0}, 0, ()),
        # The instants allow no possible duration: the counted duration is used
        ({"endedAt": "2026-05-04T10:00:04.999Z"}, 127_598, ("negative_duration",)),
        ({"endedAt": "2026-05-04T22:01:05.001Z"}, 127_598, ("absurd_duration",)),
        ({"endedAt": "2026-05-04T22:01:05Z", "durationSeconds": None}, 43_260_000, ()),
        ({"endedAt": "later"}, 127_598, ("endedAt",)),
        ({"endedAt": 5}, 127_598, ("endedAt",)),
        ({"endedAt": None}, 127_598, ()),
        ({"endedAt": None, "durationSeconds": 43_260}, 43_260_000, ()),
        ({"endedAt": None, "durationSeconds": Decimal("0.0005")}, 1, ()),
        ({"endedAt": None, "durationSeconds": Decimal("0.0004999")}, 0, ()),
        # If neither is possible, there is no duration
        ({"endedAt": None, "durationSeconds": Decimal("43260.001")}, None, ("absurd_duration",)),
        ({"endedAt": None, "durationSeconds": Decimal("1e999999")}, None, ("absurd_duration",)),
        ({"endedAt": None, "durationSeconds": Decimal("1e-999999")}, 0, ()),
        ({"endedAt": None, "durationSeconds": 10**400}, None, ("absurd_duration",)),
        ({"endedAt": None, "durationSeconds": Decimal("-0.001")}, None, ("negative_duration",)),
        ({"endedAt": None, "durationSeconds": True}, None, ("durationSeconds",)),
        ({"endedAt": None, "durationSeconds": None}, None, ()),
        (
            {"endedAt": "2026-05-04T10:00:04Z", "durationSeconds": -1},
            None,
            ("negative_duration",),
        ),
    ],
)
def test_duration_of_a_connected_call_is_read_with_its_anomalies(fields, duration_ms, anomalies):
    found = facts(report(**fields))
    assert (found.duration_ms, found.anomalies) == (duration_ms, anomalies)
    assert not found.never_connected


def test_live_call_has_no_duration_and_no_end_reason():
    found = facts(status_update(durationSeconds=5, endedReason="hangup"))
    assert (found.duration_ms, found.ended_reason) == (None, None)


@pytest.mark.parametrize(
    "reason",
    [
        NEVER,
        "customer-busy",
        "call.start.error-subscription-insufficient-credits",
        "call.start.error-vapifault-database-error",
        "call.start.squad-version-error-validation",
        "call-start-error-neither-assistant-nor-server-set",
        "assistant-request-failed",
        "assistant-request-returned-error",
        "assistant-not-found",
        "scheduled-call-deleted",
        "twilio-failed-to-connect-call",
        "vonage-rejected",
        "call.ringing.error-sip-inbound-call-failed-to-connect",
        "call.in-progress.error-providerfault-outbound-sip-480-temporarily-unavailable",
        "customer-did-not-give-microphone-permission",
    ],
)
@pytest.mark.parametrize("counted", [None, 0, Decimal("0.0"), "?", -5])
def test_unanswered_call_has_a_duration_of_zero(reason, counted):
    found = facts(
        report(
            ("startedAt",),
            endedReason=reason,
            durationSeconds=counted,
            call=call(("startedAt",), status="ended"),
        )
    )
    assert (found.duration_ms, found.never_connected) == (0, True)


@pytest.mark.parametrize(
    "reason",
    [
        "customer-ended-call",
        "hangup",
        "silence-timed-out",
        "voicemail",
        "call.ringing.hook-executed-transfer",
        "call.in-progress.error-vapifault-worker-died",
        None,
        5,
        "",
    ],
)
def test_call_without_a_start_and_a_clear_reason_is_not_free(reason):
    found = facts(
        report(
            ("startedAt", "durationSeconds"),
            endedReason=reason,
            call=call(("startedAt",), status="ended"),
        )
    )
    assert (found.duration_ms, found.never_connected) == (None, False)


@pytest.mark.parametrize("where", ["message", "call"])
@pytest.mark.parametrize("start", [STARTED, "at ten", 5])
def test_call_with_a_start_was_connected_for_any_end_reason(where, start):
    inner = call(("startedAt",), status="ended")
    message = report(("startedAt", "durationSeconds"), endedReason=NEVER, call=inner)
    (message if where == "message" else inner)["startedAt"] = start
    found = facts(message)
    assert not found.never_connected
    assert found.duration_ms == (127_598 if start == STARTED else None)


def test_call_reported_unanswered_costs_its_talk_time():
    found = facts(
        report(("startedAt",), endedReason=NEVER, call=call(("startedAt",), status="ended"))
    )
    assert (found.duration_ms, found.never_connected) == (127_598, False)
    assert found.anomalies == ("talked_unanswered",)


def test_live_call_is_not_unanswered():
    found = facts(status_update("ringing", endedReason=NEVER, call=call(("startedAt",))))
    assert (found.duration_ms, found.never_connected) == (None, False)


@pytest.mark.parametrize(
    ("cost", "micros", "anomalies"),
    [
        (Decimal("0.1931"), 193_100, ()),
        (0, 0, ()),
        (Decimal("0.0000005"), 1, ()),
        (Decimal("0.00000049"), 0, ()),
        (Decimal("0.1234565"), 123_457, ()),
        (1_000, 1_000_000_000, ()),
        (Decimal("1e-999999"), 0, ()),
        (Decimal("1000.000001"), None, ("cost",)),
        (Decimal("98765432.1"), None, ("cost",)),
        (Decimal("1e999999"), None, ("cost",)),
        (Decimal("-0.0001"), None, ("cost",)),
        (True, None, ("cost",)),
        ("0.1", None, ("cost",)),
        (None, None, ("cost",)),
    ],
)
def test_provider_cost_is_exact_or_none(cost, micros, anomalies):
    found = facts(report(cost=cost))
    assert (found.provider_cost_micros, found.anomalies) == (micros, anomalies)


def test_missing_cost_is_no_anomaly_and_the_calls_cost_counts():
    assert facts(report(("cost",))).provider_cost_micros is None
    assert facts(report(("cost",))).anomalies == ()
    inner = call(status="ended", cost=Decimal("0.5"))
    assert facts(report(cost=None, call=inner)).provider_cost_micros == 500_000


@pytest.mark.parametrize("reason", [5, "\x00", "r" * 201, [], " "])
def test_unstorable_end_reason_is_none_and_an_anomaly(reason):
    found = facts(report(endedReason=reason))
    assert (found.ended_reason, found.anomalies) == (None, ("endedReason",))
    assert (found.duration_ms, found.platform_fault) == (127_598, False)


@pytest.mark.parametrize(
    "metadata", [None, [], "x", {}, {"holdfast_call": 5, "holdfast_organization": ["org_1"]}]
)
def test_our_ids_are_valid_ids_or_none(metadata):
    found = facts(status_update(call=call(assistantOverrides={"metadata": metadata})))
    assert (found.organization_id, found.call_id) == (None, None)


def test_pairing_token_is_read_beside_our_ids():
    metadata = {"holdfast_call": "c1", "holdfast_token": "secret"}
    found = facts(status_update(call=call(assistantOverrides={"metadata": metadata})))
    assert (found.call_id, found.pairing_token) == ("c1", "secret")
    assert facts(status_update()).pairing_token is None


def test_our_ids_have_64_characters_at_most():
    for length, kept in ((64, True), (65, False)):
        metadata = {"holdfast_organization": "o" * length, "holdfast_call": "c\x00"}
        found = facts(status_update(call=call(assistantOverrides={"metadata": metadata})))
        assert (found.organization_id is not None) is kept
        assert found.call_id is None


@pytest.mark.parametrize("value", [None, 5, [], {}, "x", True, Decimal("1e999999")])
def test_invalid_value_in_any_field_never_raises(value):
    names = (*report(), "phoneNumber", "customer", "status", "endedReason")
    inner = (*call(), "phoneNumber", "endedAt", "endedReason", "cost", "durationSeconds")
    for name in names:
        if name not in ("type", "call"):
            assert facts(report(**{name: value})).status is CallStatus.ENDED
    for name in inner:
        if name != "id":
            assert facts(report(call=call(**{name: value}))).external_id == CALL
    facts(report(call=call(**{name: value for name in inner if name != "id"})))
