"""How long the actors wait for what a provider may still do or report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProviderWaits:
    """Seconds to wait for Twilio and Vapi; demo, fault runs and tests shorten them."""

    #: How long a lost request may still take effect at Twilio.
    unsure_seconds: float = 120.0
    #: Time between two reads of a subaccount while a lost request may still take effect. If it were
    #: longer than `unsure_seconds`, the subaccount would not be read again.
    recheck_seconds: float = 10.0
    #: How long the report of a call that ended may take before the call is read from Vapi.
    report_seconds: float = 120.0
    #: How long a live call may send no message before it is read from Vapi.
    silent_seconds: float = 180.0


PRODUCTION_WAITS = ProviderWaits()
