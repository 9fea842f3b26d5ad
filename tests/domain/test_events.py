"""An inbox event is processed once and marked in the same commit."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from base.enums import Provider
from base.facts import OtherReport, PaymentReport, SubscriptionReport
from db.inbox.events import record_outcome, take_event
from db.models import InboxEvent, Job
from domain import events
from tests.domain.support import T0, active_freezes, later, subscribe, subscription


@pytest.fixture
def event_id(shared, org):
    """An event as the inbox stores it."""
    shared.run(
        lambda s: s.execute(
            text(
                "INSERT INTO inbox (id, source, external_id, event_type, body, body_sha256,"
                " correlation_id, received_at) VALUES (:id, 'paypal', :id, 'T', '', sha256(''),"
                " 'cor', :now)"
            ),
            {"id": f"evt_{org}", "now": T0},
        )
    )
    return f"evt_{org}"


def take_in(database, event_id, report, now=T0):
    def work(session):
        event = take_event(session, event_id, now)
        outcome = events.apply_inbox_event(session, event, report, now)
        record_outcome(session, event)
        return outcome

    return database.run(work)


def count_jobs(database):
    return database.run(lambda s: s.query(Job).count())


def test_event_without_a_matching_rule_is_kept_and_ignored(shared, event_id):
    before = count_jobs(shared)
    assert take_in(shared, event_id, OtherReport("T"), later(5)) == "ignored"
    kept = shared.run(lambda s: s.get_one(InboxEvent, event_id))
    assert (kept.outcome, kept.handled_at) == ("ignored", later(5))
    assert count_jobs(shared) == before


def test_payment_event_stages_a_refresh(shared, event_id):
    before = count_jobs(shared)
    report = PaymentReport(Provider.PAYPAL, "capture", "C-1")
    assert take_in(shared, event_id, report) == "handled"
    assert count_jobs(shared) == before + 1


def test_subscription_event_closes_once_and_is_not_handled_again(shared, org, event_id):
    external_id = subscribe(shared, org)
    report = SubscriptionReport(Provider.PAYPAL, external_id, closing=True, occurred_at=None)
    assert take_in(shared, event_id, report, later(5)) == "handled"
    assert active_freezes(shared, org) == {"subscription_inactive"}
    # The report has no time, so it counts from the event's reception
    assert subscription(shared, external_id).reported_at == T0
    before = count_jobs(shared)
    assert take_in(shared, event_id, report, later(9)) == "handled"
    assert subscription(shared, external_id).reports == 1
    assert count_jobs(shared) == before
