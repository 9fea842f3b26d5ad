"""The whole path without processes: events, jobs, and effects at the sandbox."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from base.enums import FreezeReason
from base.operators import Operator
from db.models import InboxEvent, Job, WalletEntry
from domain import operator_actions
from domain.entitlement import spending_block
from domain.wallet import freezes as wallet_freezes

TEN = 10_000_000


def event(event_id: str, event_type: str, resource: dict, **more) -> bytes:
    return json.dumps(
        {"id": event_id, "event_type": event_type, "resource": resource, **more}
    ).encode()


def deliver_event(world, event_id, event_type, resource, **more):
    """Receive an event from PayPal, and run all due jobs; return the inbox's verdict."""
    body = event(event_id, event_type, resource, **more)
    verdict = world.receive(event_id, event_type, body)
    world.run_due()
    return verdict


def change_subscription(world, customer, event_id, change, **more):
    """Change the subscription at PayPal, and receive its event."""
    status = {"ACTIVATED": "ACTIVE", "RE-ACTIVATED": "ACTIVE"}.get(change, change)
    world.set_status_at_paypal(customer.subscription_id, status)
    kind = f"BILLING.SUBSCRIPTION.{change}"
    assert deliver_event(world, event_id, kind, {"id": customer.subscription_id}, **more) == "new"


def campaigns(world, customer):
    return [
        (world.campaign(one).status, world.campaign(one).pause_reason)
        for one in customer.campaign_ids
    ]


def freezes(world, organization_id):
    stopping, _ = world.do(
        lambda session, now: wallet_freezes.active_freezes(session, organization_id, now)
    )
    return [row.reason for row in stopping]


def at_twilio(world, customer):
    return [world.twilio_status(sid) for sid in customer.sids]


def in_our_rows(world, customer):
    return [
        (one.twilio_desired, one.twilio_actual, one.twilio_problem)
        for one in world.brands(customer.id)
    ]


def posts(world):
    return len(world.sandbox.requests(provider="twilio", method="POST"))


def may_send(world, customer):
    return world.do(lambda session, now: spending_block(session, customer.id, now))


BY_HAND = ("paused", "manual_pause")
RUNNING = ("running", None)
STOPPED = ("paused", "subscription_inactive")


def is_open(world, customer):
    assert may_send(world, customer) is None
    assert campaigns(world, customer) == [RUNNING, RUNNING, BY_HAND]
    assert freezes(world, customer.id) == []
    assert at_twilio(world, customer) == ["active", "active"]
    # If a subaccount never had to be changed, its state was not requested either.
    known = [
        (desired, actual or "active", why) for desired, actual, why in in_our_rows(world, customer)
    ]
    assert known == [("active", "active", None)] * 2
    return True


def is_shut(world, customer):
    assert may_send(world, customer) == "SUBSCRIPTION_INACTIVE"
    assert campaigns(world, customer) == [STOPPED, STOPPED, BY_HAND]
    assert freezes(world, customer.id) == ["subscription_inactive"]
    assert at_twilio(world, customer) == ["suspended", "suspended"]
    assert in_our_rows(world, customer) == [("suspended", "suspended", None)] * 2
    return True


@pytest.mark.parametrize("ending", ["SUSPENDED", "CANCELLED", "EXPIRED"])
def test_ended_subscription_blocks_all_spending(world, ending):
    # Given a customer that may spend
    customer = world.customer()
    assert is_open(world, customer)

    # When PayPal ends the subscription and reports it, then all spending is blocked
    change_subscription(world, customer, "WH-1", ending)
    assert is_shut(world, customer)
    assert world.subscription(customer.subscription_id).status == ending.lower()
    assert world.wallet(customer.id).balance_micros == 50_000_000


@pytest.mark.parametrize("change", ["ACTIVATED", "RE-ACTIVATED"])
def test_suspension_blocks_spending_and_reactivation_allows_it(world, change):
    customer = world.customer()

    change_subscription(world, customer, "WH-1", "SUSPENDED")
    assert is_shut(world, customer)

    change_subscription(world, customer, "WH-2", change)
    assert is_open(world, customer)


