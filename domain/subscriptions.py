"""Subscriptions: an event alone closes one; only the provider's API opens one.

A verified event that closes a subscription takes effect at once. Opening it, or undoing what an
event closed, waits until a worker has read the subscription from the provider. The provider's
response decides, so events that are late, out of order or forged do no lasting harm.
"""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import Provider, SubscriptionStatus
from base.facts import SubscriptionFacts, SubscriptionReport
from base.ids import new_id
from base.outcomes import Refused
from base.problems.payments import UNKNOWN_ORGANIZATION
from db.locks import lock_organization, lock_subscriptions
from db.models import Organization, Subscription
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.enforcement import Enforcement, enforce_entitlement
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION, REFRESH_SUBSCRIPTION
from domain.subscription_refresh import Refresh, release_refresh

#: Seconds between the reads of a subscription whose response contradicts a newer event. After these
#: reads the response is accepted.
CONTRADICTION_WAITS_SECONDS = (5.0, 30.0, 120.0)
#: Seconds after which a subscription that has just been inserted is refreshed under a lease.
_FIRST_WAIT_SECONDS = 0.0
_OPEN = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


class UnknownOrganization(Refused):
    """No organization matches the provider's subscription; a person must match it."""

    def __init__(self, external_id: str) -> None:
        super().__init__(UNKNOWN_ORGANIZATION, external_id, subscription=external_id)


def apply_event(
    session: Session, event: SubscriptionReport, received_at: datetime, now: datetime
) -> Enforcement | None:
    """Apply a verified event: close at once if it closes, and stage the refresh.

    An event without a readable time counts as just received. Replay: safe; an outdated closing
    event closes until the refresh has contradicted it. Return what `enforce_entitlement` did, or
    None if the subscription is not known yet.
    """
    organization_id = session.scalar(
        select(Subscription.organization_id).where(
            Subscription.provider == event.provider, Subscription.external_id == event.external_id
        )
    )
    if organization_id is None:
        _stage_refresh(session, None, event)
        return None  # Only the provider can report the organization.
    subscription = _lock(session, organization_id, event.provider, event.external_id)
    subscription.reports += 1
    # A time in the future would outrank every true event that follows, so the event never counts as
    # later than its receipt.
    occurred_at = min(event.occurred_at or received_at, received_at)
    newest = subscription.reported_at is None or occurred_at >= subscription.reported_at
    if (event.closing or event.opening) and newest:
        subscription.reported_at = occurred_at
        subscription.reported_claim = "closing" if event.closing else "opening"
        subscription.contradicted_at = None
    if event.closing:
        subscription.closing_reported_at = now
    session.flush()
    enforcement = enforce_entitlement(session, organization_id, now)
    _stage_refresh(session, organization_id, event)
    return enforcement


def _stage_refresh(
    session: Session, organization_id: str | None, event: SubscriptionReport
) -> None:
    stage(
        session,
        REFRESH_SUBSCRIPTION,
        organization_id,
        provider=str(event.provider),
        external_id=event.external_id,
    )


def record_refresh(
    session: Session,
    refresh: Refresh,
    facts: SubscriptionFacts,
    now: datetime,
    *,
    grace_seconds: int,
) -> float | None:
    """Record the provider's response; return the seconds until the next read, if any.

    The response is not accepted in these cases:

    - It contradicts a newer event. It is accepted after CONTRADICTION_WAITS_SECONDS.
    - It opens, and another event arrived after the refresh began. The refresh of that event
      decides.
    - The subscription had no row when the refresh began, so an event that arrived meanwhile had no
      row to close. The row is inserted and the subscription is read again.

    A subscription that has just become past due counts as active for `grace_seconds` more. Raises:
    UnknownOrganization.
    """
    organization_id = session.scalar(
        select(Subscription.organization_id).where(
            Subscription.provider == refresh.provider,
            Subscription.external_id == refresh.external_id,
        )
    )
    if organization_id is None:
        organization_id = _organization_of(session, facts)
        _insert(session, organization_id, facts, now)
        clear_unsettled(session, facts.external_id, organization_id, now)
        return _FIRST_WAIT_SECONDS
    if not refresh.leased:
        return _FIRST_WAIT_SECONDS
    subscription = _lock(session, organization_id, facts.provider, facts.external_id)
    if subscription.look_token != refresh.token:
        return None  # Another worker has taken the lease; its read is newer.
    subscription.look_token = subscription.look_lease_until = None
    if subscription.reports != refresh.reports and facts.status in _OPEN:
        return None
    if _contradicts(subscription, facts):
        wait_seconds = _seconds_to_next_read(subscription, now)
        if wait_seconds is not None:
            return wait_seconds
    _accept(subscription, facts, now)
    clear_unsettled(session, facts.external_id, organization_id, now)
    if facts.status is SubscriptionStatus.PAST_DUE and subscription.past_due_since == now:
        subscription.grace_seconds = grace_seconds
        _enforce_at_end_of_grace(session, subscription)
    session.flush()
    enforce_entitlement(session, organization_id, now)
    return None


