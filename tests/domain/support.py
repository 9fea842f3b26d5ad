"""Helpers for the domain's tests.

The tests choose business time, which starts at T0.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import Provider, SubscriptionStatus
from base.facts import PaymentFacts, SubscriptionFacts, SubscriptionReport
from base.operators import Operator
from db.engine import Database
from db.models import Base, Brand, Campaign, Job, Subscription, WalletEntry, WalletFreeze
from domain import operator_actions, organizations, subscription_refresh, subscriptions
from domain.payments import payments
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from domain.wallet.ledger import WalletOutcome

#: The instant at which every test begins.
T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ANN = Operator("ann", "test")
#: The tables that hold a wallet and everything that belongs to it.
_TABLES = (
    "wallets",
    "wallet_entries",
    "wallet_operations",
    "wallet_freezes",
    "payment_references",
    "payment_refunds",
    "payment_disputes",
)


def later(seconds: float) -> datetime:
    """Return the instant so many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


def money_state(database: Database, org: str) -> list[Any]:
    """Read everything that the ledger stores about an organization, for comparison."""

    def read(session: Session) -> list[Any]:
        return [
            session.execute(
                text(f"SELECT t::text FROM {table} t WHERE organization_id = :org ORDER BY 1"),
                {"org": org},
            ).all()
            for table in _TABLES
        ]

    return database.run(read)


def credit(database: Database, org: str, amount: int, *, key: str = "", **more: Any):
    """Credit in a separate transaction, by default under a new key."""
    return _move(database, wallet.credit, org, amount, key, more)


def debit(database: Database, org: str, amount: int, *, key: str = "", **more: Any):
    """Debit in a separate transaction, by default under a new key."""
    return _move(database, wallet.debit, org, amount, key, more)


def correct(database: Database, org: str, amount: int, *, key: str = "", **more: Any):
    """Correct a balance as an operator with a reason."""
    return _move(
        database, wallet.correct, org, amount, key, {"operator": Operator("ann", "typo"), **more}
    )


def _move(
    database: Database,
    operation: Callable[..., WalletOutcome],
    org: str,
    amount: int,
    key: str,
    more: dict[str, Any],
) -> WalletOutcome:
    values = {"currency": "USD", "now": T0, **more}
    key = key or f"k:{secrets.token_hex(6)}"
    return database.run(
        lambda session: operation(session, org, key=key, amount_micros=amount, **values)
    )


def figures(database: Database, org: str) -> tuple[int, int]:
    """Return a wallet's balance and outstanding amount."""
    found = database.run(lambda session: wallet_queries.balance(session, org, T0))
    assert found.consistent
    return found.balance_micros, found.owed_micros


def entries(database: Database, org: str) -> list[WalletEntry]:
    """List all entries, oldest first."""
    return database.run(
        lambda session: list(
            session.scalars(
                select(WalletEntry).filter_by(organization_id=org).order_by(WalletEntry.entry_no)
            )
        )
    )


def moves(database: Database, org: str) -> list[tuple[str, int]]:
    """List kind and amount of every entry after the opening one, oldest first."""
    return [(one.kind, one.amount_micros) for one in entries(database, org)[1:]]


def active_freezes(database: Database, org: str) -> set[str]:
    """Return the reasons of the active freezes."""
    return {
        row.reason
        for row in database.run(
            lambda session: (
                session.query(WalletFreeze).filter_by(organization_id=org, lifted_at=None).all()
            )
        )
    }


def staged(database: Database, org: str, name: str) -> list[Job]:
    """List the organization's jobs with this name that are not done."""
    return database.run(
        lambda session: (
            session.query(Job)
            .filter_by(organization_id=org, name=name, done_at=None)
            .order_by(Job.id)
            .all()
        )
    )


def columns_of(row: Base) -> dict[str, Any]:
    """Map every column of a row to its value, for comparison."""
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def forget_jobs(database: Database, org: str) -> None:
    """Delete the organization's jobs, so that new ones can be counted."""
    database.run(
        lambda session: session.execute(
            text("DELETE FROM jobs WHERE organization_id = :org"), {"org": org}
        )
    )


def payment(
    external_id: str, org: str | None, captured: int, refunded: int = 0, currency="USD", **more: Any
):
    """Make a payment as PayPal shows it, by default a top-up."""
    more.setdefault("ordered", True)
    return PaymentFacts(Provider.PAYPAL, external_id, org, currency, captured, refunded, **more)


def record_payment(database: Database, facts: PaymentFacts) -> WalletOutcome:
    """Record a payment through the domain's function."""
    return database.run(lambda session: payments.record_payment(session, facts, T0))


def facts(
    external_id: str,
    org: str | None,
    status: str = "active",
    *,
    changed_at: datetime | None = None,
) -> SubscriptionFacts:
    """Make a subscription as PayPal shows it."""
    return SubscriptionFacts(
        Provider.PAYPAL, external_id, SubscriptionStatus(status), org, "P-1", changed_at
    )


def refresh_subscription(
    database: Database,
    external_id: str,
    org: str | None,
    status: str,
    now: datetime = T0,
    *,
    grace_seconds: int = 0,
    **more,
) -> float | None:
    """Refresh a subscription with this status and record it."""
    begun = database.run(
        lambda s: subscription_refresh.begin_refresh(
            s, Provider.PAYPAL, external_id, lease_seconds=60
        )
    )
    answer = facts(external_id, org, status, **more)
    return database.run(
        lambda s: subscriptions.record_refresh(s, begun, answer, now, grace_seconds=grace_seconds)
    )


def subscribe(database: Database, org: str, status: str = "active", now: datetime = T0) -> str:
    """Make a subscription by refreshing it and return its external ID."""
    external_id = f"I-{secrets.token_hex(6).upper()}"
    # The first refresh creates the row; the second runs under its lease and is believed.
    assert refresh_subscription(database, external_id, org, status, now) == 0.0
    assert refresh_subscription(database, external_id, org, status, now) is None
    return external_id


def report_subscription(
    database: Database,
    external_id: str,
    *,
    closing: bool = False,
    opening: bool = False,
    occurred_at: datetime | None = None,
    now: datetime = T0,
):
    """Apply a verified event about a subscription."""
    event = SubscriptionReport(
        Provider.PAYPAL, external_id, closing=closing, occurred_at=occurred_at, opening=opening
    )
    return database.run(lambda session: subscriptions.apply_event(session, event, now, now))


def subscription(database: Database, external_id: str) -> Subscription:
    """Read a subscription's row."""
    return database.run(
        lambda session: session.query(Subscription).filter_by(external_id=external_id).one()
    )


def make_brand(database: Database, org: str) -> str:
    """Make a brand with a subaccount and return its ID."""
    return database.run(
        lambda session: organizations.create_brand(
            session,
            org,
            name="brand",
            twilio_subaccount_sid="AC" + secrets.token_hex(16),
            now=T0,
        )
    )


def make_campaign(database: Database, brand_id: str, *, started: bool = True) -> str:
    """Make a campaign, started as far as the entitlement allows."""

    def work(session: Session) -> str:
        campaign_id = organizations.create_campaign(session, brand_id, name="c", now=T0)
        if started:
            operator_actions.start_campaign(session, campaign_id, T0)
        return campaign_id

    return database.run(work)


def campaign(database: Database, campaign_id: str) -> Campaign:
    """Read a campaign's row."""
    return database.run(lambda session: session.get_one(Campaign, campaign_id))


def brand(database: Database, brand_id: str) -> Brand:
    """Read a brand's row."""
    return database.run(lambda session: session.get_one(Brand, brand_id))
