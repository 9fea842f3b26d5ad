"""Every public sample has a defined reading; samples that decide money are exact."""

from __future__ import annotations

import json

import pytest

from base.enums import CallDirection, CallStatus
from base.facts import AdmissionRequest, CallFacts, CallReport, OtherReport, PermissionRequest
from providers.errors import MalformedWebhook
from providers.vapi import events as messages
from tests.providers.support import SAMPLES, sample

NAMES = sorted(path.name for path in (SAMPLES / "vapi").glob("*.json"))


def read(name: str) -> messages.VapiMessage:
    return messages.parse(sample(f"vapi/{name}").read_bytes())


def facts_of(name: str) -> CallFacts:
    report = messages.report_of(read(name))
    assert isinstance(report, CallReport)
    return report.facts


@pytest.mark.parametrize("name", NAMES or ["absent"])
def test_every_sample_has_a_defined_report(name):
    message = read(name)
    kind = json.loads(sample(f"vapi/{name}").read_text())["message"]["type"]
    assert message.type == kind
    assert 0 < len(messages.external_id_of(message)) <= 200
    assert message.sent_ms is not None
    if kind == messages.ASSISTANT_REQUEST:
        assert isinstance(messages.call_ask_of(message), AdmissionRequest)
    elif kind == messages.PREDIAL:
        assert isinstance(messages.predial_of(message), PermissionRequest)
    elif kind not in (messages.STATUS_UPDATE, messages.END_OF_CALL_REPORT):
        assert messages.report_of(message) == OtherReport(kind)
    elif "call" in message.content:
        assert isinstance(messages.report_of(message), CallReport)
    else:
        with pytest.raises(MalformedWebhook):
            messages.report_of(message)


def test_inbound_sample_is_a_request_for_admission():
    ask = messages.call_ask_of(read("01_assistant-request_inbound.json"))
    assert (ask.our_number, ask.their_party) == ("+15005550001", "…0006")
    assert (ask.direction, ask.assistant_id) == (CallDirection.INBOUND, None)


def test_stale_call_in_a_sample_does_not_undo_the_end():
    facts = facts_of("04_status-update_ended.json")
    assert (facts.status, facts.anomalies) == (CallStatus.ENDED, ("stale_status",))
    assert facts.ended_reason == "customer-ended-call"


def test_report_is_read_exactly():
    facts = facts_of("07_end-of-call-report_customer-ended.json")
    assert (facts.duration_ms, facts.provider_cost_micros) == (127_598, 193_100)
    assert facts.anomalies == ()


def test_duration_that_contradicts_the_instants_is_an_anomaly():
    facts = facts_of("08_end-of-call-report_exceeded-max-duration.json")
    assert (facts.duration_ms, facts.anomalies) == (127_598, ("durations_disagree",))


def test_report_without_any_duration_has_none():
    facts = facts_of("91_odd_null_duration.json")
    assert (facts.duration_ms, facts.never_connected) == (None, False)
    assert facts.started_at is not None


def test_hang_is_ignored_and_an_unknown_type_is_kept():
    assert messages.is_ignored(read("14_hang.json").type)
    assert messages.is_ignored(read("17_conversation-update.json").type)
    assert not messages.is_ignored(read("93_odd_unknown_type.json").type)
