"""Every job, declared once: its name, queue, arguments, and how often it is tried.

An actor's name and arguments are a contract with what is already queued: new arguments get
defaults, and a renamed job keeps its old name until it is drained.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sqlalchemy.orm import Session

from base.enums import CallClass, Queue
from db import jobs

#: What the provider calls of a queue's jobs are worth. A queue that is not named is bulk.
_CALL_CLASSES = {Queue.SAFETY: CallClass.SAFETY, Queue.BILLING: CallClass.MONEY}
#: Seconds a lease outlives the actor's own limit: the time to write the outcome down.
LEASE_MARGIN_SECONDS = 5


@dataclass(frozen=True)
class Policy:
    """How often a job is tried. Waits double from `base_seconds` up to `cap_seconds`."""

    attempts: int
    base_seconds: float
    cap_seconds: float

    def wait_seconds(self, failures: int) -> float:
        """This function will draw the wait after the nth failure: half of it fixed, half chance."""
        full = min(self.base_seconds * 2.0 ** min(failures - 1, 32), self.cap_seconds)
        return full * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret

    @property
    def span_seconds(self) -> float:
        """The longest time from the first failure to the last attempt."""
        waits = (
            min(self.base_seconds * 2.0 ** min(n, 32), self.cap_seconds)
            for n in range(self.attempts - 1)
        )
        return sum(waits)


@dataclass(frozen=True)
class JobType:
    """One kind of job. `limit_seconds` bounds one run; `provider` says that it calls outside."""

    name: str
    queue: Queue
    arguments: tuple[str, ...]
    policy: Policy
    provider: bool
    limit_seconds: float

    @property
    def lease_seconds(self) -> float:
        """How long a claim is another worker's business not to touch."""
        return self.limit_seconds + LEASE_MARGIN_SECONDS


#: Our own database: an error is a bug or an outage; 20 tries over about 2.5 hours.
_OWN = Policy(attempts=20, base_seconds=1, cap_seconds=900)
#: A provider is asked or told again for about a day: nothing may be dropped while it is away. All
#: of these are reads or set a state, so no key of ours can be forgotten meanwhile.
_PROVIDER = Policy(attempts=160, base_seconds=1, cap_seconds=600)

PROCESS_EVENT = JobType("process_event", Queue.SAFETY, ("event_id",), _OWN, False, 30)
ENFORCE_ORGANIZATION = JobType(
    "enforce_organization", Queue.SAFETY, ("organization_id",), _OWN, False, 10
)
#: Read, set, read back: each call to Twilio is over within 7 s, a read within 5.
CONVERGE_TWILIO = JobType("converge_twilio", Queue.SAFETY, ("brand_id",), _PROVIDER, True, 20)
LOOK_AT_SUBSCRIPTION = JobType(
    "look_at_subscription", Queue.SAFETY, ("provider", "external_id"), _PROVIDER, True, 15
)
LOOK_AT_PAYMENT = JobType(
    "look_at_payment", Queue.BILLING, ("provider", "kind", "external_id"), _PROVIDER, True, 15
)

JOB_TYPES: dict[str, JobType] = {
    job.name: job
    for job in (
        PROCESS_EVENT,
        ENFORCE_ORGANIZATION,
        CONVERGE_TWILIO,
        LOOK_AT_SUBSCRIPTION,
        LOOK_AT_PAYMENT,
    )
}


def call_class_of(queue: str) -> CallClass:
    """This function will give the class of the provider calls that a queue's jobs make."""
    return _CALL_CLASSES.get(Queue(queue), CallClass.BULK)


def stage(
    session: Session,
    job: JobType,
    organization_id: str | None,
    /,
    *,
    queue: Queue | None = None,
    delay_seconds: float = 0,
    **arguments: str,
) -> str:
    """This function will stage a job in the caller's transaction and give its id.

    It reaches a worker only after the commit. Raises: TypeError when the arguments are not those
    declared, which is a bug.
    """
    if set(arguments) != set(job.arguments):
        raise TypeError(f"{job.name} takes {job.arguments}, not {tuple(arguments)}")
    return jobs.insert(
        session,
        name=job.name,
        queue=str(queue or job.queue),
        kwargs=dict(arguments),
        organization_id=organization_id,
        delay_seconds=delay_seconds,
    )
