"""Alerts: one per cause, raised once, and again only after it was cleared."""

from __future__ import annotations

import pytest

from base.operators import Operator
from db.models import OperatorAction
from domain.alerts.alerts import (
    AlertKind,
    AlertNotFound,
    Severity,
    clear_alerts,
    clear_manually,
    raise_alert,
)
from domain.alerts.queries import list_alerts
from tests.db.support import at_once
from tests.domain.support import T0, later
from tests.support.world import make_organization

KIND = AlertKind.TOP_UP_DECLINED


def raised(database, org, subject="paypal", now=T0, kind=KIND, details=None):
    return database.run(
        lambda session: raise_alert(
            session,
            kind,
            org,
            subject,
            severity=Severity.WARNING,
            details=details or {},
            now=now,
        )
    )


def cleared(database, org, *subjects, now=T0):
    return database.run(lambda session: clear_alerts(session, KIND, org, *subjects, now=now))


def listed(database, **where):
    return database.run(lambda session: list_alerts(session, **where))


def test_alert_is_raised_once_and_keeps_its_first_details(shared, org):
    assert raised(shared, org, details={"code": "first"})
    assert not raised(shared, org, now=later(9), details={"code": "second"})
    (row,) = listed(shared, organization_id=org)
    assert (row.raised_at, row.details) == (T0, {"code": "first"})


def test_another_subject_kind_or_organization_is_another_alert(shared, org):
    assert raised(shared, org)
    assert raised(shared, org, "stripe")
    assert raised(shared, org, kind=AlertKind.TOP_UP_CAPPED)
    assert raised(shared, make_organization(shared))


def test_alert_is_raised_once_when_many_threads_raise_it_at_once(shared, org):
    assert at_once([lambda: raised(shared, org)] * 8).count(True) == 1


@pytest.mark.parametrize("company_wide", [True, False])
def test_alert_may_be_raised_again_after_clearing_and_both_are_kept(shared, org, company_wide):
    whose = None if company_wide else org
    raised(shared, whose)
    assert not raised(shared, whose)
    assert cleared(shared, whose, now=later(5)) == 1
    assert cleared(shared, whose) == 0
    assert raised(shared, whose, now=later(9))
    assert cleared(shared, whose) == 1
    rows = [row for row in listed(shared, kind=KIND, cleared=True) if row.organization_id == whose]
    assert [row.raised_at for row in rows] == [later(9), T0]


def test_clearing_one_subject_leaves_the_others(shared, org):
    for subject in ("a", "b", "c"):
        raised(shared, org, subject)
    assert cleared(shared, org, "a", "c", "z") == 2
    assert [row.subject for row in listed(shared, organization_id=org)] == ["b"]


def test_a_list_is_the_newest_first_and_bounded(shared, org):
    for subject in ("a", "b", "c"):
        raised(shared, org, subject)
    assert [row.subject for row in listed(shared, organization_id=org, limit=2)] == ["c", "b"]
    assert listed(shared, organization_id=org, kind=AlertKind.LOW_BALANCE) == []


def by_hand(database, alert_id, now=T0):
    return database.run(
        lambda session: clear_manually(
            session, alert_id, operator=Operator("ann", "dealt with"), now=now
        )
    )


def test_alert_cleared_by_an_operator_records_who_and_why(shared, org):
    raised(shared, org)
    (row,) = listed(shared, organization_id=org)
    assert by_hand(shared, row.alert_id, now=later(5)).cleared_at == later(5)
    assert listed(shared, organization_id=org) == []
    act = shared.run(
        lambda session: session.query(OperatorAction).filter_by(subject=str(row.alert_id)).one()
    )
    assert (act.act, act.operator, act.why) == ("alert.clear", "ann", "dealt with")
    assert raised(shared, org)


def test_alert_cleared_twice_keeps_its_first_clearing(shared, org):
    raised(shared, org)
    (row,) = listed(shared, organization_id=org)
    by_hand(shared, row.alert_id, now=later(5))
    assert by_hand(shared, row.alert_id, now=later(9)).cleared_at == later(5)


def test_clearing_an_unknown_alert_is_refused(shared, org):
    raised(shared, org)
    for nobodys in (10**15, 2**63):
        with pytest.raises(AlertNotFound):
            by_hand(shared, nobodys)
    assert len(listed(shared, organization_id=org)) == 1


def test_alerts_are_listed_in_pages_without_gaps(shared, org):
    for subject in "abc":
        raised(shared, org, subject)
    first = listed(shared, organization_id=org, limit=2)
    assert [row.subject for row in first] == ["c", "b"]
    raised(shared, org, "d")
    after = first[-1].alert_id
    assert [row.subject for row in listed(shared, organization_id=org, after=after)] == ["a"]