def test_repeated_event_changes_nothing(world):
    # Given a suspended customer
    customer = world.customer()
    change_subscription(world, customer, "WH-1", "SUSPENDED")
    before = (len(world.read(Job)), len(world.read(WalletEntry)), posts(world))

    # When the event arrives again, and its job runs again
    kind = "BILLING.SUBSCRIPTION.SUSPENDED"
    assert deliver_event(world, "WH-1", kind, {"id": customer.subscription_id}) == "duplicate"
    assert world.executor.execute("job_WH-1") == "taken"

    # Then nothing has changed
    assert (len(world.read(Job)), len(world.read(WalletEntry)), posts(world)) == before
    assert is_shut(world, customer)
    assert len(world.read(InboxEvent)) == 1


def test_second_event_of_the_same_kind_under_a_new_id_leaves_twilio_alone(world):
    customer = world.customer()
    change_subscription(world, customer, "WH-1", "SUSPENDED")
    before = posts(world)

    change_subscription(world, customer, "WH-2", "SUSPENDED")

    assert is_shut(world, customer)
    assert posts(world) == before == 2


def test_stale_suspension_blocks_spending_until_paypal_is_queried(world):
    # Given a customer that may spend, and an old suspension that is sent again
    customer = world.customer()
    old = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    kind = "BILLING.SUBSCRIPTION.SUSPENDED"
    body = event("WH-9", kind, {"id": customer.subscription_id}, create_time=old)
    before = posts(world)

    # When it arrives, then spending is blocked at once, and Twilio is not changed
    assert world.receive("WH-9", kind, body) == "new"
    assert world.executor.execute("job_WH-9") == "done"
    assert may_send(world, customer) == "SUBSCRIPTION_INACTIVE"
    assert campaigns(world, customer)[0] == STOPPED
    assert [one.twilio_desired for one in world.brands(customer.id)] == ["active", "active"]

    # And after PayPal was queried, spending is allowed again
    world.run_due()
    assert is_open(world, customer)
    assert posts(world) == before


def test_late_reactivation_of_a_cancelled_subscription_allows_nothing(world):
    # Given a customer with a cancelled subscription
    customer = world.customer()
    change_subscription(world, customer, "WH-1", "CANCELLED")

    # When an old "activated" arrives late
    old = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    kind = "BILLING.SUBSCRIPTION.ACTIVATED"
    deliver_event(world, "WH-2", kind, {"id": customer.subscription_id}, create_time=old)

    # Then the subscription's state at PayPal decides
    assert is_shut(world, customer)


def test_new_subscription_allows_spending_after_a_cancellation(world):
    # Given a customer who cancelled
    customer = world.customer()
    change_subscription(world, customer, "WH-1", "CANCELLED")
    assert is_shut(world, customer)

    # When there is a new subscription
    new = world.sandbox.control(
        "POST",
        "/paypal/subscriptions",
        {"organization_id": customer.id, "status": "ACTIVE", "deliver": False},
    )
    deliver_event(world, "WH-2", "BILLING.SUBSCRIPTION.ACTIVATED", {"id": new["id"]})
    assert is_open(world, customer)

    # Then another event about the end of the old one blocks nothing
    deliver_event(world, "WH-3", "BILLING.SUBSCRIPTION.CANCELLED", {"id": customer.subscription_id})
    assert is_open(world, customer)


def test_manual_freeze_survives_the_reactivation(world):
    # Given a suspended customer whose wallet an operator has frozen too
    customer = world.customer()
    change_subscription(world, customer, "WH-1", "SUSPENDED")
    world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, customer.id, operator=Operator("me", "a doubt"), now=now
        )
    )

    # When the subscription is active again
    change_subscription(world, customer, "WH-2", "ACTIVATED")

    # Then Twilio is active, and spending stays blocked by the operator's freeze
    assert freezes(world, customer.id) == ["manual"]
    assert may_send(world, customer) == "FROZEN_WALLET"
    frozen = ("paused", "wallet_frozen")
    assert campaigns(world, customer) == [frozen, frozen, BY_HAND]
    assert at_twilio(world, customer) == ["active", "active"]

    # When the operator lifts it, then spending is allowed
    world.do(
        lambda session, now: operator_actions.lift_manually(
            session, customer.id, FreezeReason.MANUAL, operator=Operator("me", "cleared"), now=now
        )
    )
    assert is_open(world, customer)


def pay(world, customer, value):
    return world.sandbox.control(
        "POST",
        "/paypal/captures",
        {"organization_id": customer.id, "value": value, "deliver": False},
    )


