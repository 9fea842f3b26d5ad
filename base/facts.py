"""What a provider tells us, in our words: reports (webhooks) and facts (read back from its API).

A report is a hint; a fact is the provider's own answer to our question. Only facts open or pay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from base.enums import DisputeState, Provider, RefundState, SubscriptionStatus, TwilioStatus


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


Report = SubscriptionReport | PaymentReport | DisputeReport | OtherReport


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
