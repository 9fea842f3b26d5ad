"""The test cases that the company's own documents name, under their names.

The call, kill-switch and HTTP scenarios of the prepaid documents run through the API and are tested
in `tests/ingress/api`. Sending is not built yet.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from base.enums import BlockReason
from base.money import AMOUNT_MICROS_MAX, micros_from_text
from db.engine import Database
from domain.enforcement import enforce_entitlement
from domain.entitlement import spending_block
from domain.wallet import assets
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from tests.db.support import at_once, one_behind_the_other
from tests.domain.support import (
    T0,
    campaign,
    credit,
    debit,
    entries,
    forget_jobs,
    later,
    make_brand,
    make_campaign,
    payment,
    refresh_subscription,
    staged,
    subscribe,
)
from tests.domain.wallet.hold_support import (
    END,
    buy,
    commit,
    everything,
    expire,
    fate,
    money,
    release,
    reserve,
    settle,
)
from tests.domain.wallet.support import bare_organization, freeze, unfreeze

SIX, FIVE = 6_000_000, 5_000_000
#: Number of concurrent threads where the documents mention hundreds at once.
CREW = 40


def all_at_once(jobs):
    """Run many jobs with a bounded number of threads and count their outcomes."""
    with ThreadPoolExecutor(CREW) as pool:
        answers = list(pool.map(lambda job: job(), jobs))
    return Counter("replay" if one.replayed else one.outcome for one in answers)


def enforced(database, org, campaign_id):
    """Run the staged enforcement and return the campaign's status and pause reason."""
    forget_jobs(database, org)
    database.run(lambda session: enforce_entitlement(session, org, T0))
    found = campaign(database, campaign_id)
    return found.status, found.pause_reason


@pytest.fixture
def running(shared, org):
    """The campaign and subscription of an organization with a balance of 5.00."""
    one = subscribe(shared, org)
    credit(shared, org, FIVE)
    return make_campaign(shared, make_brand(shared, org)), one


# Payment safety: wallet cannot go negative


def test_wallet_cannot_go_negative_balance_validation(shared, org):
    credit(shared, org, FIVE)
    before = everything(shared, org)
    assert debit(shared, org, FIVE + 1).outcome == "INSUFFICIENT_FUNDS"
    assert everything(shared, org) == before
    assert debit(shared, org, FIVE).balance_micros == 0


def test_wallet_cannot_go_negative_concurrency(shared, org):
    # Given 10.00, and thirty requests, of which only nine fit
    credit(shared, org, 2 * FIVE)
    jobs = [lambda n=n: debit(shared, org, 1_100_000 + n, key=f"d{n}") for n in range(30)]
    counted = all_at_once(jobs)
    assert counted == {"OK": 9, "INSUFFICIENT_FUNDS": 21}
    assert min(one.balance_after_micros for one in entries(shared, org)) >= 0


def test_wallet_cannot_go_negative_rounding(shared, org):
    # Given one micro less than the price of ten messages
    price = micros_from_text("0.0079")
    credit(shared, org, 10 * price - 1)
    codes = [debit(shared, org, price, key=f"m{n}").outcome for n in range(10)]
    assert codes == ["OK"] * 9 + ["INSUFFICIENT_FUNDS"]
    assert money(shared, org) == (price - 1, 0, 0)


# Payment safety: frozen wallet blocks sends


def test_frozen_wallet_blocks_sends_freeze_status(shared, org, running):
    freeze(shared, org)
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"
    assert reserve(shared, org, 1).outcome == "FROZEN_WALLET"
    assert buy(shared, org, 1, "n").outcome == "FROZEN_WALLET"
    assert shared.run(lambda s: spending_block(s, org, T0)) is BlockReason.FROZEN_WALLET
    unfreeze(shared, org)
    assert shared.run(lambda s: spending_block(s, org, T0)) is None
    assert debit(shared, org, 1).ok


def test_frozen_wallet_blocks_sends_balance_check(shared, org, running):
    # Given a frozen wallet: its balance is shown, grows and cannot be spent
    freeze(shared, org)
    credit(shared, org, FIVE)
    found = shared.run(lambda session: wallet_queries.balance(session, org, T0))
    assert (found.balance_micros, found.frozen, found.consistent) == (2 * FIVE, True, True)
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"


# Payment safety: concurrent debits serialized


def test_concurrent_debits_serialized_row_lock_safety(shared, org):
    # Given 6.00 and two requests for 5.00 at the same moment, many times over
    for _ in range(15):
        left = money(shared, org)[0]
        credit(shared, org, SIX - left)
        outcomes = at_once([lambda: debit(shared, org, FIVE)] * 2)
        assert sorted(one.outcome for one in outcomes) == ["INSUFFICIENT_FUNDS", "OK"]
        assert money(shared, org) == (1_000_000, 0, 0)


