"""Helpers for thresholds, automatic top-up and alerts."""

from __future__ import annotations

import pytest

from base.enums import Provider
from base.operators import Operator
from db.models import Wallet
from domain.alerts.queries import list_alerts
from domain.top_ups import charges as top_up_charges
from domain.top_ups import decisions as top_ups
from domain.top_ups import settings as top_up_settings
from domain.top_ups.rule import TopUpTerms
from domain.top_ups.settings import Method
from domain.wallet import thresholds
from tests.domain.support import T0, credit, debit, payment, subscribe

#: The providers that can charge in these tests.
CHARGEABLE = frozenset({Provider.PAYPAL})
CARD = Method(Provider.PAYPAL, "card-1")
#: Below 50 micros, charge 100; at most 250 and three charges in 24 hours.
TERMS = TopUpTerms(below_micros=50, amount_micros=100, day_cap_micros=250, day_cap_count=3)


@pytest.fixture
def low(shared, org):
    """A subscriber with 40 micros, below its automatic top-up's level after a debit."""
    subscribe(shared, org)
    credit(shared, org, 100)
    switch_on(shared, org)
    debit(shared, org, 60)
    return org


AGREED = Operator("ann", "agreed")


def set_thresholds(database, org, *micros, now=T0, operator=AGREED):
    return database.run(
        lambda session: thresholds.set_thresholds(session, org, micros, operator=operator, now=now)
    )


def rearm(database, org, now=T0):
    return database.run(
        lambda session: thresholds.rearm_thresholds(
            session, org, operator=Operator("bob", "fixed"), now=now
        )
    )


def crossed(database, org):
    """List the thresholds that are crossed and not armed again, ascending."""
    rows = database.run(lambda session: thresholds.thresholds_of(session, org))
    return sorted(row.threshold_micros for row in rows if not row.armed)


def notice(database, org):
    """Return the level with which the wallet is compared."""
    return database.run(lambda session: session.get_one(Wallet, org).notice_below_micros)


def alert_subjects(database, org, *, cleared=True, kind="low_balance"):
    """List the subjects of all alerts, or only of the open ones, oldest first."""
    rows = database.run(
        lambda session: list_alerts(session, organization_id=org, kind=kind, cleared=cleared)
    )
    return [row.subject for row in reversed(rows)]


def open_alert_subjects(database, org, kind="low_balance"):
    """List the subjects of the open alerts."""
    return alert_subjects(database, org, cleared=False, kind=kind)


def top_up(database, org, amount):
    """Credit a top-up."""
    return credit(database, org, amount, kind="topup", counter_account="topup_clearing", now=T0)


def switch_on(database, org, terms=TERMS, *, method=CARD, chargeable=CHARGEABLE, now=T0):
    return database.run(
        lambda session: top_up_settings.switch_on(
            session,
            org,
            terms,
            method,
            chargeable=chargeable,
            operator=AGREED,
            now=now,
        )
    )


def switch_off(database, org, now=T0):
    return database.run(
        lambda session: top_up_settings.switch_off(
            session, org, operator=Operator("ann", "asked"), now=now
        )
    )


def decide(database, org, now=T0, *, chargeable=CHARGEABLE):
    return database.run(lambda session: top_ups.decide(session, org, now, chargeable=chargeable))


def decisions(database, org):
    """List an organization's decisions, oldest first."""
    return database.run(lambda session: top_ups.decisions_of(session, org, 100))[::-1]


def states(database, org):
    return [str(one.state) for one in decisions(database, org)]


def begin(database, decision_id, now=T0, *, chargeable=CHARGEABLE):
    return database.run(
        lambda session: top_up_charges.begin_charge(
            session, decision_id, now, chargeable=chargeable
        )
    )


def charged(database, org, decision_id, now=T0, *, captured=100, external_id="", facts=None):
    facts = facts or payment(external_id or f"PAY-{decision_id}", org, captured)
    database.run(lambda session: top_up_charges.record_charged(session, decision_id, facts, now))


def declined(database, decision_id, now=T0, code="card_declined"):
    database.run(lambda session: top_up_charges.record_declined(session, decision_id, code, now))


def settings(database, org):
    return database.run(lambda session: top_up_settings.settings_of(session, org))
