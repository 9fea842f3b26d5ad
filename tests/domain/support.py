"""What tests of the domain build and look at. Business time is theirs: it starts at T0."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import Provider, SubscriptionStatus
from base.facts import PaymentFacts, SubscriptionFacts, SubscriptionReport
from db.engine import Database
from db.models import Base, Brand, Campaign, Job, Subscription, WalletEntry, WalletFreeze
from domain import operator_actions as operators
from domain import organizations, subscriptions
from domain.payments import payments
from domain.wallet import operations as wallet
from domain.wallet import queries as books
from domain.wallet.ledger import WalletOutcome

#: The instant at which every test begins.
T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
#: What a wallet, its entries and all that hangs on it look like to whoever may read them.
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
    """This function will give the instant so many seconds after the beginning."""
    return T0 + timedelta(seconds=seconds)


def money_state(database: Database, org: str) -> list[Any]:
    """This function will read everything the ledger knows of an organization, to compare."""

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
    """This function will credit in a transaction of its own, under a new key if none is given."""
    return _move(database, wallet.credit, org, amount, key, more)


def debit(database: Database, org: str, amount: int, *, key: str = "", **more: Any):
    """This function will debit in a transaction of its own, under a new key if none is given."""
    return _move(database, wallet.debit, org, amount, key, more)


def correct(database: Database, org: str, amount: int, *, key: str = "", **more: Any):
    """This function will correct a balance, by an operator and with a reason."""
    return _move(
        database, wallet.correct, org, amount, key, {"operator": "ann", "why": "typo", **more}
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
    """This function will give a wallet's balance and what it owes."""
    found = database.run(lambda session: books.balance(session, org, T0))
    assert found.consistent
    return found.balance_micros, found.owed_micros


def entries(database: Database, org: str) -> list[WalletEntry]:
    """This function will give all entries, oldest first."""
    return database.run(
        lambda session: list(
            session.scalars(
                select(WalletEntry).filter_by(organization_id=org).order_by(WalletEntry.entry_no)
            )
        )
    )


def moves(database: Database, org: str) -> list[tuple[str, int]]:
    """This function will give kind and amount of every entry but the opening one, oldest first."""
    return [(one.kind, one.amount_micros) for one in entries(database, org)[1:]]


def standing(database: Database, org: str) -> set[str]:
    """This function will give the reasons of the freezes that are not lifted."""
    return {
        row.reason
        for row in database.run(
            lambda session: (
                session.query(WalletFreeze).filter_by(organization_id=org, lifted_at=None).all()
            )
        )
    }


def staged(database: Database, org: str, name: str) -> list[Job]:
    """This function will give the organization's jobs of a name that are not done."""
    return database.run(
        lambda session: (
            session.query(Job)
            .filter_by(organization_id=org, name=name, done_at=None)
            .order_by(Job.id)
            .all()
        )
    )


def columns_of(row: Base) -> dict[str, Any]:
    """This function will give every column of a row that was read, to compare."""
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def forget_jobs(database: Database, org: str) -> None:
    """This function will remove the organization's jobs, so that new ones can be counted."""
    database.run(
        lambda session: session.execute(
            text("DELETE FROM jobs WHERE organization_id = :org"), {"org": org}
        )
    )


def payment(
    external_id: str, org: str | None, captured: int, refunded: int = 0, currency="USD", **more: Any
):
    """This function will make a payment as PayPal would show it: a top-up's, if nothing is said."""
    more.setdefault("ordered", True)
    return PaymentFacts(Provider.PAYPAL, external_id, org, currency, captured, refunded, **more)


def record_payment(database: Database, facts: PaymentFacts) -> WalletOutcome:
    """This function will record a payment by the domain's own door."""
    return database.run(lambda session: payments.record_payment(session, facts, T0))


def facts(
    external_id: str,
    org: str | None,
    status: str = "active",
    *,
    changed_at: datetime | None = None,
) -> SubscriptionFacts:
    """This function will make a subscription as PayPal would show it."""
    return SubscriptionFacts(
        Provider.PAYPAL, external_id, SubscriptionStatus(status), org, "P-1", changed_at
    )


def look(
    database: Database,
    external_id: str,
    org: str | None,
    status: str,
    now: datetime = T0,
    *,
    grace_seconds: int = 0,
    **more,
) -> float | None:
    """This function will look at a subscription, be answered, and record it."""
    begun = database.run(
        lambda s: subscriptions.begin_look(s, Provider.PAYPAL, external_id, lease_seconds=60)
    )
    answer = facts(external_id, org, status, **more)
    return database.run(
        lambda s: subscriptions.record_look(s, begun, answer, now, grace_seconds=grace_seconds)
    )


def subscribe(database: Database, org: str, status: str = "active", now: datetime = T0) -> str:
    """This function will make a subscription by the provider's word and give its external id."""
    external_id = f"I-{secrets.token_hex(6).upper()}"
    # The first look makes the row; one under its lease is believed.
    assert look(database, external_id, org, status, now) == 0.0
    assert look(database, external_id, org, status, now) is None
    return external_id


def tell(
    database: Database,
    external_id: str,
    *,
    closing: bool = False,
    opening: bool = False,
    occurred_at: datetime | None = None,
    now: datetime = T0,
):
    """This function will take in a verified event about a subscription."""
    event = SubscriptionReport(
        Provider.PAYPAL, external_id, closing=closing, occurred_at=occurred_at, opening=opening
    )
    return database.run(lambda session: subscriptions.report(session, event, now, now))


def subscription(database: Database, external_id: str) -> Subscription:
    """This function will read a subscription's row."""
    return database.run(
        lambda session: session.query(Subscription).filter_by(external_id=external_id).one()
    )


def make_brand(database: Database, org: str) -> str:
    """This function will make a brand with a subaccount and give its id."""
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
    """This function will make a campaign, started as far as the posture allows."""

    def work(session: Session) -> str:
        campaign_id = organizations.create_campaign(session, brand_id, name="c", now=T0)
        if started:
            operators.start_campaign(session, campaign_id, T0)
        return campaign_id

    return database.run(work)


def campaign(database: Database, campaign_id: str) -> Campaign:
    """This function will read a campaign's row."""
    return database.run(lambda session: session.get_one(Campaign, campaign_id))


def brand(database: Database, brand_id: str) -> Brand:
    """This function will read a brand's row."""
    return database.run(lambda session: session.get_one(Brand, brand_id))