def test_concurrent_debits_serialized_transaction_ordering(shared, shared_urls, org):
    # Given 6.00, and a debit of 5.00 that is not committed yet
    credit(shared, org, SIX)

    def first(session):
        wallet.debit(session, org, key="first", amount_micros=FIVE, currency="USD", now=T0)

    # When another debit arrives, Then it waits, reads 1.00 and is refused
    second = one_behind_the_other(
        shared, shared_urls.owner_url, first, lambda: debit(shared, org, FIVE)
    )
    assert second.outcome == "INSUFFICIENT_FUNDS"
    assert money(shared, org) == (1_000_000, 0, 0)


# Payment safety: idempotent webhook handling


def test_idempotent_webhook_handling_duplicate_prevention(shared, org):
    # Given a payment that PayPal reports ten times at once
    outcomes = at_once([lambda: settle(shared, org, FIVE)] * 10)
    assert sum(one.ok and not one.replayed for one in outcomes) == 1
    assert money(shared, org) == (FIVE, 0, 0)


def test_idempotent_webhook_handling_retry_safety(shared, org):
    # Given a delivery whose transaction was lost after the credit
    class Lost(Exception):
        pass

    def lost(session):
        assert wallet.settle(session, org, payment(f"P-{org}", org, FIVE), T0).ok
        raise Lost

    with pytest.raises(Lost):
        shared.run(lost)
    assert money(shared, org) == (0, 0, 0)
    # When it is delivered again twice, Then it is credited once
    assert not settle(shared, org, FIVE).replayed
    assert settle(shared, org, FIVE).replayed
    assert money(shared, org) == (FIVE, 0, 0)


# Payment safety: Twilio suspension and reactivation (providers in a sandbox, over HTTP)


def change_subscription(world, customer, event_id, change, status):
    world.set_status_at_paypal(customer.subscription_id, status)
    kind = f"BILLING.SUBSCRIPTION.{change}"
    resource = {"id": customer.subscription_id}
    body = json.dumps({"id": event_id, "event_type": kind, "resource": resource})
    assert world.receive(event_id, kind, body.encode()) == "new"
    world.run_due()


def test_twilio_suspension_and_reactivation_calls_the_api(world):
    customer = world.customer()
    change_subscription(world, customer, "WH-1", "CANCELLED", "CANCELLED")
    assert [world.twilio_status(sid) for sid in customer.sids] == ["suspended"] * 2
    change_subscription(world, customer, "WH-2", "ACTIVATED", "ACTIVE")
    assert [world.twilio_status(sid) for sid in customer.sids] == ["active"] * 2


def test_twilio_suspension_failure_is_graceful(world):
    # Given that Twilio cannot suspend
    customer = world.customer()
    suspending = {"method": "POST", "form": {"Status": "suspended"}}
    world.sandbox.fault("twilio", "status", status=500, match=suspending)
    change_subscription(world, customer, "WH-1", "SUSPENDED", "SUSPENDED")
    # Then all of our own state is blocked nevertheless, and Twilio's state is still to be changed
    assert (
        world.do(lambda s, now: spending_block(s, customer.id, now))
        is BlockReason.SUBSCRIPTION_INACTIVE
    )
    assert world.campaign(customer.campaign_ids[0]).pause_reason == "subscription_inactive"
    assert [one.twilio_desired for one in world.brands(customer.id)] == ["suspended"] * 2
    assert [world.twilio_status(sid) for sid in customer.sids] == ["active"] * 2
    # When Twilio works again, Then the subaccounts are suspended
    world.sandbox.control("DELETE", "/faults")
    world.due_now()
    world.run_due()
    assert [world.twilio_status(sid) for sid in customer.sids] == ["suspended"] * 2


# Payment safety: campaign pause and resume


def test_campaign_pause_on_each_trigger(shared, org, running):
    campaign_id, subscription_id = running
    freeze(shared, org)
    assert enforced(shared, org, campaign_id) == ("paused", "wallet_frozen")
    unfreeze(shared, org)
    debit(shared, org, FIVE)
    assert enforced(shared, org, campaign_id) == ("paused", "wallet_depleted")
    refresh_subscription(shared, subscription_id, org, "suspended")
    assert enforced(shared, org, campaign_id) == ("paused", "subscription_inactive")


