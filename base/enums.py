"""Enumerations that several packages share. Each value is stored as its text."""

from __future__ import annotations

from enum import StrEnum

from base.problems import wallet
from base.problems.code import Code
from base.problems.registry import find_code


class Provider(StrEnum):
    PAYPAL = "paypal"
    STRIPE = "stripe"
    TWILIO = "twilio"
    VAPI = "vapi"


class SubscriptionStatus(StrEnum):
    """A subscription's status at its provider, in Holdfast's terms."""

    PENDING = "pending"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class FreezeReason(StrEnum):
    """Why a wallet may not spend. It is frozen while at least one freeze is active."""

    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    DISPUTE = "dispute"
    REFUND_SHORTFALL = "refund_shortfall"
    CALL_SHORTFALL = "call_shortfall"
    MANUAL = "manual"


class RefundState(StrEnum):
    """The state of a refund.

    While a refund is pending, the money has already left. If it fails, the money has returned.
    """

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


class DisputeState(StrEnum):
    """The state of a dispute.

    REPORTED comes from a webhook alone. Holdfast has read the other states from the provider's API.
    """

    REPORTED = "reported"
    OPEN = "open"
    WON = "won"
    LOST = "lost"


class PauseReason(StrEnum):
    """Why a campaign is paused.

    If several reasons apply, the first one in this order is recorded.
    """

    MANUAL_PAUSE = "manual_pause"
    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_DEPLETED = "wallet_depleted"


class CampaignStatus(StrEnum):
    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class HoldStatus(StrEnum):
    """The state of a hold. A hold leaves OPEN once and never returns to it."""

    OPEN = "open"
    COMMITTED = "committed"
    RELEASED = "released"
    EXPIRED = "expired"


class CallStatus(StrEnum):
    """How far a call has progressed. Only the provider's report makes a call ENDED.

    The order is that of a call's life. A report never moves a call back.
    """

    #: Holdfast has admitted the call; the provider has not reported on it yet.
    ADMITTED = "admitted"
    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in_progress"
    FORWARDING = "forwarding"
    ENDED = "ended"
    #: Refused before it began; `refusal` holds the reason. The call is over, unless the provider
    #: reports that people talked.
    REFUSED = "refused"


class CallBillingState(StrEnum):
    """What a call's money does now.

    domain/calls/billing derives it from the call's row. The order is that of a call's life. Each
    call is in exactly one state.
    """

    HELD = "held"
    TALKING = "talking"
    ENDING = "ending"
    AWAITING_REPORT = "awaiting_report"
    WITHHELD = "withheld"
    AWAITING_OPERATOR = "awaiting_operator"
    TALKING_UNPAID = "talking_unpaid"
    CHARGED = "charged"
    FREE = "free"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"
    MERGED = "merged"


class CallOrigin(StrEnum):
    """How Holdfast learned of a call."""

    #: The provider requested admission for the call.
    ADMITTED = "admitted"
    #: The company's backend reserved money for it.
    RESERVED = "reserved"
    #: A provider report mentioned the call first.
    ADOPTED = "adopted"


class CallDirection(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"
    WEB = "web"


class EndCause(StrEnum):
    """Why Holdfast ends a call. `code` names the same fact in problems and refusals."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    FROZEN_WALLET = "frozen_wallet"
    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    OPERATOR = "operator"
    #: The call lasted longer than its own maximum duration.
    MAX_DURATION = "max_duration"
    #: The call's organization has no rate for the number that the call uses.
    NO_RATE = "no_rate"
    #: The company's backend has settled the call, but people still talk.
    SETTLED = "settled"
    #: The call's number or assistant belongs to another organization than the reservation.
    FOREIGN_NUMBER = "foreign_number"

    @property
    def code(self) -> Code:
        """The cause's code."""
        return find_code(self.upper())

    @classmethod
    def _missing_(cls, value: object) -> EndCause | None:
        """Read the values that versions before 0007 store.

        Processes of such a version may still write them during a rollout.
        """
        renamed = {"credit_gone": cls.INSUFFICIENT_FUNDS, "wallet_frozen": cls.FROZEN_WALLET}
        return renamed.get(str(value))


class FaultPolicy(StrEnum):
    """Whether Holdfast charges a call that a fault of the calling platform ended."""

    WAIVE = "waive"
    CHARGE = "charge"


class TwilioStatus(StrEnum):
    """A subaccount's actual state, as Twilio last reported it."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    ABSENT = "absent"


class Queue(StrEnum):
    """The class of a job. Each queue has its own workers."""

    SAFETY = "safety"
    BILLING = "billing"
    MAINTENANCE = "maintenance"
    CALLBACKS = "callbacks"
    MESSAGING = "messaging"


class BlockReason(StrEnum):
    """Why an organization may not spend."""

    SUBSCRIPTION_INACTIVE = wallet.SUBSCRIPTION_INACTIVE
    FROZEN_WALLET = wallet.FROZEN_WALLET
    INSUFFICIENT_FUNDS = wallet.INSUFFICIENT_FUNDS

    @property
    def code(self) -> Code:
        """The reason's code."""
        return find_code(self)


class RequestClass(StrEnum):
    """The urgency of a call to a provider, most urgent first.

    Safety calls always go out.
    """

    SAFETY = "safety"
    MONEY = "money"
    BULK = "bulk"