def captured(world, event_id, capture, value):
    resource = {"id": capture["id"], "amount": {"value": value, "currency_code": "USD"}}
    return deliver_event(world, event_id, "PAYMENT.CAPTURE.COMPLETED", resource)


def test_top_up_is_credited_once_with_the_amount_at_paypal(world):
    # Given a payment of 10 dollars
    customer = world.customer(micros=0)
    capture = pay(world, customer, "10.00")

    # When several events claim that it was 99,999
    for event_id in ("WH-1", "WH-2", "WH-3"):
        captured(world, event_id, capture, "99999.00")

    # Then 10 dollars are credited
    assert world.wallet(customer.id).balance_micros == TEN
    entries = world.read(WalletEntry, organization_id=customer.id)
    moved = [(one.kind, one.amount_micros) for one in entries if one.direction != "note"]
    assert moved == [("topup", TEN)]


def test_payment_unknown_to_paypal_credits_nothing(world):
    customer = world.customer(micros=0)

    captured(world, "WH-1", {"id": "7XX0000000000000A"}, "99999.00")

    assert world.wallet(customer.id).balance_micros == 0


def test_refund_debits_paypals_amount_once(world):
    # Given a customer who paid 10 dollars
    customer = world.customer(micros=0)
    capture = pay(world, customer, "10.00")
    captured(world, "WH-1", capture, "10.00")

    # When 4 of them are refunded, and two events report the refund
    path = f"/paypal/captures/{capture['id']}/refund"
    refund = world.sandbox.control("POST", path, {"value": "4.00", "deliver": False})
    for event_id in ("WH-2", "WH-3"):
        deliver_event(world, event_id, "PAYMENT.CAPTURE.REFUNDED", {"id": refund["id"]})

    # Then 6 are left
    assert world.wallet(customer.id).balance_micros == 6_000_000
    assert campaigns(world, customer) == [RUNNING, RUNNING, BY_HAND]


def test_campaigns_pause_without_money_and_resume_after_a_top_up(world):
    # Given a customer without money
    customer = world.customer(micros=0)
    depleted = ("paused", "wallet_depleted")
    assert campaigns(world, customer) == [depleted, depleted, BY_HAND]

    # When money arrives, then they resume, except the campaign that an operator paused
    captured(world, "WH-1", pay(world, customer, "10.00"), "10.00")
    assert campaigns(world, customer) == [RUNNING, RUNNING, BY_HAND]


def test_top_up_resumes_nothing_while_the_subscription_is_suspended(world):
    # Given a customer without money whose subscription is suspended
    customer = world.customer(micros=0)
    change_subscription(world, customer, "WH-1", "SUSPENDED")
    assert campaigns(world, customer) == [STOPPED, STOPPED, BY_HAND]

    # When money arrives
    captured(world, "WH-2", pay(world, customer, "10.00"), "10.00")

    # Then it is credited, and nothing runs
    assert world.wallet(customer.id).balance_micros == TEN
    assert is_shut(world, customer)


def test_reactivation_without_money_leaves_campaigns_paused_as_depleted(world):
    # Given a suspended customer without money
    customer = world.customer(micros=0)
    change_subscription(world, customer, "WH-1", "SUSPENDED")

    # When the subscription is active again
    change_subscription(world, customer, "WH-2", "ACTIVATED")

    # Then the pause reason is derived again, and Twilio is active
    depleted = ("paused", "wallet_depleted")
    assert campaigns(world, customer) == [depleted, depleted, BY_HAND]
    assert at_twilio(world, customer) == ["active", "active"]
    assert may_send(world, customer) == "INSUFFICIENT_FUNDS"


def test_refund_of_the_whole_balance_pauses_the_campaigns(world):
    customer = world.customer(micros=0)
    capture = pay(world, customer, "10.00")
    captured(world, "WH-1", capture, "10.00")

    path = f"/paypal/captures/{capture['id']}/refund"
    refund = world.sandbox.control("POST", path, {"deliver": False})
    deliver_event(world, "WH-2", "PAYMENT.CAPTURE.REFUNDED", {"id": refund["id"]})

    assert world.wallet(customer.id).balance_micros == 0
    depleted = ("paused", "wallet_depleted")
    assert campaigns(world, customer) == [depleted, depleted, BY_HAND]


def test_another_organization_is_unaffected(world):
    one, other = world.customer(), world.customer()

    change_subscription(world, one, "WH-1", "SUSPENDED")

    assert is_shut(world, one)
    assert is_open(world, other)