def test_campaign_resume_needs_all_three_conditions(shared, org, running):
    # Given none of the three: active subscription, unfrozen wallet, balance above zero
    campaign_id, subscription_id = running
    debit(shared, org, FIVE)
    freeze(shared, org)
    refresh_subscription(shared, subscription_id, org, "suspended")
    # When they are restored one by one, Then only the last resumes
    refresh_subscription(shared, subscription_id, org, "active")
    assert enforced(shared, org, campaign_id) == ("paused", "wallet_frozen")
    unfreeze(shared, org)
    assert enforced(shared, org, campaign_id) == ("paused", "wallet_depleted")
    credit(shared, org, 1)
    assert enforced(shared, org, campaign_id) == ("running", None)


@pytest.mark.parametrize("give_back", [release, expire, lambda db, org: commit(db, org, 1)])
def test_campaign_does_not_stay_paused_for_a_hold_that_is_gone(shared, org, running, give_back):
    campaign_id, _ = running
    reserve(shared, org, FIVE)
    assert enforced(shared, org, campaign_id) == ("paused", "wallet_depleted")
    give_back(shared, org)
    assert staged(shared, org, "enforce_organization")
    assert enforced(shared, org, campaign_id) == ("running", None)


# Payment safety: wallet stress tests


def test_wallet_stress_100_concurrent_debits_of_5_on_a_balance_of_6(shared, org):
    credit(shared, org, SIX)
    counted = all_at_once([lambda n=n: debit(shared, org, FIVE, key=f"d{n}") for n in range(100)])
    assert counted == {"OK": 1, "INSUFFICIENT_FUNDS": 99}
    assert money(shared, org) == (1_000_000, 0, 0)


def test_wallet_stress_edge_cases(shared, org):
    for amount in (0, -1, AMOUNT_MICROS_MAX + 1, 10**40):
        assert credit(shared, org, amount).outcome == "INVALID_AMOUNT"
        assert debit(shared, org, amount).outcome == "INVALID_AMOUNT"
    assert debit(shared, org, 1).outcome == "INSUFFICIENT_FUNDS"
    credit(shared, org, 1)
    assert debit(shared, org, 1).balance_micros == 0


def test_wallet_stress_extreme_values(shared, org):
    for n in range(3):
        assert credit(shared, org, AMOUNT_MICROS_MAX).balance_micros == (n + 1) * AMOUNT_MICROS_MAX
    assert debit(shared, org, AMOUNT_MICROS_MAX).balance_micros == 2 * AMOUNT_MICROS_MAX
    assert reserve(shared, org, AMOUNT_MICROS_MAX).available_micros == AMOUNT_MICROS_MAX
    assert money(shared, org) == (2 * AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX, 0)


# Payment safety: additional coverage


def test_error_paths_are_codes_and_no_bare_exceptions(shared, org):
    bare = bare_organization(shared)
    assert debit(shared, bare, 1).outcome == "WALLET_NOT_FOUND"
    assert debit(shared, org, 1, currency="EUR").outcome == "CURRENCY_MISMATCH"
    credit(shared, org, 5, key="k")
    assert debit(shared, org, 5, key="k").outcome == "IDEMPOTENCY_CONFLICT"


def test_special_scenario_negative_balance_by_sql_is_refused(shared, org):
    with pytest.raises(DBAPIError, match="permission denied"):
        shared.run(
            lambda session: session.execute(
                text("UPDATE wallets SET balance_micros = -1 WHERE organization_id = :org"),
                {"org": org},
            )
        )
    assert money(shared, org) == (0, 0, 0)


# Prepaid billing: atomic asset billing (five cases)


def test_asset_successful_deduction_with_sufficient_balance(shared, org):
    credit(shared, org, FIVE)
    assert buy(shared, org, 1_150_000, "number-1").balance_micros == FIVE - 1_150_000
    assert entries(shared, org)[-1].kind == "asset"


def test_asset_rejection_with_insufficient_balance_zero_debt(shared, org):
    credit(shared, org, 1_149_999)
    before = everything(shared, org)
    assert buy(shared, org, 1_150_000, "number-1").outcome == "INSUFFICIENT_FUNDS"
    assert everything(shared, org) == before


def test_asset_duplicate_idempotency_key_detection(shared, org):
    credit(shared, org, FIVE)
    buy(shared, org, 1_150_000, "number-1")
    assert buy(shared, org, 1_150_000, "number-1").replayed
    assert buy(shared, org, 1, "number-1").outcome == "IDEMPOTENCY_CONFLICT"
    assert money(shared, org) == (FIVE - 1_150_000, 0, 0)


