"""Enforcement: the consequences of each fact, each time a fact changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from base.enums import BlockReason, FreezeReason
from base.operators import Operator
from db.locks import OrganizationNotFound
from db.models import Subscription
from domain import operator_actions
from domain.enforcement import enforce_entitlement
from domain.entitlement import SubscriptionState, spending_block, subscription_state
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallet
from tests.db.support import at_once
from tests.domain.support import (
    ANN,
    T0,
    active_freezes,
    brand,
    campaign,
    columns_of,
    credit,
    debit,
    forget_jobs,
    later,
    make_brand,
    make_campaign,
    money_state,
    refresh_subscription,
    report_subscription,
    staged,
    subscribe,
)


def apply(database, org, now=T0):
    return database.run(lambda session: enforce_entitlement(session, org, now))


def block_of(database, org, now=T0):
    return database.run(lambda session: spending_block(session, org, now))


def freeze(database, org, reason=FreezeReason.MANUAL):
    database.run(lambda s: wallet_freezes.freeze(s, org, reason, operator=ANN, now=T0))


def lift(database, org, reason=FreezeReason.MANUAL):
    database.run(lambda s: wallet_freezes.unfreeze(s, org, reason, operator=ANN, now=T0))


def pause_reason(database, campaign_id):
    found = campaign(database, campaign_id)
    return found.pause_reason if found.status == "paused" else found.status


# The state of a set of subscriptions


def one(status, *, closing=False, past_due_since=None, grace=0):
    return Subscription(
        status=status,
        closing_reported_at=T0 if closing else None,
        past_due_since=past_due_since,
        grace_seconds=grace,
    )


@pytest.mark.parametrize(
    ("subscriptions", "expected"),
    [
        ([], SubscriptionState.INACTIVE),
        ([one("active")], SubscriptionState.ACTIVE),
        ([one("pending")], SubscriptionState.INACTIVE),
        ([one("suspended")], SubscriptionState.INACTIVE),
        ([one("cancelled")], SubscriptionState.INACTIVE),
        ([one("expired")], SubscriptionState.INACTIVE),
        ([one("active", closing=True)], SubscriptionState.REPORTED),
        # An ended old subscription never suspends a paying customer
        ([one("cancelled"), one("active")], SubscriptionState.ACTIVE),
        ([one("active"), one("expired", closing=True)], SubscriptionState.ACTIVE),
        ([one("active", closing=True), one("active")], SubscriptionState.ACTIVE),
        ([one("active", closing=True), one("active", closing=True)], SubscriptionState.REPORTED),
        # A closing report on an ended subscription does not weaken the provider's state
        ([one("cancelled", closing=True)], SubscriptionState.INACTIVE),
        ([one("active", closing=True), one("cancelled")], SubscriptionState.REPORTED),
        # Past due
        ([one("past_due", past_due_since=T0, grace=60)], SubscriptionState.ACTIVE),
        ([one("past_due", past_due_since=T0, grace=60, closing=True)], SubscriptionState.REPORTED),
        (
            [one("past_due", past_due_since=T0 - timedelta(seconds=60), grace=60)],
            SubscriptionState.INACTIVE,
        ),
        ([one("past_due", past_due_since=T0, grace=0)], SubscriptionState.INACTIVE),
        ([one("past_due")], SubscriptionState.INACTIVE),
    ],
)
def test_state_follows_the_whole_set_of_subscriptions(subscriptions, expected):
    assert subscription_state(subscriptions, T0) is expected
    assert subscription_state(subscriptions[::-1], T0) is expected


# The consequences


class Scene:
    """An organization that may spend, and the facts that change that."""

    def __init__(self, database, org):
        self.database, self.org = database, org
        self.subscription = subscribe(database, org)
        credit(database, org, 1_000)
        apply(database, org)
        self.brands = [make_brand(database, org) for _ in range(2)]
        self.campaign = make_campaign(database, self.brands[0])
        self.by_hand = make_campaign(database, self.brands[1])
        database.run(lambda s: operator_actions.pause_campaign(s, self.by_hand, T0))
        forget_jobs(database, org)

    def seen(self, now=T0):
        """Return the spending block, the campaign, the desired Twilio states and a debit."""
        return (
            block_of(self.database, self.org, now),
            pause_reason(self.database, self.campaign),
            {brand(self.database, each).twilio_desired for each in self.brands},
            debit(self.database, self.org, 1, now=now).outcome,
        )

    def generations(self):
        return [brand(self.database, each).twilio_generation for each in self.brands]


@pytest.fixture
def scene(shared, org):
    return Scene(shared, org)


GOOD = (None, "running", {"active"}, "OK")


def test_everything_is_allowed_without_a_spending_block(scene):
    assert scene.seen() == GOOD


def test_reported_inactivity_stops_spending_and_campaigns_not_twilio(scene, shared):
    applied = report_subscription(shared, scene.subscription, closing=True)
    assert (applied.subscription_state, applied.campaigns_paused) == (SubscriptionState.REPORTED, 1)
    assert scene.seen() == (
        BlockReason.SUBSCRIPTION_INACTIVE,
        "subscription_inactive",
        {"active"},
        "FROZEN_WALLET",
    )
    assert scene.generations() == [0, 0]
    assert staged(shared, scene.org, "converge_twilio") == []


def test_subscription_inactive_at_the_provider_suspends_twilio_too(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    assert scene.seen() == (
        BlockReason.SUBSCRIPTION_INACTIVE,
        "subscription_inactive",
        {"suspended"},
        "FROZEN_WALLET",
    )
    assert scene.generations() == [1, 1]
    jobs = staged(shared, scene.org, "converge_twilio")
    assert sorted(job.kwargs["brand_id"] for job in jobs) == sorted(scene.brands)


@pytest.mark.parametrize("reason", sorted(set(FreezeReason) - {"subscription_inactive"}))
def test_any_other_freeze_stops_spending_and_campaigns_not_twilio(scene, shared, reason):
    freeze(shared, scene.org, FreezeReason(reason))
    apply(shared, scene.org)
    assert scene.seen() == (
        BlockReason.FROZEN_WALLET,
        "wallet_frozen",
        {"active"},
        "FROZEN_WALLET",
    )
    assert scene.generations() == [0, 0]


def test_empty_wallet_stops_spending_and_campaigns_and_not_twilio(scene, shared):
    debit(shared, scene.org, 1_000)
    apply(shared, scene.org)
    assert scene.seen() == (
        BlockReason.INSUFFICIENT_FUNDS,
        "wallet_depleted",
        {"active"},
        "INSUFFICIENT_FUNDS",
    )


def test_reactivation_resumes_all_but_manual_pauses(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    refresh_subscription(shared, scene.subscription, scene.org, "active")
    assert scene.seen() == GOOD
    assert pause_reason(shared, scene.by_hand) == "manual_pause"
    assert scene.generations() == [2, 2]


def test_reactivation_lifts_no_freeze_but_the_subscriptions(scene, shared):
    freeze(shared, scene.org)
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    assert active_freezes(shared, scene.org) == {"manual", "subscription_inactive"}
    refresh_subscription(shared, scene.subscription, scene.org, "active")
    assert active_freezes(shared, scene.org) == {"manual"}
    assert scene.seen()[:2] == (BlockReason.FROZEN_WALLET, "wallet_frozen")


def test_first_reason_is_named_and_the_next_one_when_it_clears(scene, shared):
    # Given all three reasons at once
    freeze(shared, scene.org)
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    shared.run(
        lambda s: wallet.correct(
            s,
            scene.org,
            key="all",
            amount_micros=-1_000,
            currency="USD",
            operator=ANN,
            now=T0,
        )
    )
    apply(shared, scene.org)
    assert pause_reason(shared, scene.campaign) == "subscription_inactive"
    # When they clear one after the other, Then the next is named, and the last resumes the campaign
    refresh_subscription(shared, scene.subscription, scene.org, "active")
    assert pause_reason(shared, scene.campaign) == "wallet_frozen"
    lift(shared, scene.org)
    apply(shared, scene.org)
    assert pause_reason(shared, scene.campaign) == "wallet_depleted"
    credit(shared, scene.org, 1)
    resumed = apply(shared, scene.org)
    assert pause_reason(shared, scene.campaign) == "running"
    assert (resumed.block, resumed.campaigns_resumed) == (None, 1)
    assert pause_reason(shared, scene.by_hand) == "manual_pause"


def test_manually_paused_campaign_keeps_its_reason(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    found = campaign(shared, scene.by_hand)
    assert (found.pause_reason, found.manually_paused) == ("manual_pause", True)


def test_drafts_and_ended_campaigns_are_left_alone(scene, shared):
    draft = make_campaign(shared, scene.brands[0], started=False)
    ended = make_campaign(shared, scene.brands[0])
    shared.run(
        lambda s: s.execute(
            text("UPDATE campaigns SET status = 'completed' WHERE id = :id"), {"id": ended}
        )
    )
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    refresh_subscription(shared, scene.subscription, scene.org, "active")
    assert campaign(shared, draft).status == "draft"
    assert campaign(shared, ended).status == "completed"


@pytest.mark.parametrize("status", ["active", "suspended"])
def test_replay_changes_nothing_when_everything_is_enforced(scene, shared, status):
    refresh_subscription(shared, scene.subscription, scene.org, status)
    forget_jobs(shared, scene.org)

    def everything():
        rows = [money_state(shared, scene.org), scene.generations()]
        return rows + [
            columns_of(campaign(shared, each)) for each in (scene.campaign, scene.by_hand)
        ]

    before = everything()
    applied = apply(shared, scene.org, later(10))
    assert (applied.campaigns_paused, applied.campaigns_resumed) == (0, 0)
    assert everything() == before
    assert staged(shared, scene.org, "converge_twilio") == []
    assert staged(shared, scene.org, "enforce_organization") == []


def test_generation_rises_only_when_the_desired_state_changes(scene, shared):
    for status, expected in (
        ("suspended", 1),
        ("cancelled", 1),
        ("expired", 1),
        ("active", 2),
        ("active", 2),
        ("suspended", 3),
    ):
        refresh_subscription(shared, scene.subscription, scene.org, status)
        assert scene.generations() == [expected, expected], status


def test_closing_report_during_a_suspension_leaves_twilio_suspended(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    report_subscription(shared, scene.subscription, closing=True)
    assert scene.generations() == [1, 1]
    assert {brand(shared, each).twilio_desired for each in scene.brands} == {"suspended"}


def test_a_brand_made_while_inactive_is_to_be_suspended_from_the_start(shared, org):
    made = brand(shared, make_brand(shared, org))
    assert (made.twilio_desired, made.twilio_generation) == ("suspended", 1)


def test_concurrent_enforcement_agrees(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    applied = at_once([lambda: apply(shared, scene.org)] * 8)
    assert not [one for one in applied if isinstance(one, Exception)]
    assert scene.generations() == [1, 1]
    assert len(staged(shared, scene.org, "converge_twilio")) == 2


def test_an_organization_that_is_not_there_is_refused(shared):
    with pytest.raises(OrganizationNotFound):
        apply(shared, "org_none")
    assert block_of(shared, "org_none") is BlockReason.SUBSCRIPTION_INACTIVE


# Overrides


def override(database, org, until, reason=FreezeReason.SUBSCRIPTION_INACTIVE, now=T0):
    return database.run(
        lambda s: operator_actions.override_manually(
            s, org, reason, until=until, operator=Operator("ann", "emergency"), now=now
        )
    )


def test_override_of_an_inactive_subscription_allows_all_until_its_end(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    # When an operator overrides the freeze for a minute
    override(shared, scene.org, later(60))
    assert scene.seen(later(59)) == GOOD
    assert scene.generations() == [2, 2]
    # Then it ends by time alone
    assert block_of(shared, scene.org, later(60)) is BlockReason.SUBSCRIPTION_INACTIVE
    assert debit(shared, scene.org, 1, now=later(60)).outcome == "FROZEN_WALLET"
    apply(shared, scene.org, later(60))
    assert scene.seen(later(60)) == (
        BlockReason.SUBSCRIPTION_INACTIVE,
        "subscription_inactive",
        {"suspended"},
        "FROZEN_WALLET",
    )
    assert scene.generations() == [3, 3]


def test_override_of_the_subscription_leaves_other_freezes_active(scene, shared):
    freeze(shared, scene.org)
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    override(shared, scene.org, later(60))
    assert scene.seen()[:3] == (BlockReason.FROZEN_WALLET, "wallet_frozen", {"active"})


def test_override_of_another_freeze_does_not_allow_an_inactive_one(scene, shared):
    freeze(shared, scene.org)
    refresh_subscription(shared, scene.subscription, scene.org, "suspended")
    override(shared, scene.org, later(60), FreezeReason.MANUAL)
    assert scene.seen()[0] is BlockReason.SUBSCRIPTION_INACTIVE


# Grace period


def set_grace(database, external_id, seconds):
    database.run(
        lambda s: s.execute(
            text("UPDATE subscriptions SET grace_seconds = :g WHERE external_id = :id"),
            {"g": seconds, "id": external_id},
        )
    )


def test_past_due_without_grace_closes_and_within_grace_counts_as_active(scene, shared):
    refresh_subscription(
        shared, scene.subscription, scene.org, "past_due", later(0), grace_seconds=3_600
    )
    assert scene.seen() == GOOD
    assert scene.seen(later(3_599)) == GOOD
    assert block_of(shared, scene.org, later(3_600)) is BlockReason.SUBSCRIPTION_INACTIVE
    set_grace(shared, scene.subscription, 0)
    apply(shared, scene.org, later(1))
    assert scene.seen(later(1))[0] is BlockReason.SUBSCRIPTION_INACTIVE


def test_end_of_a_grace_period_is_enforced_by_a_staged_job(scene, shared):
    refresh_subscription(shared, scene.subscription, scene.org, "past_due", grace_seconds=3_600)
    (job,) = staged(shared, scene.org, "enforce_organization")
    assert timedelta(seconds=3_590) < job.due_at - job.staged_at < timedelta(seconds=3_602)
    # When its time is over
    apply(shared, scene.org, later(3_601))
    assert scene.seen(later(3_601))[1:3] == ("subscription_inactive", {"suspended"})


def test_repeated_past_due_status_does_not_lengthen_the_grace_period(scene, shared):
    refresh_subscription(
        shared, scene.subscription, scene.org, "past_due", later(0), grace_seconds=3_600
    )
    refresh_subscription(
        shared, scene.subscription, scene.org, "past_due", later(3_000), grace_seconds=3_600
    )
    assert block_of(shared, scene.org, later(3_600)) is BlockReason.SUBSCRIPTION_INACTIVE
    # But a subscription that was paid in between has a new grace period
    refresh_subscription(shared, scene.subscription, scene.org, "active", later(4_000))
    refresh_subscription(
        shared, scene.subscription, scene.org, "past_due", later(5_000), grace_seconds=3_600
    )
    assert block_of(shared, scene.org, later(8_599)) is None
