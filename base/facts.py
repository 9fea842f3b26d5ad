"""Reports (webhooks) and facts (read from a provider's API), in Holdfast's terms.

A report is only a hint. Facts are the provider's response to a request from Holdfast. Only facts
unblock spending and move payments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from base.enums import (
    CallDirection,
    CallStatus,
    DisputeState,
    Provider,
    RefundState,
    SubscriptionStatus,
    TwilioStatus,
)

#: Longest plausible talk time in milliseconds: a platform's longest call plus one minute.
CALL_DURATION_MS_MAX = 43_260_000


@dataclass(frozen=True)
class SubscriptionReport:
    """A verified event about a subscription.

    `closing` is true if the event reports that the subscription ended or was suspended.
    """

    provider: Provider
    external_id: str
    closing: bool
    #: The provider's time of the event; None if the event has no readable time.
    occurred_at: datetime | None
    #: True if the event reports that the subscription began or resumed. Most events report neither.
    opening: bool = False


@dataclass(frozen=True)
class PaymentReport:
    """A verified event about a payment or a refund.

    The amounts in the event are not trusted. The object is read from the provider instead.
    """

    provider: Provider
    #: The kind of object to read from the provider: "capture" or "refund".
    kind: str
    external_id: str


@dataclass(frozen=True)
class DisputeReport:
    """A verified event about a dispute. `opening` is true if the dispute has begun."""

    provider: Provider
    external_id: str
    #: The disputed payments that the event names, each once.
    payment_external_ids: tuple[str, ...]
    opening: bool


@dataclass(frozen=True)
class OtherReport:
    """A verified event that no rule handles. It is stored and marked as ignored."""

    event_type: str


@dataclass(frozen=True)
class CallFacts:
    """A call as Vapi describes it, in a webhook or in its API.

    A value that is missing or not plausible is None. `anomalies` names every anomaly.
    """

    #: Vapi's id of the call.
    external_id: str
    #: None if Vapi gives no known status. Vapi adds new ones over time.
    status: CallStatus | None
    direction: CallDirection | None = None
    assistant_id: str | None = None
    phone_number_id: str | None = None
    #: The call's leg at Twilio, and the Twilio account that carries it.
    twilio_call_sid: str | None = None
    twilio_account_sid: str | None = None
    #: The numbers of the two parties, already masked to their last digits.
    our_party: str | None = None
    their_party: str | None = None
    #: The same numbers in full, to find the rate. They are never stored, logged or shown.
    our_number: str | None = field(default=None, repr=False)
    their_number: str | None = field(default=None, repr=False)
    #: Vapi's campaign that dialled the call.
    campaign_id: str | None = None
    #: Holdfast's ids, from the metadata that was attached when the call was created.
    organization_id: str | None = None
    call_id: str | None = None
    #: Token that proves that Holdfast or the company's backend attached the two ids above.
    pairing_token: str | None = None
    #: Vapi's own times.
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: The talk time in milliseconds, by the rules of providers/vapi. None for a call that is not
    #: over, or if no value is plausible.
    duration_ms: int | None = None
    ended_reason: str | None = None
    #: The meaning of `ended_reason`: the call never connected, or a fault of the platform ended it.
    never_connected: bool = False
    platform_fault: bool = False
    #: Vapi's charge for the call, in micros of a US dollar.
    provider_cost_micros: int | None = None
    #: The status that Vapi gave, if it is not a known one.
    unknown_status: str | None = None
    #: Short names of the anomalies that were found.
    anomalies: tuple[str, ...] = ()


@dataclass(frozen=True)
class CallReport:
    """A verified message about a call. `final` marks the report after the call's end."""

    facts: CallFacts
    final: bool
    #: Milliseconds from the start of the call to the sending of this message, by Vapi's clock.
    talking_ms: int | None = None


@dataclass(frozen=True)
class AdmissionRequest:
    """Vapi's question whether an incoming call may be accepted.

    The answer names the assistant that takes the call, and the longest duration.
    """

    external_id: str
    direction: CallDirection
    assistant_id: str | None
    phone_number_id: str | None
    #: The organization's number in full, because it identifies the organization. The other party's
    #: number is masked to its last digits.
    our_number: str | None
    their_party: str | None
    twilio_call_sid: str | None
    twilio_account_sid: str | None
    #: The other party's number in full, to find the rate. It is never stored, logged or shown.
    their_number: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PermissionRequest:
    """Vapi's question whether a campaign may dial a contact."""

    campaign_id: str
    contact_id: str
    assistant_id: str | None
    phone_number_id: str | None
    #: The contact's number in full, to find the rate. It is never stored, logged or shown.
    their_number: str | None = field(default=None, repr=False)


Report = SubscriptionReport | PaymentReport | DisputeReport | CallReport | OtherReport


@dataclass(frozen=True)
class SubscriptionFacts:
    """A subscription as the provider's API shows it now."""

    provider: Provider
    external_id: str
    status: SubscriptionStatus
    #: Holdfast's organization id, if it was given to the provider when the subscription was made.
    organization_id: str | None
    plan_external_id: str | None
    #: When the provider last changed the status; None if the provider does not report it.
    status_changed_at: datetime | None


@dataclass(frozen=True)
class RefundFacts:
    """A refund or reversal of a payment as the provider's API shows it now."""

    external_id: str
    amount_micros: int
    #: Total refunded of the payment, this refund included; None if the provider does not report it.
    total_micros: int | None
    state: RefundState
    made_at: datetime | None
    #: The provider's time of this state; None if there is no readable time.
    stated_at: datetime | None


@dataclass(frozen=True)
class PaymentFacts:
    """A payment as the provider's API shows it now."""

    provider: Provider
    #: The id of the payment itself ("capture"), also if a refund was requested.
    external_id: str
    organization_id: str | None
    currency: str
    #: Captured money that the company really has. Money that the provider holds, or that is
    #: pending, counts as 0.
    captured_micros: int
    #: Total refunded according to the payment itself; 0 if the provider does not report it.
    refunded_micros: int
    #: The provider's time of these figures; None if there is no readable time.
    stated_at: datetime | None = None
    #: The refund that was requested, if any.
    refund: RefundFacts | None = None
    #: Whether the payment was made through an order. Top-ups are; subscription fees are not.
    ordered: bool = False


@dataclass(frozen=True)
class DisputeFacts:
    """A dispute as the provider's API shows it now."""

    provider: Provider
    external_id: str
    payment_external_id: str
    currency: str
    #: The disputed amount while the dispute is open; the lost amount once it is lost.
    disputed_micros: int
    state: DisputeState
    opened_at: datetime | None
    #: The provider's time of this state; None if there is no readable time.
    stated_at: datetime | None


@dataclass(frozen=True)
class SubaccountFacts:
    """A Twilio subaccount as Twilio's API shows it now."""

    external_id: str
    status: TwilioStatus
