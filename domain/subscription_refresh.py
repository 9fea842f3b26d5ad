"""The lease on reading a subscription from its provider."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import Provider
from base.ids import new_id
from base.outcomes import NotYet
from db.models import Subscription

#: Seconds after which a job retries, if another worker is refreshing the subscription.
_LEASED_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class Refresh:
    """A refresh in progress, with its lease's token and the reports that had arrived.

    `leased` is False if the subscription had no row when the refresh began.
    """

    provider: Provider
    external_id: str
    token: str
    reports: int
    leased: bool = True


def begin_refresh(
    session: Session, provider: Provider, external_id: str, *, lease_seconds: float
) -> Refresh:
    """Take the lease on refreshing one subscription.

    A subscription without a row has no lease, so several refreshes may run. The first of them that
    records inserts the row, and all of them read again. Raises: NotYet while another worker's lease
    runs.
    """
    refresh = Refresh(provider, external_id, new_id("lse"), 0, leased=False)
    row = session.execute(
        text(
            "UPDATE subscriptions SET look_token = :token, look_lease_until = clock_timestamp()"
            " + make_interval(secs => :lease) WHERE provider = :provider AND external_id = :id"
            " AND (look_lease_until IS NULL OR look_lease_until <= clock_timestamp()"
            # The end is further away than a lease can be: the clock was set back.
            " OR look_lease_until > clock_timestamp() + make_interval(secs => :lease))"
            " RETURNING reports"
        ),
        {
            "token": refresh.token,
            "lease": lease_seconds,
            "provider": str(provider),
            "id": external_id,
        },
    ).one_or_none()
    if row is not None:
        return Refresh(provider, external_id, refresh.token, row.reports)
    subscription_id = session.scalar(
        select(Subscription.id).where(
            Subscription.provider == provider, Subscription.external_id == external_id
        )
    )
    if subscription_id is not None:
        raise NotYet("another refresh of this subscription is running", _LEASED_RETRY_SECONDS)
    return refresh


def release_refresh(session: Session, refresh: Refresh) -> None:
    """Give the lease back after a refresh that recorded nothing."""
    session.execute(
        text(
            "UPDATE subscriptions SET look_token = NULL, look_lease_until = NULL"
            " WHERE provider = :provider AND external_id = :id AND look_token = :token"
        ),
        {"provider": str(refresh.provider), "id": refresh.external_id, "token": refresh.token},
    )
