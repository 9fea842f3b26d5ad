"""What a declaration of a job states: its queue, arguments and retry policy."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from base.enums import Provider, Queue
from base.outcomes import Refused

#: Seconds by which a lease outlasts the actor's own limit: the time to record the outcome.
LEASE_MARGIN_SECONDS = 5
#: Seconds for which a provider remembers the idempotency key of a request. A request that is sent
#: again after that time counts as a new one. 0: the provider accepts no idempotency key. Sources:
#: PayPal's Subscriptions API on PayPal-Request-Id; docs.stripe.com/idempotency. The APIs of Twilio
#: and Vapi have no idempotency key.
KEY_KEPT_SECONDS: Mapping[Provider, int] = {
    Provider.PAYPAL: 72 * 3_600,
    Provider.STRIPE: 24 * 3_600,
    Provider.TWILIO: 0,
    Provider.VAPI: 0,
}


class KeyForgotten(ValueError):
    """A job's last attempt could run after the provider has forgotten its key."""


@dataclass(frozen=True)
class RetryPolicy:
    """How many attempts a job has. Waits double, up to `cap_seconds`."""

    attempts: int
    base_seconds: float
    cap_seconds: float
    #: The share of each wait that is random, so that jobs that failed together are not all tried
    #: again together.
    jitter: float = 0.5
    #: Errors that another attempt cannot resolve. Refused ends the job as refused. Any other of
    #: these errors ends it dead, so that an operator checks it.
    permanent: tuple[type[Exception], ...] = (Refused,)

    def wait_seconds(self, failures: int) -> float:
        """Draw the wait after this many failures; a share of the wait is random."""
        share = random.uniform(1 - self.jitter, 1.0)  # noqa: S311  # jitter, not a secret
        return self._longest_wait_seconds(failures) * share

    @property
    def span_seconds(self) -> float:
        """The sum of the longest waits between the first attempt and the last."""
        return sum(self._longest_wait_seconds(failures) for failures in range(1, self.attempts))

    def _longest_wait_seconds(self, failures: int) -> float:
        return min(self.base_seconds * 2.0 ** min(failures - 1, 32), self.cap_seconds)


@dataclass(frozen=True)
class JobType:
    """One kind of job. `limit_seconds` bounds one run.

    The job's requests to the provider `key_of` carry our idempotency key. Raises: KeyForgotten if
    that provider may forget the key before the last attempt.
    """

    name: str
    queue: Queue
    arguments: tuple[str, ...]
    policy: RetryPolicy
    calls_provider: bool
    limit_seconds: float
    key_of: Provider | None = None
    #: For the alert: what it means for money or safety if the job dies or is refused.
    death_means: str = ""
    #: Whether the job refreshes one object, named by all of its arguments. At most one of these
    #: jobs waits at a time.
    refreshes: bool = False

    def __post_init__(self) -> None:
        if self.refreshes and not self.calls_provider:
            raise ValueError(f"{self.name} refreshes nothing: it calls no provider")
        if self.key_of is not None and self.total_seconds >= KEY_KEPT_SECONDS[self.key_of]:
            raise KeyForgotten(f"{self.name} goes on after {self.key_of} has forgotten its key")

    @property
    def lease_seconds(self) -> float:
        """How long one worker alone holds a claimed job."""
        return self.limit_seconds + LEASE_MARGIN_SECONDS

    @property
    def total_seconds(self) -> float:
        """The longest time from the start of the first attempt to the end of the last.

        The sum assumes the longest waits, and that every attempt lasts as long as its lease. Time
        for which a job is postponed does not count. An actor that sends an idempotency key must
        therefore read the provider's state first when its job was postponed.
        """
        return self.policy.span_seconds + self.policy.attempts * self.lease_seconds
