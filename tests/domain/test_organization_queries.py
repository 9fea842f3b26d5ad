"""Organizations and campaigns are listed in pages, and read one by one."""

from __future__ import annotations

import pytest

from base.enums import BlockReason, FreezeReason
from db.locks import OrganizationNotFound
from domain import organizations
from domain.entitlement import SubscriptionState, spending_block, spending_blocks
from domain.organization_queries import (
    CAMPAIGNS_SHOWN_MAX,
    list_campaigns,
    list_organizations,
    read_organization,
)
from domain.wallet import freezes
from tests.domain.support import ANN, T0, credit, make_brand, make_campaign, subscribe
from tests.support.world import make_organization


def spender(database):
    """Make an organization that may spend."""
    organization_id = make_organization(database)
    subscribe(database, organization_id)
    credit(database, organization_id, 100)
    return organization_id


def freeze(database, organization_id):
    database.run(
        lambda session: freezes.freeze(
            session, organization_id, FreezeReason.MANUAL, operator=ANN, now=T0
        )
    )


def test_spending_blocks_of_many_are_those_of_each(shared):
    frozen, ready, poor = spender(shared), spender(shared), make_organization(shared)
    freeze(shared, frozen)
    subscribe(shared, poor)
    inactive = make_organization(shared)
    expected = {
        frozen: BlockReason.FROZEN_WALLET,
        ready: None,
        poor: BlockReason.INSUFFICIENT_FUNDS,
        inactive: BlockReason.SUBSCRIPTION_INACTIVE,
    }
    assert shared.run(lambda s: spending_blocks(s, list(expected), T0)) == expected
    assert {one: shared.run(lambda s, one=one: spending_block(s, one, T0)) for one in expected} == (
        expected
    )
    assert shared.run(lambda s: spending_blocks(s, [], T0)) == {}


def test_organizations_are_listed_in_pages_without_gaps(shared):
    made = [make_organization(shared) for _ in range(5)]
    pages, after = [], None
    while len(pages) < 3:
        page = shared.run(lambda s: list_organizations(s, T0, after=after, limit=2))  # noqa: B023
        pages.append([one.organization_id for one in page])
        after = pages[-1][-1]
        # An organization that is made between two pages moves neither of them
        make_organization(shared)
    assert pages[0] + pages[1] + pages[2][:1] == sorted(made, reverse=True)


def test_campaigns_are_listed_in_pages_of_one_organization(shared, org):
    brand_id = make_brand(shared, org)
    made = sorted((make_campaign(shared, brand_id, started=False) for _ in range(3)), reverse=True)
    make_campaign(shared, make_brand(shared, make_organization(shared)), started=False)

    def listed(**more):
        page = shared.run(lambda s: list_campaigns(s, organization_id=org, **more))
        return [one.campaign_id for one in page]

    assert listed(limit=2) == made[:2]
    assert listed(limit=2, after=made[1]) == made[2:]
    assert listed(limit=2, after=made[2]) == []


def test_an_organization_is_read_with_all_that_decides_its_spending(shared):
    organization_id = spender(shared)
    brand_id = make_brand(shared, organization_id)
    campaign_id = make_campaign(shared, brand_id)
    freeze(shared, organization_id)
    found = shared.run(lambda s: read_organization(s, organization_id, T0))
    assert (found.subscription_state, found.block) == (
        SubscriptionState.ACTIVE,
        BlockReason.FROZEN_WALLET,
    )
    assert (found.wallet.balance.balance_micros, found.wallet.balance.available_micros) == (
        100,
        100,
    )
    assert [(one.reason, one.note) for one in found.wallet.stopping] == [("manual", "test")]
    assert [one.status for one in found.subscriptions] == ["active"]
    assert [(one.brand_id, one.desired_state) for one in found.brands] == [(brand_id, "active")]
    assert [(one.campaign_id, one.status) for one in found.campaigns] == [(campaign_id, "running")]
    assert found.has_more_campaigns is False


def test_only_the_newest_campaigns_are_read_with_an_organization(shared, org):
    brand_id = make_brand(shared, org)

    def work(session):
        return [
            organizations.create_campaign(session, brand_id, name="c", now=T0)
            for _ in range(CAMPAIGNS_SHOWN_MAX + 1)
        ]

    made = shared.run(work)
    found = shared.run(lambda s: read_organization(s, org, T0))
    assert [one.campaign_id for one in found.campaigns] == sorted(made, reverse=True)[:-1]
    assert found.has_more_campaigns is True


def test_an_unknown_organization_is_not_found(shared):
    with pytest.raises(OrganizationNotFound):
        shared.run(lambda s: read_organization(s, "org_none", T0))
