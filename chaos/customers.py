"""The customers of a run: organizations that pay, send and take calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from base.operators import Operator
from chaos.facts import Customer
from chaos.system import System
from domain import operator_actions, organizations
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.rates import Rate, set_rate
from domain.calls.settings import Terms, set_terms
from domain.jobs.staging import stage
from domain.jobs.types import REFRESH_PAYMENT, REFRESH_SUBSCRIPTION

#: The operator of every setting that the run makes.
DRILL = Operator("chaos", "a drill")
#: The price of calls and how they are metered. Calls last seconds, because the faults do.
CALL_RATE = Rate(micros_per_minute=60_000, increment_seconds=1, minimum_micros=500)
CALL_TERMS = Terms(step_seconds=6, margin_seconds=3, warn_before_seconds=4, max_duration_seconds=20)
#: Settings for calls that ignore their maximum duration: the shortest maximum that is allowed, and
#: money for many calls.
_OVERLONG_SECONDS = 10
_OVERLONG_DOLLARS = "50.00"
#: The campaign's budget: enough for the shortest holds of twenty contacts, or for about a hundred
#: short calls. With a larger budget, a slow machine could not admit enough contacts at once to
#: reach the limit.
_CAMPAIGN_DOLLARS = "0.12"
#: The campaign's ID at Vapi.
CAMPAIGN_ID = "chaos-campaign"


def make_customers(system: System, count: int, *, drilled: int = 0) -> list[Customer]:
    """Create organizations with a brand, two campaigns and a subscription.

    The last third of `count` is poor. `drilled` more organizations are created for the drills.
    """
    customers = [
        _make_customer(system, n, poor=n >= count * 2 // 3) for n in range(count + drilled)
    ]
    system.drilled = customers[count:]
    _subscribe(system, customers)
    return customers


def make_overlong(system: System, number: int) -> Customer:
    """Create the organization that receives calls that ignore their maximum duration."""
    customer = _make_customer(system, number, poor=False)
    terms = replace(CALL_TERMS, max_duration_seconds=_OVERLONG_SECONDS)
    system.do(
        lambda session, now: set_terms(
            session, customer.organization_id, terms, operator=DRILL, now=now
        )
    )
    _subscribe(system, [customer])
    pay(system, customer, _OVERLONG_DOLLARS)
    return customer


def make_campaigner(system: System, number: int) -> Customer:
    """Create the organization whose campaign dials contacts.

    Its balance is paid once and never refilled.
    """
    customer = _make_customer(system, number, poor=False)
    system.do(
        lambda session, now: add_entry_point(
            session,
            customer.organization_id,
            EntryPointKind.CAMPAIGN,
            CAMPAIGN_ID,
            operator=DRILL,
            now=now,
        )
    )
    _subscribe(system, [customer])
    pay(system, customer, _CAMPAIGN_DOLLARS)
    return customer


def pay(system: System, customer: Customer, dollars: str) -> None:
    """Make a payment at the sandbox's PayPal and stage the job that reads it."""
    order = {"organization_id": customer.organization_id, "value": dollars, "deliver": False}
    external_id = system.control("POST", "/paypal/captures", order)["id"]
    system.do(
        lambda session, _: stage(
            session,
            REFRESH_PAYMENT,
            None,
            provider="paypal",
            kind="capture",
            external_id=external_id,
        )
    )


def _subscribe(system: System, customers: list[Customer]) -> None:
    for customer in customers:
        subscription = system.control(
            "POST",
            "/paypal/subscriptions",
            {"organization_id": customer.organization_id, "deliver": False},
        )
        customer.subscription_id = subscription["id"]
        system.do(
            lambda session, _, customer=customer: stage(  # type: ignore[misc]
                session,
                REFRESH_SUBSCRIPTION,
                None,
                provider="paypal",
                external_id=customer.subscription_id,
            )
        )


def _make_customer(system: System, number: int, *, poor: bool) -> Customer:
    sid = system.control("POST", "/twilio/subaccounts", {"friendly_name": f"brand {number}"})["sid"]
    assistant_id = system.control("POST", "/vapi/assistants", {"name": f"voice {number}"})["id"]
    number_id = system.control(
        "POST", "/vapi/numbers", {"number": f"+150055501{number:02d}", "twilio_sid": sid}
    )["id"]

    def work(session: Session, now: datetime) -> Customer:
        organization_id = organizations.create_organization(
            session, name=f"customer {number}", currency="USD", now=now
        )
        brand_id = organizations.create_brand(
            session, organization_id, name="brand", twilio_subaccount_sid=sid, now=now
        )
        campaign_ids = [
            organizations.create_campaign(session, brand_id, name=name, now=now)
            for name in ("automatic", "manual")
        ]
        _set_up_calls(session, organization_id, number_id, assistant_id, now=now)
        for campaign_id in campaign_ids:
            operator_actions.start_campaign(session, campaign_id, now)
        operator_actions.pause_campaign(session, campaign_ids[1], now)
        return Customer(organization_id, poor, sid, campaign_ids, number_id=number_id)

    return system.do(work)


def _set_up_calls(
    session: Session,
    organization_id: str,
    number_id: str,
    assistant_id: str,
    *,
    now: datetime,
) -> None:
    set_rate(session, organization_id, CALL_RATE, operator=DRILL, now=now)
    set_terms(session, organization_id, CALL_TERMS, operator=DRILL, now=now)
    add_entry_point(
        session,
        organization_id,
        EntryPointKind.PHONE_NUMBER,
        number_id,
        assistant_id=assistant_id,
        operator=DRILL,
        now=now,
    )
