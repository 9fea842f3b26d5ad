"""Freezes placed or lifted by jobs follow the current state of their cause."""

from __future__ import annotations

import itertools
import secrets

import pytest

from base.enums import DisputeState, FreezeReason, Provider
from base.facts import DisputeFacts, DisputeReport
from base.operators import Operator
from base.outcomes import Refused
from db.locks import OrganizationNotFound
from domain import operator_actions
from domain.payments import settlements
from domain.payments.dispute_freezes import cause_of_dispute, lift_freeze, place_freeze
from domain.wallet import operations as wallet
from tests.db.support import at_once, one_behind_the_other, with_retries
from tests.domain.support import (
    T0,
    active_freezes,
    campaign,
    debit,
    entries,
    later,
    make_brand,
    make_campaign,
    payment,
    subscribe,
)
from tests.support.world import make_organization

OPEN, WON, LOST = DisputeState.OPEN, DisputeState.WON, DisputeState.LOST


@pytest.fixture
def paid(shared, org):
    """The ID of a payment of 100 in a wallet with an active subscription."""
    subscribe(shared, org)
    one = f"P-{secrets.token_hex(6)}"
    shared.run(lambda s: wallet.settle(s, org, payment(one, org, 100), T0))
    return one


def report(database, one):
    """Report a dispute by an event and return the cause of its freeze."""
    event = DisputeReport(Provider.PAYPAL, f"{one}-D", (one,), True)
    assert database.run(lambda s: settlements.note_reported(s, event, T0))
    return cause_of_dispute(Provider.PAYPAL, f"{one}-D")


def settle_dispute(session, org, one, state, at=20, now=T0):
    facts = DisputeFacts(Provider.PAYPAL, f"{one}-D", one, "USD", 10, state, later(10), later(at))
    assert settlements.settle_dispute(session, org, facts, now).ok


def place(database, org, cause, reason="dispute", now=T0):
    return database.run(lambda s: place_freeze(s, org, reason, cause, now))


def lift(database, org, cause, reason="dispute", now=T0):
    return database.run(lambda s: lift_freeze(s, org, reason, cause, now))


def kinds(database, org):
    return [one.kind for one in entries(database, org) if one.kind in ("freeze", "unfreeze")]


def test_a_reported_dispute_freezes_once_and_pauses_the_campaigns(shared, org, paid):
    campaign_id = make_campaign(shared, make_brand(shared, org))
    cause = report(shared, paid)
    for _ in range(2):
        place(shared, org, cause)
    assert active_freezes(shared, org) == {"dispute"}
    assert kinds(shared, org).count("freeze") == 1
    assert campaign(shared, campaign_id).pause_reason == "wallet_frozen"
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"


@pytest.mark.parametrize(("state", "frozen"), [(OPEN, {"dispute"}), (WON, set()), (LOST, set())])
def test_provider_state_decides_in_whatever_order_jobs_run(shared, state, frozen):
    for order in itertools.permutations(["reported", "settle", "place", "lift"]):
        org = make_organization(shared)
        subscribe(shared, org)
        one = f"P-{secrets.token_hex(6)}"
        shared.run(lambda s, h=org, p=one: wallet.settle(s, h, payment(p, h, 100), T0))
        cause = cause_of_dispute(Provider.PAYPAL, f"{one}-D")
        acts = {
            "reported": lambda p=one: report(shared, p),
            "settle": lambda h=org, p=one: shared.run(lambda s: settle_dispute(s, h, p, state)),
            "place": lambda h=org, c=cause: place(shared, h, c),
            "lift": lambda h=org, c=cause: lift(shared, h, c),
        }
        for name in order:
            acts[name]()
        # The job that the provider's state stages runs after it, whatever was reported before
        acts["place" if state is OPEN else "lift"]()
        assert (active_freezes(shared, org), order) == (frozen, order)


def test_freeze_whose_cause_was_settled_meanwhile_is_not_placed(shared, org, paid):
    cause = report(shared, paid)
    shared.run(lambda s: settle_dispute(s, org, paid, WON))
    place(shared, org, cause)
    assert active_freezes(shared, org) == set()


def test_unfreeze_with_an_active_cause_lifts_nothing(shared, org, paid):
    cause = report(shared, paid)
    place(shared, org, cause)
    lift(shared, org, cause)
    assert active_freezes(shared, org) == {"dispute"}


