"""A worker dies after its request has left, and the request takes effect later."""

from __future__ import annotations

import json
from dataclasses import replace

from db.models import Brand, Job
from tests.support.world import WAITS
from tests.workers.scenes import (
    asked,
    eventually,
    execute_sql,
    held,
    release,
    set_leases_over,
    set_unsure_over,
)

#: A lost request stays possible until the test ends it.
LONG = replace(WAITS, unsure_seconds=30)


def test_dead_workers_late_suspension_is_reversed_after_the_reactivation(world, processes):
    # Given a customer with one brand, suspended at PayPal, and a worker whose request to suspend
    # the subaccount has left and is not answered
    customer = world.customer()
    sid, brand_id = customer.sids[0], customer.brand_ids[0]
    execute_sql(world, "UPDATE brands SET twilio_subaccount_sid = NULL WHERE id <> %s", brand_id)
    fault = world.sandbox.fault(
        "twilio", "hold", match={"method": "POST", "form": {"Status": "suspended"}}
    )
    change_subscription(world, customer, "WH-1", "SUSPENDED")
    first = processes.worker("safety", waits=LONG)
    processes.relay()
    assert held(world, fault)

    looked = asked(world, sid, "GET")

    # When that worker is killed, and PayPal reactivates the subscription
    first.kill()
    change_subscription(world, customer, "WH-2", "ACTIVATED")
    processes.worker("safety", waits=LONG)

    # Then the new worker sends nothing about it to Twilio while the dead worker's lease lasts
    assert eventually(lambda: reactivation(world).postponements >= 2)
    assert brand(world, brand_id).twilio_desired == "active"
    assert (asked(world, sid, "POST"), asked(world, sid, "GET")) == (1, looked)

    # And when the lease is over, it finds the subaccount active and keeps reading it, because the
    # lost request may still take effect. Without that, the two jobs would read it once each
    set_leases_over(world)
    assert eventually(lambda: asked(world, sid, "GET") >= looked + 3)
    assert eventually(lambda: brand(world, brand_id).twilio_converged == 2)
    assert brand(world, brand_id).twilio_actual == "active"
    assert not nothing_left(world)
    assert statuses(world, sid) == ["active"]

    # When the dead worker's request takes effect now
    release(world, fault)
    assert statuses(world, sid)[:2] == ["active", "suspended"]

    # Then the subaccount is activated again without an operator, at Twilio and in our row
    assert eventually(lambda: world.twilio_status(sid) == "active")
    set_unsure_over(world)
    assert eventually(lambda: nothing_left(world))
    assert statuses(world, sid) == ["active", "suspended", "active"]
    row = brand(world, brand_id)
    assert (row.twilio_actual, row.twilio_desired) == ("active", "active")
    assert row.twilio_converged == row.twilio_generation


def change_subscription(world, customer, event_id, change):
    status = {"ACTIVATED": "ACTIVE"}.get(change, change)
    world.set_status_at_paypal(customer.subscription_id, status)
    kind = f"BILLING.SUBSCRIPTION.{change}"
    body = {"id": event_id, "event_type": kind, "resource": {"id": customer.subscription_id}}
    world.receive(event_id, kind, json.dumps(body).encode())
    world.due_now()


def reactivation(world):
    """Return the job that the reactivation staged for the subaccount."""

    def found():
        jobs = world.read(Job, name="converge_twilio", correlation_id="cor_WH-2")
        return jobs[0] if jobs else None

    assert eventually(lambda: found() is not None)
    return found()


def nothing_left(world):
    return all(job.ring_at is None for job in world.read(Job))


def brand(world, brand_id):
    return world.read(Brand, id=brand_id)[0]


def statuses(world, sid):
    history = world.sandbox.control("GET", f"/twilio/subaccounts/{sid}")["history"]
    return [one["status"] for one in history]
