"""Operator actions are listed newest first, by filter and in pages."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from base.ids import new_id
from base.operators import Operator
from db.address import driver_url
from db.engine import clock
from domain import operator_actions, organizations
from domain.alerts.alerts import AlertKind, Severity, clear_manually, raise_alert
from domain.alerts.queries import list_alerts
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.rates import Rate, set_rate
from domain.jobs.operator import discard_manually
from domain.operator_notes import record_action
from domain.operator_queries import PAGE_MAX, list_actions
from tests.db.jobs.support import change, claim, fail, stage
from tests.domain.calls.support import CallCustomer
from tests.support.statements import pages_read
from tests.support.world import make_organization

#: Bound in pages for a search that reads its own rows. The whole table has about 400 pages.
_FEW = 60
_CROWD = """
    INSERT INTO operator_acts (id, act, subject, operator, why, acted_at)
    SELECT 'act_00' || lpad(n::text, 24, '0'), 'thresholds.set',
        'org_' || lpad((n % 997)::text, 3, '0'), 'ann', 'x',
        timestamptz '2020-01-01' + n * interval '1 minute'
    FROM generate_series(1, 30000) n
"""


def act(database, subject, *, by="ann", name="test.done", at=None):
    database.run(
        lambda s: record_action(
            s, name, subject, operator=Operator(by, "asked"), now=at or clock(s)
        )
    )


def listed(database, **filters):
    found = database.run(lambda s: list_actions(s, **{"limit": PAGE_MAX, **filters}))
    return [(one.action, one.subject) for one in found]


def test_actions_are_listed_newest_first_by_each_filter(shared):
    subject = new_id("tst")
    at = shared.now()
    for number, by in enumerate(("ann", "bob", "ann")):
        act(shared, f"{subject} {number}", by=by, at=at + timedelta(minutes=number))

    def numbers(**filters):
        return [int(one[-1]) for _, one in listed(shared, subject=subject, **filters)]

    ids = shared.run(lambda s: [one.id for one in list_actions(s, subject=subject, limit=9)])
    assert ids == sorted(ids, reverse=True)
    assert set(numbers()) == {0, 1, 2}
    assert set(numbers(by="ann")) == {0, 2}
    assert numbers(by="an") == []
    assert set(numbers(since=at + timedelta(minutes=1))) == {1, 2}
    assert numbers(since=at + timedelta(minutes=2), by="ann") == [2]
    assert listed(shared, subject=f"{subject} 1") == [("test.done", f"{subject} 1")]
    # A wildcard of LIKE is an ordinary character
    assert listed(shared, subject=subject.replace("_", "%")) == []


def test_pages_stay_stable_while_actions_are_added(shared):
    subject = new_id("tst")
    for number in range(5):
        act(shared, f"{subject} {number}")
    whole = listed(shared, subject=subject)

    pages, after = [], None
    for _ in range(4):
        found = shared.run(lambda s: list_actions(s, subject=subject, after=after, limit=2))  # noqa: B023
        pages += [(one.action, one.subject) for one in found]
        after = found[-1].id if found else after
        # When another action is recorded between two pages
        act(shared, f"{subject} later")

    # Then each earlier action is on exactly one page, and no later one is
    assert pages == whole


def test_an_organization_has_all_actions_on_what_belongs_to_it(shared, org):
    other = make_organization(shared)
    operator = Operator("ann", "asked")

    def work(session):
        now = clock(session)
        brand = organizations.create_brand(
            session, org, name="North", twilio_subaccount_sid=None, now=now
        )
        campaign = organizations.create_campaign(session, brand, name="Spring", now=now)
        operator_actions.start_campaign_manually(session, campaign, operator=operator, now=now)
        operator_actions.enforce_manually(session, org, operator=operator, now=now)
        operator_actions.enforce_manually(session, other, operator=operator, now=now)
        set_rate(session, org, Rate(600_000, 60), operator=operator, now=now)
        add_entry_point(
            session,
            org,
            EntryPointKind.PHONE_NUMBER,
            f"number-{org[-8:]}",
            assistant_id=None,
            brand_id=None,
            operator=operator,
            now=now,
        )
        kind, severity = AlertKind.PAYMENT_UNSETTLED, Severity.INFO
        raise_alert(session, kind, org, "x", severity=severity, details={}, now=now)
        (alert,) = list_alerts(session, organization_id=org)
        clear_manually(session, alert.alert_id, operator=operator, now=now)

    shared.run(work)
    job_id = stage(shared)
    change(shared, job_id, f"organization_id = '{org}'")
    fail(shared, claim(shared, job_id), retry=None)
    shared.run(lambda s: discard_manually(s, job_id, operator=operator, now=clock(s)))

    assert sorted(name for name, _ in listed(shared, organization_id=org)) == [
        "alert.clear",
        "call_door.add",
        "call_rate.set",
        "campaign.start",
        "job.discard",
        "organization.enforce",
    ]
    assert listed(shared, organization_id=other) == [("organization.enforce", other)]
    assert listed(shared, organization_id=org, subject=job_id) == [("job.discard", job_id)]
    assert listed(shared, organization_id=org, by="bob") == []


def test_actions_on_a_call_are_found_by_its_id(shared):
    customer = CallCustomer(shared, make_organization(shared))
    call_id = customer.admit_call()
    act(shared, f"{customer.id} {call_id}", name="call.end")
    expected = [("call.end", f"{customer.id} {call_id}")]
    assert listed(shared, subject=call_id) == expected
    assert listed(shared, organization_id=customer.id, subject=call_id) == expected


@pytest.fixture(scope="module")
def crowd(shared, shared_urls):
    # Connect as the owner, whose statements have no time limit.
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute(_CROWD)
        owner.execute("VACUUM ANALYZE operator_acts")


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"organization_id": "org_005"},
        {"subject": "org_005"},
        {"after": "act_000000000000015000"},
    ],
    ids=["all", "organization", "subject", "page"],
)
def test_list_reads_few_pages_among_many_actions(crowd, shared, filters):
    pages = shared.run(
        lambda session: pages_read(session, lambda s: list_actions(s, **{"limit": 20, **filters}))
    )
    assert 0 < pages <= _FEW
