"""Codes of requests to providers that a repeat cannot change."""

from __future__ import annotations

from base.problems.code import Code

_NOTHING_MOVED_OR_CHANGED = "No money moved. Nothing changed at the provider."

SUBACCOUNT_MISSING = Code(
    "SUBACCOUNT_MISSING",
    409,
    "Twilio has no subaccount with this SID.",
    "Correct the brand's subaccount.",
    money="No money moved. The subaccount can spend nothing.",
)
SUBACCOUNT_CLOSED = Code(
    "SUBACCOUNT_CLOSED",
    409,
    "The subaccount is closed at Twilio, which cannot be undone.",
    "Give the brand a new subaccount.",
    money="No money moved. The subaccount can spend nothing.",
)
SUSPENDED_BY_TWILIO = Code(
    "SUSPENDED_BY_TWILIO",
    409,
    "Twilio itself has suspended the subaccount.",
    "Ask Twilio's support for the reason.",
    money="No money moved. The subaccount can spend nothing.",
)
CALL_MISSING = Code(
    "CALL_MISSING",
    409,
    "Twilio has no call with this SID.",
    "Nothing. The call is over.",
)
CONTROL_URL = Code(
    "CONTROL_URL",
    502,
    "The control URL that was reported for the call is not Vapi's.",
    "Nothing. Holdfast sends nothing to this URL and ends the call at Twilio.",
    money="The call's actual duration is charged.",
)
INVALID_ID = Code(
    "INVALID_ID",
    400,
    "The id cannot be one of the provider's.",
    "Correct the id.",
    money=_NOTHING_MOVED_OR_CHANGED,
)
INVALID_STATUS = Code(
    "INVALID_STATUS",
    400,
    "A subaccount is only ever set to active or suspended.",
    "Correct the caller.",
    money=_NOTHING_MOVED_OR_CHANGED,
)
PARENT_ACCOUNT = Code(
    "PARENT_ACCOUNT",
    409,
    "The brand names the parent account, which is never suspended.",
    "Give the brand a subaccount of its own.",
    money="No money moved. The parent account is unchanged.",
)
UNKNOWN_PROVIDER = Code(
    "UNKNOWN_PROVIDER",
    400,
    "There is no billing provider with this name.",
    "Use a provider that the installation supports.",
    money=_NOTHING_MOVED_OR_CHANGED,
)
