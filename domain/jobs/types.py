"""The declarations of all jobs: name, queue, arguments and retry policy.

Jobs that are already queued depend on an actor's name and arguments. A new argument therefore gets
a default, and a renamed job keeps its old name until the queue is drained.
"""

from __future__ import annotations

from base.enums import Queue, RequestClass
from domain.jobs.declaration import JobType, RetryPolicy

#: The class of the provider calls that a queue's jobs make. For any other queue it is bulk.
_CALL_CLASSES = {Queue.SAFETY: RequestClass.SAFETY, Queue.BILLING: RequestClass.MONEY}


#: For work in our own database, where an error is a bug or an outage: 20 attempts in about 2.5
#: hours.
_OWN = RetryPolicy(attempts=20, base_seconds=1, cap_seconds=900)
#: For calls to a provider: attempts for about a day, so that nothing is dropped while the provider
#: is down. These jobs only read or set a state. They send no idempotency key, which the provider
#: could forget within a day.
_PROVIDER = RetryPolicy(attempts=160, base_seconds=1, cap_seconds=600)
#: As `_PROVIDER`, but with waits of at most 60 s. While a lost request may still take effect, the
#: subaccount must be read often, also by a job whose earlier attempts failed.
_CONVERGE = RetryPolicy(attempts=1_500, base_seconds=1, cap_seconds=60)
#: Failed attempts after which the actor gives up if Vapi does not respond, for a warning and for a
#: refresh of a call. A late warning is useless, and `reconcile_calls` stages the next refresh.
WARN_TRIES = 4
REFRESH_TRIES = 4
#: These policies allow more attempts than the actor uses. The actor gives up by itself, and its job
#: is done. If the policy ended with them, a worker that is killed in the last attempt would leave a
#: dead job. An operator would have to check it, although nothing is left to do.
_WARN = RetryPolicy(attempts=20, base_seconds=1, cap_seconds=4)
_REFRESH_POLICY = RetryPolicy(attempts=20, base_seconds=1, cap_seconds=10)

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
#: The time limit allows reading, setting and reading back the state, and ending the calls in the
#: subaccount. Each request to Twilio ends within 7 s, a read within 5 s.
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
    death_means="A change made at Twilio itself is not noticed: a suspended subaccount may have "
    "been reactivated there.",
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
    "one may have been reactivated there.",
)
REFRESH_SUBSCRIPTION = JobType(
    "look_at_subscription",
    Queue.SAFETY,
    ("provider", "external_id"),
    _PROVIDER,
    True,
    15,
    death_means="The subscription's status was not read: an organization may stay "
    "blocked, or may spend without a subscription.",
    refreshes=True,
)
REFRESH_PAYMENT = JobType(
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
#: The job may read two objects, each within 12 s: the dispute, and a payment that is not known yet.
REFRESH_DISPUTE = JobType(
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
#: The database also stages this job, when available falls below the level (see `wallet_fell`).
DECIDE_TOP_UP = JobType(
    "decide_top_up",
    Queue.BILLING,
    ("organization_id",),
    _OWN,
    False,
    10,
    death_means="Automatic top-up made no decision: the wallet may run empty.",
)
#: One round reads the call and orders Vapi and Twilio to end it, each within 5 s. Until the call is
#: over, the job is postponed to another round.
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
REFRESH_CALL = JobType(
    "look_at_call",
    Queue.BILLING,
    ("organization_id", "call_id"),
    _REFRESH_POLICY,
    True,
    12,
    death_means="A call was not read from the provider: its hold may stay, or its cost may "
    "not be charged.",
    refreshes=True,
)
#: Finds calls that must be refreshed and holds that have expired, and stages jobs for them.
RECONCILE_CALLS = JobType(
    "reconcile_calls",
    Queue.BILLING,
    (),
    _OWN,
    False,
    30,
    death_means="Calls without a report were not searched for: holds may stay, and costs may "
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
        REFRESH_SUBSCRIPTION,
        REFRESH_PAYMENT,
        REFRESH_DISPUTE,
        FREEZE_WALLET,
        UNFREEZE_WALLET,
        DECIDE_TOP_UP,
        END_CALL,
        WARN_CALL,
        REFRESH_CALL,
        RECONCILE_CALLS,
        EXPIRE_HOLDS,
        PRUNE,
    )
}


def call_class_of(queue: str) -> RequestClass:
    """Return the class of the provider calls that a queue's jobs make."""
    return _CALL_CLASSES.get(Queue(queue), RequestClass.BULK)
