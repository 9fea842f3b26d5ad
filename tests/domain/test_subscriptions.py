"""Subscriptions: an event closes at once, and only a refresh opens.

Also leases, contradictions, and responses that are not believed.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest
from sqlalchemy import text

from base.enums import Provider
from base.outcomes import NotYet
from db.models import Job, Subscription
from domain import subscription_refresh, subscriptions
from domain.entitlement import SubscriptionState
from domain.subscriptions import UnknownOrganization
from tests.db.support import at_once
from tests.domain.support import (
    T0,
    active_freezes,
    facts,
    forget_jobs,
    later,
    refresh_subscription,
    report_subscription,
    staged,
    subscribe,
    subscription,
)
from tests.support.world import make_organization

PAYPAL = Provider.PAYPAL
WAITS = (5.0, 30.0, 120.0)


def new_id():
    return f"I-{secrets.token_hex(6).upper()}"


def begin(database, external_id, *, lease=60):
    return database.run(
        lambda s: subscription_refresh.begin_refresh(s, PAYPAL, external_id, lease_seconds=lease)
    )


def record(database, begun, org, status, now=T0, **more):
    answer = facts(begun.external_id, org, status, **more)
    return database.run(
        lambda s: subscriptions.record_refresh(s, begun, answer, now, grace_seconds=0)
    )


def end_lease(database, external_id):
    database.run(
        lambda s: s.execute(
            text(
                "UPDATE subscriptions SET look_lease_until = clock_timestamp()"
                " WHERE external_id = :id"
            ),
            {"id": external_id},
        )
    )


# Closing by one event


def test_closing_event_closes_at_once_and_stages_a_refresh(shared, org):
    one = subscribe(shared, org)
    forget_jobs(shared, org)
    applied = report_subscription(shared, one, closing=True)
    assert applied.subscription_state is SubscriptionState.REPORTED
    assert active_freezes(shared, org) == {"subscription_inactive"}
    (job,) = staged(shared, org, "look_at_subscription")
    assert job.kwargs == {"provider": "paypal", "external_id": one}
    # The status is still the last one that the provider returned
    assert subscription(shared, one).status == "active"


def test_refresh_that_confirms_sets_the_providers_status(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True)
    assert refresh_subscription(shared, one, org, "cancelled") is None
    found = subscription(shared, one)
    assert (found.status, found.closing_reported_at) == ("cancelled", None)
    assert active_freezes(shared, org) == {"subscription_inactive"}


def test_refresh_with_a_later_change_reopens_what_a_stale_event_closed(shared, org):
    # Given an event that is older than the provider's current status
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True, occurred_at=later(-600))
    assert active_freezes(shared, org) == {"subscription_inactive"}
    # When a refresh shows a later change, Then it is believed at once
    assert refresh_subscription(shared, one, org, "active", changed_at=later(-60)) is None
    assert active_freezes(shared, org) == set()
    assert subscription(shared, one).closing_reported_at is None


def test_late_closing_event_closes_until_the_refresh(shared, org):
    # Given a reactivation that was reported first, and the earlier suspension that is reported late
    one = subscribe(shared, org)
    report_subscription(shared, one, opening=True, occurred_at=later(0))
    report_subscription(shared, one, closing=True, occurred_at=later(-300))
    found = subscription(shared, one)
    assert (found.reported_claim, found.reported_at) == ("opening", later(0))
    assert active_freezes(shared, org) == {"subscription_inactive"}
    # Then the newest claim agrees with the refresh, and one refresh opens
    assert refresh_subscription(shared, one, org, "active") is None
    assert active_freezes(shared, org) == set()


def test_an_opening_event_opens_nothing_by_itself(shared, org):
    one = subscribe(shared, org, "suspended")
    assert (
        report_subscription(shared, one, opening=True).subscription_state
        is SubscriptionState.INACTIVE
    )
    assert active_freezes(shared, org) == {"subscription_inactive"}
    report_subscription(shared, one, closing=True, occurred_at=later(-10))
    assert (
        report_subscription(shared, one, opening=True, occurred_at=later(10)).subscription_state
        is SubscriptionState.INACTIVE
    )


def test_event_that_claims_neither_only_stages_a_refresh(shared, org):
    one = subscribe(shared, org)
    forget_jobs(shared, org)
    assert report_subscription(shared, one).subscription_state is SubscriptionState.ACTIVE
    assert len(staged(shared, org, "look_at_subscription")) == 1
    assert subscription(shared, one).reported_claim is None


def test_an_event_without_a_readable_time_counts_as_just_received(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, opening=True, occurred_at=later(-5))
    report_subscription(shared, one, closing=True, occurred_at=None, now=later(0))
    found = subscription(shared, one)
    assert (found.reported_claim, found.reported_at) == ("closing", later(0))
    # So a refresh that contradicts it is repeated
    assert refresh_subscription(shared, one, org, "active") == WAITS[0]


def test_an_event_dated_in_the_future_counts_as_just_received(shared, org):
    # Given a closing event dated an hour after its receipt
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True, occurred_at=later(3_600), now=later(0))
    assert subscription(shared, one).reported_at == later(0)
    # When a real opening event follows ten seconds later
    report_subscription(shared, one, opening=True, occurred_at=later(10), now=later(10))
    # Then it is the newest report, and PayPal's first response opens again
    found = subscription(shared, one)
    assert (found.reported_claim, found.reported_at) == ("opening", later(10))
    assert refresh_subscription(shared, one, org, "active", later(11)) is None
    assert active_freezes(shared, org) == set()


# Contradictions


def test_refresh_against_a_newer_event_is_believed_after_three_repeats(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True)
    # When the provider keeps returning active
    now = T0
    for wait in WAITS:
        assert refresh_subscription(shared, one, org, "active", now) == wait
        # Then the subscription stays closed while the refresh is repeated
        assert active_freezes(shared, org) == {"subscription_inactive"}
        now += timedelta(seconds=wait)
    assert refresh_subscription(shared, one, org, "active", now) is None
    assert active_freezes(shared, org) == set()
    assert subscription(shared, one).contradicted_at is None


def test_many_refreshes_at_once_do_not_shorten_a_contradiction(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True)
    answers = [
        refresh_subscription(shared, one, org, "active", T0 + timedelta(seconds=n))
        for n in range(6)
    ]
    assert answers == [5.0, 4.0, 3.0, 2.0, 1.0, 30.0]
    assert active_freezes(shared, org) == {"subscription_inactive"}


def test_contradiction_waits_again_when_the_clock_was_set_back(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True)
    assert refresh_subscription(shared, one, org, "active", T0) == WAITS[0]
    assert refresh_subscription(shared, one, org, "active", T0 - timedelta(hours=1)) == WAITS[0]
    assert (
        refresh_subscription(shared, one, org, "active", T0 - timedelta(seconds=3_598))
        == WAITS[0] - 2
    )


def test_closing_refresh_against_a_newer_opening_event_is_repeated_too(shared, org):
    one = subscribe(shared, org, "suspended")
    report_subscription(shared, one, opening=True)
    now = T0
    for wait in WAITS:
        assert refresh_subscription(shared, one, org, "suspended", now) == wait
        now += timedelta(seconds=wait)
    assert refresh_subscription(shared, one, org, "suspended", now) is None


def test_newer_event_restarts_the_count(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True)
    assert refresh_subscription(shared, one, org, "active", T0) == WAITS[0]
    late = T0 + timedelta(seconds=40)
    assert refresh_subscription(shared, one, org, "active", late) == sum(WAITS) - 40
    report_subscription(shared, one, closing=True, occurred_at=later(5))
    assert refresh_subscription(shared, one, org, "active", late) == WAITS[0]


def test_past_due_agrees_with_an_opening_claim_and_not_with_a_closing_one(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, opening=True)
    assert refresh_subscription(shared, one, org, "past_due") is None
    report_subscription(shared, one, closing=True, occurred_at=later(5))
    assert refresh_subscription(shared, one, org, "past_due") == WAITS[0]


def test_the_instant_of_the_event_itself_counts_as_known_to_the_provider(shared, org):
    one = subscribe(shared, org)
    report_subscription(shared, one, closing=True, occurred_at=later(5), now=later(5))
    before = later(5) - timedelta(microseconds=1)
    assert refresh_subscription(shared, one, org, "active", changed_at=before) == WAITS[0]
    assert refresh_subscription(shared, one, org, "active", changed_at=later(5)) is None


# Responses to requests sent before the newest report


def test_opening_refresh_from_before_the_newest_event_is_not_believed(shared, org):
    # Given a refresh under way
    one = subscribe(shared, org)
    begun = begin(shared, one)
    # When an event reports the subscription's end before the response is recorded
    report_subscription(shared, one, closing=True)
    assert record(shared, begun, org, "active", changed_at=later(600)) is None
    # Then it stays closed: the refresh that the event stages decides
    assert active_freezes(shared, org) == {"subscription_inactive"}
    assert subscription(shared, one).closing_reported_at is not None
    assert refresh_subscription(shared, one, org, "cancelled") is None


def test_closing_refresh_from_before_the_newest_event_is_believed(shared, org):
    one = subscribe(shared, org)
    begun = begin(shared, one)
    report_subscription(shared, one)
    assert record(shared, begun, org, "suspended") is None
    assert subscription(shared, one).status == "suspended"


def test_refresh_that_was_too_old_returns_its_lease(shared, org):
    one = subscribe(shared, org)
    begun = begin(shared, one)
    report_subscription(shared, one, closing=True)
    record(shared, begun, org, "active")
    assert begin(shared, one).leased


# The lease


def test_one_refresh_runs_at_a_time(shared, org):
    one = subscribe(shared, org)
    begun = begin(shared, one)
    with pytest.raises(NotYet):
        begin(shared, one)
    record(shared, begun, org, "active")
    assert begin(shared, one).token != begun.token


def test_one_of_many_refreshes_that_begin_at_once_has_the_lease(shared, org):
    one = subscribe(shared, org)
    begun = at_once([lambda: begin(shared, one)] * 8)
    assert sum(not isinstance(each, NotYet) for each in begun) == 1


def test_expired_lease_is_taken_over_and_its_refresh_records_nothing(shared, org):
    one = subscribe(shared, org)
    outdated = begin(shared, one)
    end_lease(shared, one)
    newest = begin(shared, one)
    # When the outdated refresh records an older response
    assert record(shared, outdated, org, "cancelled", now=later(60)) is None
    found = subscription(shared, one)
    assert (found.status, found.looked_at) == ("active", T0)
    assert found.look_token == newest.token
    assert active_freezes(shared, org) == set()
    # It cannot return another refresh's lease either
    shared.run(lambda s: subscription_refresh.release_refresh(s, outdated))
    with pytest.raises(NotYet):
        begin(shared, one)
    assert record(shared, newest, org, "suspended") is None
    assert subscription(shared, one).status == "suspended"


def test_refresh_with_an_expired_lease_may_record_if_not_taken_over(shared, org):
    one = subscribe(shared, org)
    begun = begin(shared, one)
    end_lease(shared, one)
    record(shared, begun, org, "suspended")
    assert subscription(shared, one).status == "suspended"


def test_refresh_without_a_result_returns_its_lease(shared, org):
    one = subscribe(shared, org)
    begun = begin(shared, one)
    shared.run(lambda s: subscription_refresh.release_refresh(s, begun))
    assert begin(shared, one)


# Unknown subscriptions


def test_event_about_an_unknown_subscription_only_stages_a_refresh(shared):
    one = new_id()
    assert report_subscription(shared, one, closing=True) is None
    jobs = shared.run(
        lambda s: [job for job in s.query(Job).all() if job.kwargs.get("external_id") == one]
    )
    assert [(job.name, job.organization_id) for job in jobs] == [("look_at_subscription", None)]
    assert shared.run(lambda s: s.query(Subscription).filter_by(external_id=one).count()) == 0


def test_unknown_subscription_is_linked_by_a_refresh(shared, org):
    # Given a subscription that had no row when it was first refreshed
    one = new_id()
    assert refresh_subscription(shared, one, org, "active") == 0.0
    assert subscription(shared, one).status == "pending"
    # When it is refreshed again, under a lease
    assert refresh_subscription(shared, one, org, "active") is None
    found = subscription(shared, one)
    assert (found.organization_id, found.status, found.plan_external_id) == (org, "active", "P-1")
    assert active_freezes(shared, org) == set()


def test_a_known_subscription_is_not_moved_to_another_organization(shared, org):
    one = subscribe(shared, org)
    other = make_organization(shared)
    assert refresh_subscription(shared, one, other, "suspended") is None
    assert subscription(shared, one).organization_id == org


@pytest.mark.parametrize("whose", [None, "org_none"])
def test_a_subscription_that_names_no_organization_of_ours_is_refused(shared, whose):
    one = new_id()
    with pytest.raises(UnknownOrganization):
        refresh_subscription(shared, one, whose, "active")
    assert shared.run(lambda s: s.query(Subscription).filter_by(external_id=one).count()) == 0


def test_first_refreshes_do_not_open_since_an_event_may_have_been_lost(shared, org):
    # Given two refreshes that began before the subscription had a row, and an event in between
    one = new_id()
    earlier, newer = begin(shared, one), begin(shared, one)
    report_subscription(shared, one, closing=True)
    # When they are recorded, Then neither opens: the provider is asked again
    assert record(shared, earlier, org, "active") == 0.0
    assert record(shared, newer, org, "cancelled") == 0.0
    assert subscription(shared, one).status == "pending"
    assert refresh_subscription(shared, one, org, "cancelled") is None
    assert subscription(shared, one).status == "cancelled"


def test_first_refreshes_recorded_at_once_make_one_row(shared, org):
    one = new_id()
    begun = [begin(shared, one) for _ in range(6)]
    results = at_once([lambda b=b: record(shared, b, org, "active") for b in begun])
    assert results == [0.0] * 6
    assert shared.run(lambda s: s.query(Subscription).filter_by(external_id=one).count()) == 1


def test_concurrent_reports_and_refreshes_end_with_the_providers_state(shared, org):
    one = subscribe(shared, org)

    def refresh_with_retries():
        try:
            return refresh_subscription(shared, one, org, "suspended", changed_at=later(60))
        except NotYet:
            return None

    results = at_once(
        [
            *(
                lambda n=n: report_subscription(shared, one, closing=True, now=later(n))
                for n in range(6)
            ),
            *[refresh_with_retries] * 6,
        ]
    )
    assert not [each for each in results if isinstance(each, Exception)]
    found = subscription(shared, one)
    assert (found.reports, found.reported_at) == (6, later(5))
    refresh_with_retries()
    assert subscription(shared, one).status == "suspended"
