"""What was out of line is brought back: new brands, mended subaccounts, jobs that were refused."""

from __future__ import annotations

from db.jobs import operator as job_acts
from db.models import Job
from domain import organizations
from domain.enforcement import apply_posture


def test_a_new_brand_is_brought_in_line_with_an_organization_in_good_standing(world):
    # Given a subaccount that is suspended at Twilio
    customer = world.customer()
    subaccount = world.sandbox.control("POST", "/twilio/subaccounts", {"friendly_name": "new"})
    sid = subaccount["sid"]
    world.sandbox.control("POST", f"/twilio/subaccounts/{sid}", {"status": "suspended"})

    # When a brand with it is added, then it is made active and read back
    brand_id = world.do(
        lambda session, now: organizations.create_brand(
            session, customer.id, name="new", twilio_subaccount_sid=sid, now=now
        )
    )
    world.run_due()
    brand = next(one for one in world.brands(customer.id) if one.id == brand_id)
    assert world.twilio_status(sid) == "active"
    assert (brand.twilio_actual, brand.twilio_converged) == ("active", 0)


def test_a_mended_subaccount_is_brought_in_line_when_the_posture_is_enforced(world):
    # Given a subaccount that Twilio itself had suspended, so that a person had to act
    customer = world.customer()
    sid = customer.sids[0]
    path = f"/twilio/subaccounts/{sid}"
    world.sandbox.control("POST", path, {"suspended_by_twilio": True})
    world.do(lambda session, now: apply_posture(session, customer.id, now, heal=True))
    world.stage("converge_twilio", brand_id=customer.brand_ids[0])
    world.run_due()
    assert world.brands(customer.id)[0].twilio_problem == "SUSPENDED_BY_TWILIO"

    # When it is mended at Twilio and the refused job is driven again
    world.sandbox.control("POST", path, {"suspended_by_twilio": False, "status": "suspended"})
    refused = max((one.id for one in world.read(Job) if one.outcome == "refused"), default="")
    assert world.do(lambda session, _: job_acts.redrive(session, refused))
    world.run_due()

    # Then it is active, and nothing is left for a person
    assert world.twilio_status(sid) == "active"
    assert world.brands(customer.id)[0].twilio_problem is None
