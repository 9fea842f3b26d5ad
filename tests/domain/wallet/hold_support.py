"""Helpers that make and settle holds, and the invariants of a wallet."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from base.operators import Operator
from domain import operator_actions
from domain.wallet import assets, holds
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from tests.domain.support import T0, credit, later, money_state, payment

#: When a hold of these tests ends unless it is extended.
END = later(600)
_OPEN_HOLDS_SUM = text(
    "SELECT coalesce(sum(reserved_micros), 0) FROM call_holds"
    " WHERE organization_id = :org AND status = 'open'"
)


@pytest.fixture
def funded(shared, org):
    """An organization with 100 micros."""
    credit(shared, org, 100)
    return org


def reserve(database, org, amount, call="c1", *, until=END, now=T0, currency="USD", **more):
    return database.run(
        lambda session: holds.reserve(
            session,
            org,
            call_id=call,
            amount_micros=amount,
            currency=currency,
            expires_at=until,
            now=now,
            **more,
        )
    )


def extend(database, org, nth, amount, call="c1", *, until=END, now=T0):
    return database.run(
        lambda session: holds.extend(
            session,
            org,
            call_id=call,
            nth=nth,
            amount_micros=amount,
            expires_at=until,
            now=now,
        )
    )


def commit(database, org, amount, call="c1", *, now=T0, currency="USD"):
    return database.run(
        lambda session: holds.commit(
            session, org, call_id=call, amount_micros=amount, currency=currency, now=now
        )
    )


def release(database, org, call="c1", *, now=T0):
    return database.run(lambda session: holds.release(session, org, call_id=call, now=now))


def expire(database, org, *calls, now=END):
    return database.run(
        lambda session: holds.expire(session, org, call_ids=calls or ("c1",), now=now)
    )


def buy(database, org, amount, key, *, asset="+15005550006", currency="USD", now=T0):
    return database.run(
        lambda session: assets.deduct_asset_cost(
            session,
            org,
            key=key,
            amount_micros=amount,
            currency=currency,
            asset=asset,
            now=now,
        )
    )


def set_limit(database, org, limit, **more):
    given = {"operator": Operator("ann", "good customer"), "now": T0, **more}
    return database.run(
        lambda session: operator_actions.set_debt_limit_manually(
            session, org, limit_micros=limit, **given
        )
    )


def settle(database, org, captured, refunded=0):
    """Settle the organization's one payment."""
    facts = payment(f"P-{org}", org, captured, refunded)
    return database.run(lambda session: wallet.settle(session, org, facts, T0))


def hold(database, org, call="c1"):
    """Read a call's hold, whatever its status."""
    return database.run(lambda session: holds.hold_of_call(session, org, call))


def fate(database, org, call="c1"):
    """Return a hold's status, reserved, captured, released, billed and shortfall."""
    found = hold(database, org, call)
    return (
        found.status,
        found.reserved_micros,
        found.captured_micros,
        found.released_micros,
        found.billed_micros,
        found.shortfall_micros,
    )


def money(database, org):
    """Return balance, held and outstanding amount; check the invariants first."""
    found, in_holds, summed = database.run(
        lambda session: (
            wallet_queries.balance(session, org, T0),
            session.execute(_OPEN_HOLDS_SUM, {"org": org}).scalar_one(),
            wallet_queries.entries_sum(session, org),
        )
    )
    assert found.consistent
    assert found.balance_micros == summed
    assert found.held_micros == in_holds, "held is not the sum of the open holds"
    assert found.owed_micros == 0 or found.available_micros <= 0, "owed although there is money"
    return found.balance_micros, found.held_micros, found.owed_micros


def everything(database, org):
    """Read all that is stored about a wallet and its holds, for comparison."""
    rows = database.run(
        lambda session: session.execute(
            text("SELECT h::text FROM call_holds h WHERE organization_id = :org ORDER BY 1"),
            {"org": org},
        ).all()
    )
    return [*money_state(database, org), rows]


#: The ways in which an open hold of 10 or more is settled.
SETTLING = {
    "commit": lambda database, org: commit(database, org, 10),
    "release": release,
    "expire": expire,
}
