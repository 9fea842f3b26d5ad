"""Every family of Vapi's ended reasons has one class.

Source: Vapi's SDK 3.0.0, 604 values.
"""

from __future__ import annotations

import json

import pytest

from providers.vapi.ended_reasons import ReasonClass, class_of, is_platform_fault
from providers.vapi.mapping import call_facts
from tests.providers.support import SAMPLES
from tests.providers.vapi.support import call, parsed, report

IN_PROGRESS = "call.in-progress.error-"

NEVER_CONNECTED = [
    "call-start-error-neither-assistant-nor-server-set",
    "call.start.error-get-transport",
    "call.start.error-subscription-insufficient-credits",
    "call.start.error-subscription-concurrency-limit-reached",
    "call.start.error-vapi-number-outbound-daily-limit",
    "call.start.error-vapifault-database-error",
    "call.start.assistant-version-error-validation",
    "call.start.squad-version-error-validation",
    "assistant-request-failed",
    "assistant-request-returned-forwarding-phone-number",
    "assistant-not-valid",
    "assistant-not-found",
    "scheduled-call-deleted",
    "customer-busy",
    "customer-did-not-answer",
    "customer-did-not-give-microphone-permission",
    "phone-call-provider-bypass-enabled-but-no-call-received",
    f"{IN_PROGRESS}vapifault-transport-never-connected",
    f"{IN_PROGRESS}providerfault-transport-never-connected",
    f"{IN_PROGRESS}vapifault-worker-not-available",
    f"{IN_PROGRESS}providerfault-outbound-sip-403-forbidden",
    f"{IN_PROGRESS}providerfault-outbound-sip-407-proxy-authentication-required",
    f"{IN_PROGRESS}providerfault-outbound-sip-408-request-timeout",
    f"{IN_PROGRESS}providerfault-outbound-sip-480-temporarily-unavailable",
    f"{IN_PROGRESS}providerfault-outbound-sip-503-service-unavailable",
    f"{IN_PROGRESS}sip-inbound-call-failed-to-connect",
    f"{IN_PROGRESS}sip-outbound-call-failed-to-connect",
    "call.ringing.error-sip-inbound-call-failed-to-connect",
    "call.ringing.sip-inbound-caller-hungup-before-call-connect",
    "sip-outbound-unallocated-number",
    "twilio-failed-to-connect-call",
    "twilio-reported-customer-misdialed",
    "vonage-failed-to-connect-call",
    "vonage-rejected",
]
PLATFORM_FAULT = [
    f"{IN_PROGRESS}vapifault-openai-llm-failed",
    f"{IN_PROGRESS}vapifault-openai-401-unauthorized",
    f"{IN_PROGRESS}vapifault-custom-llm-429-exceeded-quota",
    f"{IN_PROGRESS}vapifault-eleven-labs-quota-exceeded",
    f"{IN_PROGRESS}vapifault-deepgram-returning-401-invalid-credentials",
    f"{IN_PROGRESS}vapifault-tavus-video-failed",
    f"{IN_PROGRESS}vapifault-worker-died",
    f"{IN_PROGRESS}vapifault-chat-pipeline-failed-to-start",
    f"{IN_PROGRESS}vapifault-transport-connected-but-call-not-active",
    f"{IN_PROGRESS}vapifault-call-started-but-connection-to-transport-missing",
    f"{IN_PROGRESS}vapifault-something-new",
    f"{IN_PROGRESS}pipeline-no-available-llm-model",
    "pipeline-no-available-llm-model",
    "worker-shutdown",
    "phone-call-provider-closed-websocket",
    "assistant-join-timed-out",
]
CUSTOMER_SETUP = [
    "pipeline-error-openai-401-incorrect-api-key",
    "pipeline-error-openai-429-exceeded-quota",
    "pipeline-error-openai-500-server-error",
    "pipeline-error-custom-llm-500-server-error",
    "pipeline-error-custom-voice-failed",
    "pipeline-error-vapi-llm-failed",
    "pipeline-error-eleven-labs-voice-not-found",
    "pipeline-error-deepgram-returning-econnreset",
    "pipeline-error-something-new",
    f"{IN_PROGRESS}providerfault-openai-llm-failed",
    f"{IN_PROGRESS}providerfault-custom-llm-503-server-overloaded-error",
    f"{IN_PROGRESS}providerfault-eleven-labs-500-server-error",
    f"{IN_PROGRESS}providerfault-deepgram-returning-502-network-error",
    f"{IN_PROGRESS}pipeline-ws-model-connection-failed",
    f"{IN_PROGRESS}configfault-model-unsupported-in-squad",
    f"{IN_PROGRESS}configfault-transport-unsupported-for-model",
]
ORDINARY = [
    "assistant-ended-call",
    "assistant-said-end-call-phrase",
    "assistant-ended-call-with-hangup-task",
    "assistant-forwarded-call",
    f"{IN_PROGRESS}assistant-did-not-receive-customer-audio",
    f"{IN_PROGRESS}transfer-failed",
    f"{IN_PROGRESS}warm-transfer-max-duration",
    "customer-ended-call",
    "customer-ended-call-during-transfer",
    "exceeded-max-duration",
    "silence-timed-out",
    "manually-canceled",
    "voicemail",
    "call-deleted",
    "call.forwarding.no-answer",
    "call.forwarding.operator-busy",
    "call.ringing.hook-executed-say",
    "call.ending.hook-executed-transfer",
    "call.in-progress.twilio-completed-call",
    "call.in-progress.sip-completed-call",
    "sip-outbound-carrier-released-call",
    "vonage-completed",
    "vonage-disconnected",
    "hangup",
    "something-new",
    "not-a-worker-shutdown",
    "",
]
CASES = [
    (reason, kind)
    for kind, reasons in (
        (ReasonClass.NEVER_CONNECTED, NEVER_CONNECTED),
        (ReasonClass.PLATFORM_FAULT, PLATFORM_FAULT),
        (ReasonClass.CUSTOMER_SETUP, CUSTOMER_SETUP),
        (ReasonClass.ORDINARY, ORDINARY),
    )
    for reason in reasons
]