def test_asset_database_error_handling(shared, shared_urls, org):
    # Given a connection that is lost in the middle of a purchase
    credit(shared, org, FIVE)
    fragile = Database(shared_urls.app_url, name="fragile", pool_size=1)

    def lost(session):
        assets.deduct_asset_cost(
            session,
            org,
            key="number-1",
            amount_micros=1_150_000,
            currency="USD",
            asset="+15005550006",
            now=T0,
        )
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    try:
        with pytest.raises(Exception, match="database: AdminShutdown"):
            fragile.run(lost)
        # Then nothing of it has happened, and the same purchase works
        assert money(shared, org) == (FIVE, 0, 0)
        assert buy(fragile, org, 1_150_000, "number-1").ok
    finally:
        fragile.close()


def test_asset_organization_not_found_handling(shared):
    assert buy(shared, "org_none", 1, "number-1").outcome == "WALLET_NOT_FOUND"


# Prepaid billing: credit reservation (six cases)


def test_reservation_reserves_credits_successfully(shared, org):
    credit(shared, org, SIX)
    outcome = reserve(shared, org, FIVE, provider_call_id="vapi-1")
    assert (outcome.ok, outcome.balance_micros, outcome.available_micros) == (True, SIX, SIX - FIVE)


def test_reservation_is_rejected_when_effective_balance_is_zero(shared, org):
    # Given a balance above zero, all of which is held
    credit(shared, org, SIX)
    reserve(shared, org, SIX)
    assert reserve(shared, org, 1, "c2").outcome == "INSUFFICIENT_FUNDS"
    assert money(shared, org) == (SIX, SIX, 0)


def test_reservation_duplicate_is_detected(shared, org):
    credit(shared, org, SIX)
    reserve(shared, org, FIVE)
    assert reserve(shared, org, FIVE).replayed
    assert money(shared, org) == (SIX, FIVE, 0)


def test_reservation_commit_charges_and_releases_credits(shared, org):
    credit(shared, org, SIX)
    reserve(shared, org, FIVE)
    assert commit(shared, org, 2_000_000).balance_micros == 4_000_000
    assert fate(shared, org) == ("committed", FIVE, 2_000_000, 3_000_000, 2_000_000, 0)
    assert money(shared, org) == (4_000_000, 0, 0)


def test_reservation_commit_falls_back_to_direct_billing(shared, org):
    credit(shared, org, SIX)
    assert commit(shared, org, 2_000_000).ok
    assert money(shared, org) == (4_000_000, 0, 0)


def test_reservation_commit_is_idempotent(shared, org):
    credit(shared, org, SIX)
    reserve(shared, org, FIVE)
    commit(shared, org, 2_000_000)
    assert commit(shared, org, 2_000_000).replayed
    assert money(shared, org) == (4_000_000, 0, 0)


# Prepaid billing: the end-to-end scenarios that need no call platform


def test_end_to_end_call_reservation_lifecycle(shared, org):
    credit(shared, org, SIX)
    now: datetime = later(0)
    reserve(shared, org, 2_000_000, now=now)
    assert expire(shared, org, now=later(599)) == []
    assert commit(shared, org, 1_000_000, now=later(90)).balance_micros == FIVE
    assert expire(shared, org, now=END) == []
    kinds = [one.kind for one in entries(shared, org)]
    assert kinds == ["opening", "credit", "call"]


# Prepaid billing: load tests


@pytest.mark.parametrize("purchases", [100, 1_000])
def test_load_concurrent_purchases_with_money_for_exactly_one(shared, org, purchases):
    credit(shared, org, 1_150_000)
    jobs = [lambda n=n: buy(shared, org, 1_150_000, f"number-{n}") for n in range(purchases)]
    assert all_at_once(jobs) == {"OK": 1, "INSUFFICIENT_FUNDS": purchases - 1}
    assert money(shared, org) == (0, 0, 0)
    assert [one.kind for one in entries(shared, org)] == ["opening", "credit", "asset"]


def test_load_50_concurrent_reservations_of_one_call(shared, org):
    credit(shared, org, SIX)
    counted = all_at_once([lambda: reserve(shared, org, 1_000_000)] * 50)
    assert counted == {"OK": 1, "replay": 49}
    assert money(shared, org) == (SIX, 1_000_000, 0)


def test_load_purchases_and_reservations_in_conflict(shared, org):
    # Given money for one purchase and one hold, or two of one kind
    credit(shared, org, 2_000_000)
    jobs = [
        (lambda n=n: buy(shared, org, 1_000_000, f"number-{n}"))
        if n % 2
        else (lambda n=n: reserve(shared, org, 1_000_000, f"c{n}"))
        for n in range(60)
    ]
    assert all_at_once(jobs) == {"OK": 2, "INSUFFICIENT_FUNDS": 58}
    balance, held, owed = money(shared, org)
    assert (balance - held, owed) == (0, 0)
