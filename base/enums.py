"""The closed lists of words that several rooms share; each is stored as its text."""

from __future__ import annotations

from enum import StrEnum


class Provider(StrEnum):
    PAYPAL = "paypal"
    STRIPE = "stripe"
    TWILIO = "twilio"
    VAPI = "vapi"


class SubscriptionStatus(StrEnum):
    """What the provider says of a subscription, in our words."""

    PENDING = "pending"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class FreezeReason(StrEnum):
    """Why a wallet may not spend. The wallet is frozen while any reason stands."""

    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    DISPUTE = "dispute"
    REFUND_SHORTFALL = "refund_shortfall"
    CALL_SHORTFALL = "call_shortfall"
    MANUAL = "manual"


class RefundState(StrEnum):
    """What became of money given back: pending it has left, failed it has come back."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


class DisputeState(StrEnum):
    """A dispute in our words. Reported is an event's word, the others are the provider's own."""

    REPORTED = "reported"
    OPEN = "open"
    WON = "won"
    LOST = "lost"


class PauseReason(StrEnum):
    """Why a campaign stands still, in the order in which the first that holds is named."""

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
    """What became of money set aside for a call; it leaves open once."""

    OPEN = "open"
    COMMITTED = "committed"
    RELEASED = "released"
    EXPIRED = "expired"


class CallStatus(StrEnum):
    """How far a call is, as the provider reports it. Only a provider report makes it ended.

    The order is a call's life: a report never moves a call back.
    """

    #: Admitted by us; the provider has not said anything of it yet.
    ADMITTED = "admitted"
    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in_progress"
    FORWARDING = "forwarding"
    ENDED = "ended"
    #: Refused before it began; `refusal` holds the reason. Over, unless the provider reports talk.
    REFUSED = "refused"


class CallOrigin(StrEnum):
    """How a call became known to us."""

    #: It asked us whether it may begin.
    ADMITTED = "admitted"
    #: The company's backend reserved for it.
    RESERVED = "reserved"
    #: A provider report told of it first.
    ADOPTED = "adopted"


class CallDirection(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"
    WEB = "web"


class EndCause(StrEnum):
    """Why we end a call; in upper case, the code that the same fact has everywhere else."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    FROZEN_WALLET = "frozen_wallet"
    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    OPERATOR = "operator"
    #: It went on past its own maximum duration.
    MAX_DURATION = "max_duration"
    #: Its organization has no rate for the number that it uses.
    NO_RATE = "no_rate"
    #: The company had settled it, and somebody talks all the same.
    SETTLED = "settled"
    #: The call's number or assistant belongs to another organization than the reservation.
    FOREIGN_NUMBER = "foreign_number"

    @classmethod
    def _missing_(cls, value: object) -> EndCause | None:
        """Read what versions before 0007 stored, which may still be written during a rollout."""
        old = {"credit_gone": cls.INSUFFICIENT_FUNDS, "wallet_frozen": cls.FROZEN_WALLET}
        return old.get(str(value))


class FaultPolicy(StrEnum):
    """What a call costs that the platform's own fault has ended."""

    WAIVE = "waive"
    CHARGE = "charge"


class TwilioStatus(StrEnum):
    """A subaccount's state; only the provider's own word makes it one of these."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    ABSENT = "absent"


class Queue(StrEnum):
    """Queues by urgency, each with workers of its own."""

    SAFETY = "safety"
    BILLING = "billing"
    MAINTENANCE = "maintenance"
    CALLBACKS = "callbacks"
    MESSAGING = "messaging"


class CallClass(StrEnum):
    """What a call to a provider is worth, the most urgent first. Safety is never refused."""

    SAFETY = "safety"
    MONEY = "money"
    BULK = "bulk"
