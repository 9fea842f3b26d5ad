"""Subscriptions: refreshes them, and enforces the organization's entitlement."""

from __future__ import annotations

from sqlalchemy.orm import Session

from base.enums import Provider
from base.outcomes import Refused
from domain import subscription_refresh, subscriptions
from domain.enforcement import enforce_entitlement
from domain.jobs.types import REFRESH_SUBSCRIPTION
from domain.subscription_refresh import Refresh
from workers.attempt import Later, Run


def enforce_organization(run: Run, organization_id: str) -> None:
    """Derive the organization's entitlement again and enforce it.

    It also stages a job for each subaccount that is not in its desired state yet.
    Raises: OrganizationNotFound.
    """
    enforce_entitlement(run.job_session, organization_id, run.now, heal=True)


def look_at_subscription(run: Run, provider: str, external_id: str) -> None:
    """Read a subscription from its provider and record the answer.

    If the answer contradicts a newer event, the job is postponed and reads again. The job is
    refused and an alert raised if the answer cannot be interpreted or names no organization of
    ours. Replay: reading changes nothing at the provider. Raises: NotYet while another refresh
    runs; the provider's errors.
    """
    refresh = run.transaction(
        lambda session: subscription_refresh.begin_refresh(
            session,
            Provider(provider),
            external_id,
            lease_seconds=REFRESH_SUBSCRIPTION.lease_seconds,
        )
    )
    try:
        facts = run.providers.billing(provider).get_subscription(external_id)
    except Refused as error:
        _refuse(run, refresh, error)
        return
    except BaseException:
        run.transaction(lambda session: subscription_refresh.release_refresh(session, refresh))
        raise

    def record(session: Session) -> Later | None:
        seconds = subscriptions.record_refresh(
            session,
            refresh,
            facts,
            run.now,
            grace_seconds=run.settings.subscription_grace_seconds,
        )
        return (
            None
            if seconds is None
            else Later(
                seconds, "the provider's response contradicts a newer event and is read again"
            )
        )

    try:
        run.record(record)
    except Refused as error:
        _refuse(run, refresh, error)


def _refuse(run: Run, refresh: Refresh, refused: Refused) -> None:
    run.refuse(
        refused, lambda session: subscriptions.alert_unsettled(session, refresh, refused, run.now)
    )
