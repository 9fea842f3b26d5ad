"""What a provider tells us, in our words: reports (webhooks) and facts (read back from its API).

A report is a hint; a fact is the provider's own answer to our question. Only facts open or pay.
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

#: The longest talk that is believed, in milliseconds: the longest call of a platform, and a minute.
CALL_DURATION_MS_MAX = 43_260_000


@dataclass(frozen=True)
class SubscriptionReport:
    """A verified event about a subscription. `closing` says that it ends or suspends it."""

    provider: Provider
    external_id: str
    closing: bool
    #: The provider's own time of the event; None when it has none that can be read.
    occurred_at: datetime | None
    #: Says that it begins or resumes; most events claim neither.
    opening: bool = False


@dataclass(frozen=True)
class PaymentReport:
    """A verified event about a payment or about a refund of one; its amounts are not believed."""

    provider: Provider
    #: What has to be read back: "capture" or "refund".
    kind: str
    external_id: str


@dataclass(frozen=True)
class DisputeReport:
    """A verified event about a dispute of a payment. `opening` says that it has begun."""

    provider: Provider
    external_id: str
    #: The payments that it claims to be about, each once.
    payment_external_ids: tuple[str, ...]
    opening: bool


@dataclass(frozen=True)
class OtherReport:
    """A verified event that no rule of ours concerns: it is kept and marked ignored."""

    event_type: str


@dataclass(frozen=True)
class CallFacts:
    """A call as its provider describes it, in a message of its own or when asked.

    What is missing, or cannot be believed, is None and named in `oddities`.
    """

    #: Vapi's id of the call.
    external_id: str
    #: None where it says nothing that we know (Vapi's list of words grows).
    status: CallStatus | None
    direction: CallDirection | None = None
    assistant_id: str | None = None
    phone_number_id: str | None = None
    #: The leg at Twilio, and the account that carries it.
    twilio_call_sid: str | None = None
    twilio_account_sid: str | None = None
    #: The two parties' numbers, masked already: their last digits alone.
    our_party: str | None = None
    their_party: str | None = None
    #: The same numbers whole, to find the rate by; never stored, logged or shown.
    our_number: str | None = field(default=None, repr=False)
    their_number: str | None = field(default=None, repr=False)
    #: The campaign at the provider that dialled it.
    campaign_id: str | None = None
    #: Our ids, from the metadata that the provider was given when the call began.
    organization_id: str | None = None
    call_id: str | None = None
    #: What proves that the two ids were given by us, or by the company's backend.
    pairing_token: str | None = None
    #: The provider's own instants.
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: How long it was talked, by the rules of providers/vapi; None where nothing can be believed.
    duration_ms: int | None = None
    ended_reason: str | None = None
    #: What the ended reason means: never connected; ended by a fault of the platform itself.
    never_connected: bool = False
    platform_fault: bool = False
    #: What the provider charges us, in micros of a US dollar.
    provider_cost_micros: int | None = None
    #: The status that the provider gave, where it is none that we know.
    unknown_status: str | None = None
    #: Odd values that were met, by short names.
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class CallReport:
    """A verified message about a call. `final` is the report that comes after its end."""

    facts: CallFacts
    final: bool
    #: How long before the message was sent the talk had begun, by the provider's own clock.
    talking_ms: int | None = None


@dataclass(frozen=True)
class CallAsk:
    """A call that comes in and waits for our word: who may answer it, and for how long."""

    external_id: str
    direction: CallDirection
    assistant_id: str | None
    phone_number_id: str | None
    #: Our own number, whole, since its owner is found by it; the other party's last digits alone.
    our_number: str | None
    their_party: str | None
    twilio_call_sid: str | None
    twilio_account_sid: str | None
    #: The other party's number whole, to find the rate by; never stored, logged or shown.
    their_number: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PredialAsk:
    """A campaign at the provider asks whether it may dial a contact."""

    campaign_id: str
    contact_id: str
    assistant_id: str | None
    phone_number_id: str | None
    #: The contact's number whole, to find the rate by; never stored, logged or shown.
    their_number: str | None = field(default=None, repr=False)


Report = SubscriptionReport | PaymentReport | DisputeReport | CallReport | OtherReport


@dataclass(frozen=True)
class SubscriptionFacts:
    """A subscription as the provider's API shows it now."""

    provider: Provider
    external_id: str
    status: SubscriptionStatus
    #: Our organization's id as given to the provider when the subscription was made, if it was.
    organization_id: str | None
    plan_external_id: str | None
    #: When the provider last changed the status; None when it does not say.
    status_changed_at: datetime | None


@dataclass(frozen=True)
class RefundFacts:
    """One refund, or reversal, of a payment as the provider's API shows it now."""

    external_id: str
    amount_micros: int
    #: What had been given back of the payment in all, this refund included; None when untold.
    total_micros: int | None
    state: RefundState
    made_at: datetime | None
    #: The provider's own time of this state; None when it has none that can be read.
    stated_at: datetime | None


@dataclass(frozen=True)
class PaymentFacts:
    """A payment as the provider's API shows it now."""

    provider: Provider
    #: The payment itself ("capture"), whatever was asked about.
    external_id: str
    organization_id: str | None
    currency: str
    #: What was captured and is really ours (held or pending money is 0).
    captured_micros: int
    #: What the payment itself says was given back in all; 0 also where it does not say.
    refunded_micros: int
    #: The provider's own time of these figures; None when it has none that can be read.
    stated_at: datetime | None = None
    #: The refund that was asked about, if one was.
    refund: RefundFacts | None = None
    #: Whether it was made through an order, as top-ups are; a subscription's fee is not.
    ordered: bool = False


@dataclass(frozen=True)
class DisputeFacts:
    """A dispute as the provider's API shows it now."""

    provider: Provider
    external_id: str
    payment_external_id: str
    currency: str
    #: What is disputed while it is open; what was lost once it is lost.
    disputed_micros: int
    state: DisputeState
    opened_at: datetime | None
    #: The provider's own time of this state; None when it has none that can be read.
    stated_at: datetime | None


@dataclass(frozen=True)
class SubaccountFacts:
    """A Twilio subaccount as Twilio's API shows it now."""

    external_id: str
    status: TwilioStatus