def test_freeze_that_waited_for_the_providers_state_reads_it(shared, shared_urls, org, paid):
    # Given a dispute that is just being won, not committed yet
    cause = report(shared, paid)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: settle_dispute(s, org, paid, WON),
        lambda: place(shared, org, cause),
    )
    assert active_freezes(shared, org) == set()


def test_lifting_one_dispute_leaves_another_and_a_manual_freeze(shared, org, paid):
    cause = report(shared, paid)
    place(shared, org, cause)
    other = f"P-{secrets.token_hex(6)}"
    shared.run(lambda s: wallet.settle(s, org, payment(other, org, 100), T0))
    place(shared, org, report(shared, other))
    shared.run(
        lambda s: operator_actions.freeze_manually(
            s, org, operator=Operator("ann", "fraud"), now=T0
        )
    )
    shared.run(lambda s: settle_dispute(s, org, paid, LOST))
    lift(shared, org, cause)
    assert active_freezes(shared, org) == {"dispute", "manual"}
    shared.run(lambda s: settle_dispute(s, org, other, WON))
    lift(shared, org, cause_of_dispute(Provider.PAYPAL, f"{other}-D"))
    assert active_freezes(shared, org) == {"manual"}


def test_an_appeal_freezes_again(shared, org, paid):
    cause = report(shared, paid)
    place(shared, org, cause)
    shared.run(lambda s: settle_dispute(s, org, paid, WON, at=20))
    lift(shared, org, cause)
    shared.run(lambda s: settle_dispute(s, org, paid, OPEN, at=30))
    place(shared, org, cause)
    assert active_freezes(shared, org) == {"dispute"}


def test_freeze_lifted_by_an_operator_stays_lifted_until_new_state(shared, org, paid):
    cause = report(shared, paid)
    place(shared, org, cause)
    shared.run(
        lambda s: operator_actions.lift_manually(
            s, org, FreezeReason.DISPUTE, operator=Operator("ann", "vouched for"), now=later(1)
        )
    )
    place(shared, org, cause, now=later(2))
    assert active_freezes(shared, org) == set()
    shared.run(lambda s: settle_dispute(s, org, paid, OPEN, now=later(3)))
    place(shared, org, cause, now=later(3))
    assert active_freezes(shared, org) == {"dispute"}


def test_dispute_does_not_freeze_another_organization(shared, paid):
    other = make_organization(shared)
    subscribe(shared, other)
    cause = report(shared, paid)
    place(shared, other, cause)
    assert active_freezes(shared, other) == set()


@pytest.mark.parametrize("reason", ["refund_shortfall", "call_shortfall"])
def test_shortfall_freeze_lasts_while_an_amount_is_outstanding(shared, org, paid, reason):
    place(shared, org, "c", reason)
    assert active_freezes(shared, org) == set()
    debit(shared, org, 100)
    shared.run(lambda s: wallet.settle(s, org, payment(paid, org, 100, 60), T0))
    assert active_freezes(shared, org) == {"refund_shortfall"}
    lift(shared, org, f"paypal:{paid}", "refund_shortfall")
    place(shared, org, "c", reason)
    assert active_freezes(shared, org) == {"refund_shortfall", reason}


def test_the_subscriptions_freeze_follows_the_subscription_alone(shared, org):
    # Without a subscription the wallet is frozen, whichever job runs; with one it is not
    lift(shared, org, "", "subscription_inactive")
    assert active_freezes(shared, org) == {"subscription_inactive"}
    subscribe(shared, org)
    place(shared, org, "", "subscription_inactive")
    assert active_freezes(shared, org) == set()


@pytest.mark.parametrize(
    ("reason", "code"), [("manual", "FREEZE_IS_MANUAL"), ("x", "UNKNOWN_REASON")]
)
@pytest.mark.parametrize("act", [place, lift])
def test_a_reason_that_no_job_may_decide_is_refused(shared, org, act, reason, code):
    with pytest.raises(Refused) as caught:
        act(shared, org, "", reason)
    assert caught.value.code == code
    assert active_freezes(shared, org) == set()


@pytest.mark.parametrize("act", [place, lift])
def test_freeze_job_is_refused_for_an_unknown_organization(shared, act):
    with pytest.raises(OrganizationNotFound):
        act(shared, "org_none", "c")


def test_placing_and_lifting_at_once_ends_as_the_cause_is(shared, org, paid):
    cause = report(shared, paid)
    acts = [lambda: place(shared, org, cause), lambda: lift(shared, org, cause)] * 4
    assert not [
        one for one in at_once([with_retries(act) for act in acts]) if isinstance(one, Exception)
    ]
    assert active_freezes(shared, org) == {"dispute"}
