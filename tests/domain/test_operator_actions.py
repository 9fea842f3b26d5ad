"""Operator actions: named, with a reason, and enforced in the same commit."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from base.enums import BlockReason, FreezeReason
from base.money import InvalidAmount
from base.operators import Operator
from base.outcomes import Refused
from db.locks import OrganizationNotFound
from db.models import OperatorAction
from domain import operator_actions as operators
from domain.operator_actions import CampaignNotFound
from domain.wallet.freezes import UnknownFreeze
from domain.wallet.thresholds import thresholds_of
from tests.domain.support import (
    T0,
    active_freezes,
    campaign,
    credit,
    debit,
    entries,
    figures,
    later,
    make_brand,
    make_campaign,
    money_state,
    refresh_subscription,
    subscribe,
)
from tests.domain.wallet.level_support import CARD, CHARGEABLE, TERMS, switch_on

MANUAL = FreezeReason.MANUAL
#: The longest name and reason that the database stores.
LONGEST = Operator("é" * 200, "y" * 500)


@pytest.fixture
def running(shared, org):
    """A running campaign of an organization that may spend."""
    subscribe(shared, org)
    credit(shared, org, 100)
    return make_campaign(shared, make_brand(shared, org))


def act(database, name, org, *arguments, **more):
    values = {"operator": Operator("ann", "phone call"), "now": T0, **more}
    return database.run(lambda s: getattr(operators, name)(s, org, *arguments, **values))


def state_of(database, campaign_id):
    found = campaign(database, campaign_id)
    return found.status, found.pause_reason, found.manually_paused


ACTS = {
    "freeze_manually": ((), {}),
    "lift_manually": ((MANUAL,), {}),
    "override_manually": ((MANUAL,), {"until": later(60)}),
    "correct_manually": ((), {"key": "k", "amount_micros": 5, "currency": "USD"}),
    "enforce_manually": ((), {}),
    "set_thresholds_manually": (([5, 7],), {}),
    "rearm_thresholds_manually": ((), {}),
    "switch_top_up_on_manually": ((TERMS, CARD), {"chargeable": CHARGEABLE}),
    "switch_top_up_off_manually": ((), {}),
}
#: Actions that are recorded in the ledger, with the kind of entry that records each.
ENTRIES = {
    "freeze_manually": "freeze",
    "lift_manually": "unfreeze",
    "override_manually": "override",
    "correct_manually": "BALANCE_CORRECTION",
}
#: Actions that are recorded separately, because the rows that they write may be overwritten.
NOTED = {
    "enforce_manually": "organization.enforce",
    "set_thresholds_manually": "thresholds.set",
    "rearm_thresholds_manually": "thresholds.rearm",
    "switch_top_up_on_manually": "top_up.on",
    "switch_top_up_off_manually": "top_up.off",
}


def prepare(database, org, name):
    """Create what the action needs: a freeze to lift or override, or terms to end."""
    if name in ("lift_manually", "override_manually"):
        act(database, "freeze_manually", org)
    if name == "switch_top_up_off_manually":
        switch_on(database, org)


def noted(database, subject):
    rows = database.run(
        lambda s: (
            s.query(OperatorAction).filter_by(subject=subject).order_by(OperatorAction.id).all()
        )
    )
    return [(one.act, one.operator, one.why, one.acted_at) for one in rows]


@pytest.mark.parametrize("name", ENTRIES)
def test_action_on_money_keeps_the_longest_name_and_reason_in_its_entry(shared, org, name):
    prepare(shared, org, name)
    arguments, more = ACTS[name]
    act(shared, name, org, *arguments, **{**more, "operator": LONGEST})
    # The enforcement that follows may write entries, too
    notes = [one.note for one in entries(shared, org) if one.kind == ENTRIES[name]]
    assert any(note.startswith("é" * 200 + ": " + "y" * 500) for note in notes), notes


@pytest.mark.parametrize("name", NOTED)
def test_action_on_overwritten_rows_is_recorded_with_name_and_reason(shared, org, name):
    prepare(shared, org, name)
    arguments, more = ACTS[name]
    act(shared, name, org, *arguments, **{**more, "operator": LONGEST})
    assert noted(shared, org) == [(NOTED[name], "é" * 200, "y" * 500, T0)]


def test_each_change_and_removal_of_thresholds_is_recorded(shared, org):
    act(shared, "set_thresholds_manually", org, [5], operator=Operator("ann", "asked"))
    act(shared, "set_thresholds_manually", org, [7], operator=Operator("bob", "asked again"))
    act(
        shared,
        "set_thresholds_manually",
        org,
        [],
        operator=Operator("cyd", "no more"),
        now=later(5),
    )
    assert shared.run(lambda s: thresholds_of(s, org)) == []
    assert noted(shared, org) == [
        ("thresholds.set", "ann", "asked", T0),
        ("thresholds.set", "bob", "asked again", T0),
        ("thresholds.clear", "cyd", "no more", later(5)),
    ]


@pytest.mark.parametrize("verb", ["start", "pause"])
def test_action_on_a_campaign_is_recorded_with_name_and_reason(shared, running, verb):
    name = f"{verb}_campaign_manually"
    if verb == "start":
        pause(shared, running)
    before = state_of(shared, running)
    act(shared, name, running)
    assert state_of(shared, running) != before
    assert noted(shared, running) == [(f"campaign.{verb}", "ann", "phone call", T0)]


def test_refused_action_is_not_recorded(shared, org):
    with pytest.raises(CampaignNotFound):
        act(shared, "pause_campaign_manually", "cmp_none")
    with pytest.raises(InvalidAmount):
        act(shared, "set_thresholds_manually", org, [0])
    assert noted(shared, org) == noted(shared, "cmp_none") == []


def test_manual_enforcement_repairs_a_wrong_state(shared, org, running):
    shared.run(
        lambda s: s.execute(
            text("UPDATE campaigns SET status = 'paused', pause_reason = 'wallet_frozen'")
        )
    )
    assert act(shared, "enforce_manually", org).campaigns_resumed == 1
    assert state_of(shared, running)[0] == "running"


@pytest.mark.parametrize("name", ACTS)
def test_an_organization_that_is_not_there_is_refused(shared, name):
    arguments, more = ACTS[name]
    with pytest.raises(OrganizationNotFound):
        act(shared, name, "org_none", *arguments, **more)


def test_manual_freeze_pauses_at_once_and_is_only_lifted_manually(shared, org, running):
    found = act(shared, "freeze_manually", org)
    assert (found.block, found.campaigns_paused) == (BlockReason.FROZEN_WALLET, 1)
    assert state_of(shared, running) == ("paused", "wallet_frozen", False)
    before = money_state(shared, org)
    assert (
        act(shared, "freeze_manually", org, operator=Operator("ann", "again")).campaigns_paused == 0
    )
    assert money_state(shared, org) == before
    found = act(shared, "lift_manually", org, MANUAL)
    assert (found.block, found.campaigns_resumed) == (None, 1)
    assert state_of(shared, running) == ("running", None, False)


def test_freeze_that_is_not_active_cannot_be_lifted(shared, org):
    with pytest.raises(UnknownFreeze):
        act(shared, "lift_manually", org, MANUAL)


def test_subscription_freeze_is_not_lifted_manually(shared, org):
    one = subscribe(shared, org)
    refresh_subscription(shared, one, org, "suspended")
    with pytest.raises(Refused) as caught:
        act(shared, "lift_manually", org, FreezeReason.SUBSCRIPTION_INACTIVE)
    assert caught.value.code == "FREEZE_FOLLOWS_SUBSCRIPTION"
    assert active_freezes(shared, org) == {"subscription_inactive"}


def test_an_override_resumes_campaigns_in_the_same_commit(shared, org, running):
    act(shared, "freeze_manually", org)
    assert act(shared, "override_manually", org, MANUAL, until=later(60)).campaigns_resumed == 1
    assert state_of(shared, running)[0] == "running"


def test_correction_moves_money_and_is_enforced(shared, org, running):
    outcome = act(shared, "correct_manually", org, key="k", amount_micros=-100, currency="USD")
    assert (outcome.ok, figures(shared, org)) == (True, (0, 0))
    assert state_of(shared, running) == ("paused", "wallet_depleted", False)
    again = act(shared, "correct_manually", org, key="k", amount_micros=-100, currency="USD")
    assert again.replayed
    act(shared, "correct_manually", org, key="k2", amount_micros=1, currency="USD")
    assert state_of(shared, running)[0] == "running"


def test_a_correction_that_is_refused_changes_nothing(shared, org):
    before = len(entries(shared, org))
    outcome = act(shared, "correct_manually", org, key="k", amount_micros=-1, currency="USD")
    assert outcome.outcome == "INSUFFICIENT_FUNDS"
    assert len(entries(shared, org)) == before


def start(database, campaign_id):
    return database.run(lambda s: operators.start_campaign(s, campaign_id, T0))


def pause(database, campaign_id):
    return database.run(lambda s: operators.pause_campaign(s, campaign_id, T0))


def test_campaign_paused_manually_is_started_only_manually(shared, org, running):
    pause(shared, running)
    pause(shared, running)
    assert state_of(shared, running) == ("paused", "manual_pause", True)
    act(shared, "freeze_manually", org)
    act(shared, "lift_manually", org, MANUAL)
    assert state_of(shared, running) == ("paused", "manual_pause", True)
    start(shared, running)
    start(shared, running)
    assert state_of(shared, running) == ("running", None, False)


def test_campaign_started_while_spending_is_blocked_resumes_by_itself(shared, org, running):
    debit(shared, org, 100)
    pause(shared, running)
    start(shared, running)
    assert state_of(shared, running) == ("paused", "wallet_depleted", False)
    act(shared, "correct_manually", org, key="k", amount_micros=1, currency="USD")
    assert state_of(shared, running)[0] == "running"


def test_campaign_paused_by_the_system_can_also_be_paused_manually(shared, org, running):
    act(shared, "freeze_manually", org)
    pause(shared, running)
    act(shared, "lift_manually", org, MANUAL)
    assert state_of(shared, running) == ("paused", "manual_pause", True)


def test_campaign_that_cannot_run_is_neither_started_nor_paused(shared, running):
    draft = make_campaign(shared, campaign(shared, running).brand_id, started=False)
    with pytest.raises(CampaignNotFound):
        pause(shared, draft)
    for status in ("completed", "cancelled"):
        shared.run(
            lambda s, status=status: s.execute(
                text("UPDATE campaigns SET status = :s WHERE id = :id"),
                {"s": status, "id": running},
            )
        )
        for act_on in (start, pause):
            with pytest.raises(CampaignNotFound):
                act_on(shared, running)
    with pytest.raises(CampaignNotFound):
        start(shared, "cmp_none")
