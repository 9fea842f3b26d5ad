"""Every job, declared once: its name, queue, arguments, and how often it is tried.

An actor's name and arguments are a contract with what is already queued: new arguments get
defaults, and a renamed job keeps its old name until it is drained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from base.enums import CallClass, Provider, Queue
from base.outcomes import Refused

#: What the provider calls of a queue's jobs are worth. A queue that is not named is bulk.
_CALL_CLASSES = {Queue.SAFETY: CallClass.SAFETY, Queue.BILLING: CallClass.MONEY}
#: Seconds a lease outlives the actor's own limit: the time to write the outcome down.
LEASE_MARGIN_SECONDS = 5
#: How long a provider knows a key that a request of ours carried, in seconds: sent again later, the
#: same request is a new one. 0 is a provider that takes no such key. Sources: PayPal's
#: Subscriptions API on PayPal-Request-Id; docs.stripe.com/idempotency; neither Twilio's nor Vapi's
#: API has one.
KEY_KEPT_SECONDS: Mapping[Provider, int] = {
    Provider.PAYPAL: 72 * 3_600,
    Provider.STRIPE: 24 * 3_600,
    Provider.TWILIO: 0,
    Provider.VAPI: 0,
}


class KeyForgotten(ValueError):
    """A job's last attempt could come after its provider has forgotten the first one's key."""


@dataclass(frozen=True)
class Policy:
    """How often a job is tried. Waits double from `base_seconds` up to `cap_seconds`."""

    attempts: int
    base_seconds: float
    cap_seconds: float
    #: The share of each wait that is left to chance, so that what failed together is not tried
    #: again together.
    jitter: float = 0.5
    #: Errors that no further attempt can mend. A Refused is an answer and ends the job as refused;
    #: any other ends it dead, for a person to look at.
    permanent: tuple[type[Exception], ...] = (Refused,)

    def wait_seconds(self, failures: int) -> float:
        """This function will draw the wait after the nth failure, a share of it by chance."""
        share = random.uniform(1 - self.jitter, 1.0)  # noqa: S311  # jitter, not a secret
        return self._longest_wait_seconds(failures) * share

    @property
    def span_seconds(self) -> float:
        """The longest time from the first failure to the last attempt."""
        return sum(self._longest_wait_seconds(failures) for failures in range(1, self.attempts))

    def _longest_wait_seconds(self, failures: int) -> float:
        return min(self.base_seconds * 2.0 ** min(failures - 1, 32), self.cap_seconds)


@dataclass(frozen=True)
class JobType:
    """One kind of job. `limit_seconds` bounds one run.

    `key_of` names the provider to which its requests carry a key of ours. Raises: KeyForgotten when
    the provider may have forgotten that key before the last attempt.
    """

    name: str
    queue: Queue
    arguments: tuple[str, ...]
    policy: Policy
    calls_provider: bool
    limit_seconds: float
    key_of: Provider | None = None
    #: For the alert: what it means for money or safety if the job dies or is refused.
    death_means: str = ""
    #: Refreshes one object, named by all of its arguments: of these jobs one at most waits.
    refreshes: bool = False

    def __post_init__(self) -> None:
        if self.refreshes and not self.calls_provider:
            raise ValueError(f"{self.name} refreshes nothing: it calls no provider")
        if self.key_of is not None and self.total_seconds >= KEY_KEPT_SECONDS[self.key_of]:
            raise KeyForgotten(f"{self.name} goes on after {self.key_of} has forgotten its key")

    @property
    def lease_seconds(self) -> float:
        """How long a claimed job is its worker's alone."""
        return self.limit_seconds + LEASE_MARGIN_SECONDS

    @property
    def total_seconds(self) -> float:
        """The longest time from the first attempt's start to the last one's end.

        Every wait at its longest, every attempt ending with its lease. What postpones a job does
        not count: an actor that sends a key looks before it acts when it comes back from that.
        """
        return self.policy.span_seconds + self.policy.attempts * self.lease_seconds


#: Our own database: an error is a bug or an outage; 20 tries over about 2.5 hours.
_OWN = Policy(attempts=20, base_seconds=1, cap_seconds=900)
#: A provider is asked or told again for about a day: nothing may be dropped while it is away. All
#: of these are reads or set a state, so no key of ours can be forgotten meanwhile.
_PROVIDER = Policy(attempts=160, base_seconds=1, cap_seconds=600)
#: The same, but never longer apart: until a lost request can land no more, the subaccount must be
#: read every few seconds, also by a job that could not read it for a while.
_CONVERGE = Policy(attempts=1_500, base_seconds=1, cap_seconds=60)
#: Failed attempts after which a warning, and a question about a call, is given up if Vapi does not
#: answer: a warning that comes late warns of nothing, and the next sweep asks about the call again.
WARN_TRIES = 4
ASK_TRIES = 4
#: More attempts than that: the actor itself gives up, and its job is done. If the policy ended with
#: the tries, a worker that is killed in the last one would leave a dead job, which a person is to
#: look at although nothing is left to be done.
_WARN = Policy(attempts=20, base_seconds=1, cap_seconds=4)
_LOOK = Policy(attempts=20, base_seconds=1, cap_seconds=10)