def alert_unsettled(session: Session, refresh: Refresh, refused: Refused, now: datetime) -> None:
    """Give the lease back, and alert that a person must settle the subscription.

    The alert belongs to the organization that has the subscription, if it is known. Replay: an
    active alert is left unchanged. The provider's next response that can be settled clears it.
    """
    release_refresh(session, refresh)
    organization_id = session.scalar(
        select(Subscription.organization_id).where(
            Subscription.provider == refresh.provider,
            Subscription.external_id == refresh.external_id,
        )
    )
    raise_alert(
        session,
        AlertKind.SUBSCRIPTION_UNSETTLED,
        organization_id,
        refresh.external_id,
        severity=Severity.CRITICAL,
        details={
            "provider": str(refresh.provider),
            "code": refused.code,
            "detail": refused.detail,
            "meaning": "The subscriber may be paying, but no organization is open for it. Match"
            " the subscription to an organization, or cancel it at the provider.",
        },
        now=now,
    )


def clear_unsettled(
    session: Session, external_id: str, organization_id: str, now: datetime
) -> None:
    """Clear the alert of a subscription whose response can now be settled."""
    for owner in (None, organization_id):
        clear_alerts(session, AlertKind.SUBSCRIPTION_UNSETTLED, owner, external_id, now=now)


def _contradicts(subscription: Subscription, facts: SubscriptionFacts) -> bool:
    if subscription.reported_claim is None or subscription.reported_at is None:
        return False
    agrees = (facts.status in _OPEN) == (subscription.reported_claim == "opening")
    newer = facts.status_changed_at is None or subscription.reported_at > facts.status_changed_at
    return not agrees and newer


def _seconds_to_next_read(subscription: Subscription, now: datetime) -> float | None:
    """Return the seconds until the next read, or None if the response is now accepted.

    The decision depends on elapsed time, not on the number of responses, because several refreshes
    may give many at once.
    """
    # If the stored time is later than now, the clock was set back, and the wait begins again.
    subscription.contradicted_at = min(subscription.contradicted_at or now, now)
    elapsed = (now - subscription.contradicted_at).total_seconds()
    read_times = accumulate(CONTRADICTION_WAITS_SECONDS)
    return next((instant - elapsed for instant in read_times if instant > elapsed), None)


def _enforce_at_end_of_grace(session: Session, subscription: Subscription) -> None:
    """Stage the enforcement at the end of the grace period, which no event reports."""
    if subscription.grace_seconds:
        stage(
            session,
            ENFORCE_ORGANIZATION,
            subscription.organization_id,
            delay_seconds=subscription.grace_seconds + 1,
            organization_id=subscription.organization_id,
        )


def _accept(subscription: Subscription, facts: SubscriptionFacts, now: datetime) -> None:
    if facts.status is SubscriptionStatus.PAST_DUE:
        subscription.past_due_since = subscription.past_due_since or now
    else:
        subscription.past_due_since = None
    subscription.status = facts.status
    subscription.status_changed_at = facts.status_changed_at
    subscription.plan_external_id = facts.plan_external_id
    subscription.looked_at = now
    subscription.closing_reported_at = None
    subscription.contradicted_at = None


def _organization_of(session: Session, facts: SubscriptionFacts) -> str:
    organization_id = facts.organization_id
    if organization_id is None or session.get(Organization, organization_id) is None:
        raise UnknownOrganization(facts.external_id)
    return organization_id


def _insert(
    session: Session, organization_id: str, facts: SubscriptionFacts, now: datetime
) -> None:
    """Insert the row of a new subscription, unless another refresh has inserted it."""
    lock_organization(session, organization_id)
    session.execute(
        text(
            "INSERT INTO subscriptions (id, organization_id, provider, external_id, status,"
            " created_at) VALUES (:id, :org, :provider, :external_id, 'pending', :now)"
            " ON CONFLICT (provider, external_id) DO NOTHING"
        ),
        {
            "id": new_id("sub"),
            "org": organization_id,
            "provider": str(facts.provider),
            "external_id": facts.external_id,
            "now": now,
        },
    )


def _lock(
    session: Session, organization_id: str, provider: Provider, external_id: str
) -> Subscription:
    lock_organization(session, organization_id)
    return next(
        one
        for one in lock_subscriptions(session, organization_id)
        if one.provider == provider and one.external_id == external_id
    )