@pytest.mark.parametrize(("reason", "expected"), CASES)
def test_each_end_reason_has_one_class(reason, expected):
    assert class_of(reason) is expected


@pytest.mark.parametrize(("reason", "kind"), CASES)
def test_end_reason_decides_platform_fault_of_a_connected_call(reason, kind):
    content = parsed(report(endedReason=reason)).content
    found = call_facts(content["call"], content)
    assert (found.duration_ms, found.never_connected) == (127_598, False)
    assert found.platform_fault is is_platform_fault(reason)
    if kind is not ReasonClass.NEVER_CONNECTED:
        assert found.platform_fault is (kind is ReasonClass.PLATFORM_FAULT)


@pytest.mark.parametrize(("reason", "kind"), CASES)
def test_class_decides_whether_a_call_without_a_start_is_free(reason, kind):
    message = report(
        ("startedAt", "durationSeconds"),
        endedReason=reason,
        call=call(("startedAt",), status="ended"),
    )
    content = parsed(message).content
    found = call_facts(content["call"], content)
    assert found.never_connected is (kind is ReasonClass.NEVER_CONNECTED)


def test_unconnected_call_can_be_a_platform_fault():
    assert is_platform_fault(f"{IN_PROGRESS}vapifault-worker-not-available")
    assert is_platform_fault("call.start.error-vapifault-database-error")
    assert not is_platform_fault("call.start.error-subscription-frozen")


def test_reasons_in_the_public_samples_are_ordinary():
    files = sorted((SAMPLES / "vapi").glob("*.json"))
    if not files:
        pytest.skip("the public samples are not here")
    found = {json.loads(path.read_bytes())["message"].get("endedReason") for path in files}
    assert {class_of(reason) for reason in found if reason} == {ReasonClass.ORDINARY}