PROCESS_EVENT = JobType(
    "process_event",
    Queue.SAFETY,
    ("event_id",),
    _OWN,
    False,
    30,
    death_means="A verified event was not acted on: a payment, dispute, subscription or call "
    "that it reports may be missing here.",
)
ENFORCE_ORGANIZATION = JobType(
    "enforce_organization",
    Queue.SAFETY,
    ("organization_id",),
    _OWN,
    False,
    10,
    death_means="The organization's freeze, campaigns, calls and subaccounts may not match "
    "its money and subscription.",
)
#: Read, set, read back, and the calls that live in it: each call to Twilio is over within 7 s, a
#: read within 5.
CONVERGE_TWILIO = JobType(
    "converge_twilio",
    Queue.SAFETY,
    ("brand_id",),
    _CONVERGE,
    True,
    30,
    death_means="A Twilio subaccount may not be in the desired state: a suspended "
    "organization may still send and call.",
)
#: Reads one subaccount as bulk work and without the lease, so that safety never waits for it.
CHECK_SUBACCOUNT = JobType(
    "check_subaccount",
    Queue.MAINTENANCE,
    ("brand_id",),
    _PROVIDER,
    True,
    15,
    death_means="A change made at Twilio itself is not seen: a suspended subaccount may have "
    "been opened there.",
)
#: Stages the checks that are due.
RECONCILE_TWILIO = JobType(
    "reconcile_twilio",
    Queue.MAINTENANCE,
    (),
    _OWN,
    False,
    30,
    death_means="Subaccounts are not checked for changes made at Twilio itself: a suspended "
    "one may have been opened there.",
)
LOOK_AT_SUBSCRIPTION = JobType(
    "look_at_subscription",
    Queue.SAFETY,
    ("provider", "external_id"),
    _PROVIDER,
    True,
    15,
    death_means="The subscription's status was not read: an organization may stay closed, or "
    "stay open without paying.",
    refreshes=True,
)
LOOK_AT_PAYMENT = JobType(
    "look_at_payment",
    Queue.BILLING,
    ("provider", "kind", "external_id"),
    _PROVIDER,
    True,
    15,
    death_means="A payment or refund was not settled: money may be missing from a wallet, or "
    "still be in it.",
    refreshes=True,
)
#: It may read two things, each within 12 s: the dispute, and a payment not heard of yet.
LOOK_AT_DISPUTE = JobType(
    "look_at_dispute",
    Queue.BILLING,
    ("provider", "external_id"),
    _PROVIDER,
    True,
    30,
    death_means="A dispute was not settled: disputed money may still be spendable, or a won "
    "dispute may not be returned.",
    refreshes=True,
)
FREEZE_WALLET = JobType(
    "freeze_wallet",
    Queue.SAFETY,
    ("organization_id", "reason", "cause"),
    _OWN,
    False,
    10,
    death_means="A wallet that must not spend may not be frozen.",
)
UNFREEZE_WALLET = JobType(
    "unfreeze_wallet",
    Queue.SAFETY,
    ("organization_id", "reason", "cause"),
    _OWN,
    False,
    10,
    death_means="A wallet may stay frozen although the reason for it is over.",
)
#: The database stages it too, where what is available falls below the level (wallet_fell).
DECIDE_TOP_UP = JobType(
    "decide_top_up",
    Queue.BILLING,
    ("organization_id",),
    _OWN,
    False,
    10,
    death_means="Automatic top-up made no decision: the wallet may run empty.",
)
#: A look, an order to Vapi and one to Twilio, each within 5 s; a round, then the job goes on later.
END_CALL = JobType(
    "end_call",
    Queue.SAFETY,
    ("organization_id", "call_id"),
    _CONVERGE,
    True,
    20,
    death_means="A call that must end may go on and cost more than its hold.",
)
WARN_CALL = JobType(
    "warn_call",
    Queue.SAFETY,
    ("organization_id", "call_id"),
    _WARN,
    True,
    12,
    death_means="A caller was not warned that the credit is nearly gone. The call is still "
    "ended in time.",
)
LOOK_AT_CALL = JobType(
    "look_at_call",
    Queue.BILLING,
    ("organization_id", "call_id"),
    _LOOK,
    True,
    12,
    death_means="The provider was not asked about a call: its hold may stay, or its cost may "
    "not be charged.",
    refreshes=True,
)
#: Finds what has to be looked at and whose holds are over, and stages that.
RECONCILE_CALLS = JobType(
    "reconcile_calls",
    Queue.BILLING,
    (),
    _OWN,
    False,
    30,
    death_means="Calls without a report were not looked for: holds may stay, and costs may "
    "not be charged.",
)
EXPIRE_HOLDS = JobType(
    "expire_holds",
    Queue.BILLING,
    ("organization_id",),
    _OWN,
    False,
    30,
    death_means="Expired holds were not released: the organization cannot spend money that is "
    "its own.",
)
#: Deletes a bounded number of rows, and stages itself again while more are left.
PRUNE = JobType("prune", Queue.MAINTENANCE, (), _OWN, False, 30)

JOB_TYPES: dict[str, JobType] = {
    job.name: job
    for job in (
        PROCESS_EVENT,
        ENFORCE_ORGANIZATION,
        CONVERGE_TWILIO,
        CHECK_SUBACCOUNT,
        RECONCILE_TWILIO,
        LOOK_AT_SUBSCRIPTION,
        LOOK_AT_PAYMENT,
        LOOK_AT_DISPUTE,
        FREEZE_WALLET,
        UNFREEZE_WALLET,
        DECIDE_TOP_UP,
        END_CALL,
        WARN_CALL,
        LOOK_AT_CALL,
        RECONCILE_CALLS,
        EXPIRE_HOLDS,
        PRUNE,
    )
}


def call_class_of(queue: str) -> CallClass:
    """This function will give the class of the provider calls that a queue's jobs make."""
    return _CALL_CLASSES.get(Queue(queue), CallClass.BULK)
