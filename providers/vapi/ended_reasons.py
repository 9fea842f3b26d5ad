"""Classifies a call's ended reason for billing, by prefixes and patterns.

The list of reasons grows, so no rule requires a known reason. An unknown reason is ordinary, and
the call's duration decides. Source: the 604 values of Vapi's SDK 3.0.0 (types/call_ended_reason.py)
and docs.vapi.ai, "Call ended reasons". According to that page, only `vapifault` calls are typically
not charged. `providerfault` is a third party's server error. `pipeline-error` is mostly an error of
the customer's own key or quota.
"""

from __future__ import annotations

import re
from enum import StrEnum


class ReasonClass(StrEnum):
    """The cause of a call's end, as far as it decides who pays for the call."""

    #: No one was connected: free, unless the provider reports a conversation.
    NEVER_CONNECTED = "never_connected"
    #: The platform's own infrastructure or credentials failed: the charge may be waived.
    PLATFORM_FAULT = "platform_fault"
    #: The customer's own model, voice, key, quota or configuration failed: charged.
    CUSTOMER_SETUP = "customer_setup"
    #: A party or a limit ended the call, or the reason is unknown: charged.
    ORDINARY = "ordinary"


_NEVER_CONNECTED = re.compile(
    r"call\.start\."
    r"|call-start-error-"
    r"|call\.ringing\.error-"
    r"|call\.ringing\.sip-inbound-caller-hungup-"
    r"|call\.in-progress\.error-sip-(inbound|outbound)-call-failed-to-connect"
    # both vapifault and providerfault
    r"|call\.in-progress\.error-[a-z]+-(transport-never-connected|worker-not-available)"
    # The list has 403, 407, 408, 480, 503. Any final answer from 300 up refuses a call (RFC 3261).
    r"|call\.in-progress\.error-[a-z]+-outbound-sip-[3-6][0-9]{2}"
    r"|phone-call-provider-bypass-enabled-but-no-call-received"
    r"|assistant-request-"
    r"|assistant-not-(found|valid)"
    r"|customer-(did-not-answer|busy|did-not-give-microphone-permission)"
    r"|scheduled-call-deleted"
    r"|sip-outbound-unallocated-number"
    r"|twilio-(failed-to-connect-call|reported-customer-misdialed)"
    r"|vonage-(failed-to-connect-call|rejected)"
)
_PLATFORM_FAULT = re.compile(
    r"call\.(start|in-progress)\.error-vapifault-"
    r"|worker-shutdown"
    r"|phone-call-provider-closed-websocket"
    r"|assistant-join-timed-out"
    r"|(call\.in-progress\.error-)?pipeline-no-available-llm-model"
)
_CUSTOMER_SETUP = re.compile(
    r"pipeline-error-"
    r"|call\.in-progress\.error-(providerfault|pipeline|configfault)-"
)


def class_of(reason: str) -> ReasonClass:
    """Classify a reason by the first rule that matches it."""
    if _NEVER_CONNECTED.match(reason):
        return ReasonClass.NEVER_CONNECTED
    if is_platform_fault(reason):
        return ReasonClass.PLATFORM_FAULT
    if _CUSTOMER_SETUP.match(reason):
        return ReasonClass.CUSTOMER_SETUP
    return ReasonClass.ORDINARY


def is_platform_fault(reason: str) -> bool:
    """Return whether the platform's own fault ended a call, connected or not."""
    return _PLATFORM_FAULT.match(reason) is not None
