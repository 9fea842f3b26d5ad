"""suspend: from a closing webhook's answer to the wallet frozen, and to Twilio suspended and read
back, while 100 other webhooks come in each second; and again with 20,000 status callbacks waiting.

Organization after organization loses its subscription. Frozen and suspended are looked for in the
database, as committed; at the end of a round the sandbox's Twilio itself is asked.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from benchmarks.house import House
from benchmarks.measure import Timing, timing
from benchmarks.others import others
from benchmarks.sender import send_all
from benchmarks.webhooks import PayPalSigner, make_subaccounts, paypal_event, twilio_callbacks
from cli.ports import free_ports

_BACKLOG = 20_000
#: Suspensions of a round for each second asked for, one after the other.
_PER_SECOND = 5
_PATIENCE_SECONDS = 60.0
_CLOSED = "BILLING.SUBSCRIPTION.SUSPENDED"

_IS_FROZEN = """
    SELECT EXISTS (SELECT FROM wallet_freezes WHERE organization_id = %s AND lifted_at IS NULL)
"""
_IS_SUSPENDED = """
    SELECT twilio_actual = 'suspended' AND twilio_converged = twilio_generation FROM brands
    WHERE organization_id = %s
"""


@dataclass(frozen=True)
class _Customer:
    organization_id: str
    subscription_id: str
    sid: str


def suspend(house: House, rounds: int, seconds: float) -> list[Timing]:
    """This function will measure both, without and with callbacks waiting."""
    count = max(5, round(_PER_SECOND * seconds))
    (port,) = free_ports(1)
    with house.whole(port):
        figures: list[Timing] = []
        for name, backlog in (("suspend", 0), ("suspend_behind_20000", _BACKLOG)):
            measured = [_round(house, port, count, backlog) for _ in range(rounds)]
            frozen, suspended = zip(*measured, strict=True)
            figures += [
                timing(f"{name}_frozen", "goal: p99 under 100", list(frozen)),
                timing(f"{name}_at_twilio", "goal: p99 under 2,000", list(suspended)),
            ]
        return figures


def _round(house: House, port: int, count: int, backlog: int) -> tuple[list[float], list[float]]:
    house.clear()
    signer = PayPalSigner(house.sandbox["paypal"])
    customers = _make_customers(house, count)
    if backlog:
        _fill(house, port, backlog)
    frozen, suspended = [], []
    with others(house, port, signer), house.bench.owner() as owner:
        for one in customers:
            path = f"/paypal/subscriptions/{one.subscription_id}/status"
            house.control("POST", path, {"status": "SUSPENDED", "deliver": False})
            (request,) = signer.requests([paypal_event(_CLOSED, {"id": one.subscription_id})])
            send_all(port, [request], connections=1)
            answered_at = time.monotonic()
            frozen.append(_until(owner, _IS_FROZEN, one, answered_at))
            suspended.append(_until(owner, _IS_SUSPENDED, one, answered_at))
    for one in customers:
        status = house.control("GET", f"/twilio/subaccounts/{one.sid}")["status"]
        if status != "suspended":
            raise SystemExit(f"wrong: {one.sid} is {status} at Twilio")
    return frozen, suspended


def _until(
    owner: psycopg.Connection, question: str, customer: _Customer, answered_at: float
) -> float:
    while time.monotonic() < answered_at + _PATIENCE_SECONDS:
        row = owner.execute(question, (customer.organization_id,)).fetchone()
        if row is not None and row[0]:
            return time.monotonic() - answered_at
        time.sleep(0.002)
    raise SystemExit(f"{customer} did not come to it in {_PATIENCE_SECONDS:g} s")


def _make_customers(house: House, count: int) -> list[_Customer]:
    customers = []
    sids = [sid for sid, _ in make_subaccounts(house, count)]
    with house.bench.owner() as owner:
        for sid in sids:
            row = owner.execute(
                "UPDATE brands SET twilio_actual = 'active', twilio_converged = twilio_generation"
                " WHERE twilio_subaccount_sid = %s RETURNING organization_id",
                (sid,),
            ).fetchone()
            organization_id = row[0] if row else ""
            asked = {"organization_id": organization_id, "deliver": False}
            subscription_id = house.control("POST", "/paypal/subscriptions", asked)["id"]
            house.subscribe(organization_id, subscription_id)
            customers.append(_Customer(organization_id, subscription_id, sid))
    return customers


def _fill(house: House, port: int, backlog: int) -> None:
    """Has so many callbacks wait in their queue: each is accepted as any other, and rung."""
    accounts = make_subaccounts(house, 1)
    send_all(port, twilio_callbacks(backlog, accounts, house.env["PUBLIC_URL"]), connections=32)
