"""The whole way without processes: events in, jobs run, effects at the sandbox."""

from __future__ import annotations

import json


def event(event_type: str, resource: dict, **more) -> bytes:
    return json.dumps(
        {"id": "WH-1", "event_type": event_type, "resource": resource, **more}
    ).encode()


def test_a_suspension_closes_every_door_and_a_reactivation_opens_them(world):
    # Given a customer in good standing
    customer = world.customer()
    assert [world.twilio_status(sid) for sid in customer.sids] == ["active", "active"]
    assert world.campaign(customer.campaign_ids[0]).status == "running"

    # When PayPal suspends the subscription and says so
    world.sandbox.control(
        "POST",
        f"/paypal/subscriptions/{customer.subscription_id}/status",
        {"status": "SUSPENDED", "deliver": False},
    )
    body = event("BILLING.SUBSCRIPTION.SUSPENDED", {"id": customer.subscription_id})
    assert world.receive("WH-1", "BILLING.SUBSCRIPTION.SUSPENDED", body) == "new"
    print(world.run_due())

    # Then everything is closed, at Twilio too, and the pause by hand is untouched
    states = [world.campaign(one).pause_reason for one in customer.campaign_ids]
    assert states == ["subscription_inactive", "subscription_inactive", "manual_pause"]
    assert [world.twilio_status(sid) for sid in customer.sids] == ["suspended", "suspended"]
