"""Enforcement repairs new brands, mended subaccounts and jobs that were refused."""

from __future__ import annotations

from db.jobs import operator as job_operator
from db.models import Job
from domain import organizations
from domain.enforcement import enforce_entitlement


def test_new_brand_is_activated_for_an_organization_that_may_spend(world):
    # Given a subaccount that is suspended at Twilio
    customer = world.customer()
    subaccount = world.sandbox.control("POST", "/twilio/subaccounts", {"friendly_name": "new"})
    sid = subaccount["sid"]
    world.sandbox.control("POST", f"/twilio/subaccounts/{sid}", {"status": "suspended"})

    # When a brand with it is added, Then it is activated and read back
    brand_id = world.do(
        lambda session, now: organizations.create_brand(
            session, customer.id, name="new", twilio_subaccount_sid=sid, now=now
        )
    )
    world.run_due()
    brand = next(one for one in world.brands(customer.id) if one.id == brand_id)
    assert world.twilio_status(sid) == "active"
    assert (brand.twilio_actual, brand.twilio_converged) == ("active", 0)


def test_repaired_subaccount_is_activated_when_its_job_is_redriven(world):
    # Given a subaccount that Twilio itself had suspended, which needs an operator
    customer = world.customer()
    sid = customer.sids[0]
    path = f"/twilio/subaccounts/{sid}"
    world.sandbox.control("POST", path, {"suspended_by_twilio": True})
    world.do(lambda session, now: enforce_entitlement(session, customer.id, now, heal=True))
    world.stage("converge_twilio", brand_id=customer.brand_ids[0])
    world.run_due()
    assert world.brands(customer.id)[0].twilio_problem == "SUSPENDED_BY_TWILIO"

    # When it is mended at Twilio and the refused job is redriven
    world.sandbox.control("POST", path, {"suspended_by_twilio": False, "status": "suspended"})
    refused = max((one.id for one in world.read(Job) if one.outcome == "refused"), default="")
    assert world.do(lambda session, _: job_operator.redrive(session, refused))
    world.run_due()

    # Then it is active, and no problem is left
    assert world.twilio_status(sid) == "active"
    assert world.brands(customer.id)[0].twilio_problem is None
