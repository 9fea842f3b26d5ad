"""Steps of the database's clock: waits keep their length, and an alert is raised.

A clock that steps back leaves rows whose instants are an hour ahead. The rows in these tests have
such instants.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from base.enums import Provider
from db.clock_watch import Step
from db.jobs import due
from db.models import Alert
from domain import clock_steps, subaccounts, subscription_refresh
from domain.calls import reconcile as watch
from domain.calls import tick as ticks
from domain.calls.admission import withdraw
from domain.calls.permission import PERMISSION_SECONDS
from domain.calls.reconcile import expire_unreported
from tests.db.jobs.support import change, claim, finish, seconds_until, stage
from tests.domain.calls.support import CallCustomer, execute
from tests.domain.calls.test_permission import Campaign
from tests.domain.support import subscribe
from tests.support.world import make_organization

HOUR = timedelta(hours=1)


@pytest.fixture
def fresh_customer(database):
    return CallCustomer(database, make_organization(database))


def step(database, seconds=-3_600.0, within=1.0):
    now = database.now()
    found = Step(now - timedelta(seconds=seconds), now, seconds, within)
    database.run(lambda session: clock_steps.correct_clock_step(session, found))
    return now


def open_alerts(database):
    rows = database.run(lambda s: s.query(Alert).filter_by(kind="clock_stepped").all())
    return [one for one in rows if one.cleared_at is None]


def talking(customer, *, talked, seconds=30, ahead=HOUR):
    """Make a call that has talked for so long, by a clock that was then set back."""
    now = customer.database.now()
    customer.reserve(seconds=seconds, now=now)
    customer.report_status(customer.call(), "in_progress", now)
    execute(
        customer.database,
        "UPDATE calls SET metered_from = :began, tick_at = :tick_at",
        began=now + ahead - timedelta(seconds=talked),
        tick_at=now + ahead + timedelta(seconds=5),
    )


def tick(customer):
    now = customer.database.now()
    assert customer.id in customer.do(lambda session: ticks.due_organizations(session, now, 10))
    return customer.tick(now)


@pytest.mark.parametrize(("talked", "ended"), [(10, 0), (29, 1)])
def test_call_has_talked_as_long_after_a_step_back(fresh_customer, talked, ended):
    # Given an organization whose money is all held for calls, and a clock set back by an hour
    fresh_customer.reserve("c0", seconds=70, now=fresh_customer.database.now())
    talking(fresh_customer, talked=talked)
    # When the step is settled, and the call ticked
    now = step(fresh_customer.database)
    call = fresh_customer.call()
    assert (now - call.metered_from).total_seconds() == pytest.approx(talked, abs=5)
    assert call.tick_at == now
    # Then it is ended only if its money is nearly used up
    assert tick(fresh_customer).ended == ended
    assert (fresh_customer.call().end_decided_at is not None) == bool(ended)


def test_call_that_began_after_the_step_keeps_its_meter(fresh_customer):
    talking(fresh_customer, talked=0.5, ahead=timedelta())
    before = fresh_customer.call().metered_from
    step(fresh_customer.database, within=30.0)
    assert fresh_customer.call().metered_from == before


def test_call_is_ticked_when_its_tick_is_further_ahead_than_any(fresh_customer):
    talking(fresh_customer, talked=10)
    tick(fresh_customer)
    # And no tick is ever more than a minute ahead
    execute(fresh_customer.database, "UPDATE calls SET metered_from = clock_timestamp()")
    fresh_customer.pay(100_000)
    fresh_customer.terms(step_seconds=3_000)
    now = fresh_customer.database.now()
    execute(fresh_customer.database, "UPDATE calls SET tick_at = :now", now=now)
    fresh_customer.tick(now + timedelta(seconds=28))
    wait = (fresh_customer.call().tick_at - now).total_seconds()
    assert wait == pytest.approx(28 + 60, abs=0.01)


def test_permission_is_held_as_long_as_meant_after_a_step_back(database):
    # Given a contact that was permitted just before the clock was set back by an hour
    campaign = Campaign(database, make_organization(database), cents=100)
    now = database.now()
    permitted = campaign.permit(now=now + HOUR)
    # When the step is settled
    assert step(database) >= now
    expires_at = campaign.hold(permitted.call_id).expires_at
    assert (expires_at - now).total_seconds() == pytest.approx(PERMISSION_SECONDS, abs=0.001)
    # Then the hold is returned when its time is over, and not an hour later
    early, due = expires_at - timedelta(seconds=1), expires_at
    assert campaign.do(lambda s: expire_unreported(s, campaign.id, early)) == []
    assert campaign.do(lambda s: expire_unreported(s, campaign.id, due)) == [permitted.call_id]
    assert campaign.cents() == (100, 0, 0)


def test_hold_of_the_future_is_pulled_back_by_the_sweep(database):
    # Given a hold committed after the step was settled, with an instant from before it
    campaign = Campaign(database, make_organization(database), cents=100)
    now = step(database)
    permitted = campaign.permit(now=now + HOUR)
    nearly = campaign.permit("2", now=now + timedelta(seconds=30))
    before = campaign.hold(nearly.call_id).expires_at
    # When calls are swept twice
    for seconds in (1, 16):
        swept_at = now + timedelta(seconds=seconds)
        campaign.do(lambda s, at=swept_at: watch.sweep(s, at, report_seconds=60, silent_seconds=60))
    # Then it expires as if made at the first sweep, and the other hold as planned
    hold = campaign.hold(permitted.call_id)
    assert hold.expires_at == now + timedelta(seconds=1 + PERMISSION_SECONDS)
    assert campaign.hold(nearly.call_id).expires_at == before
    assert campaign.do(lambda s: expire_unreported(s, campaign.id, hold.expires_at))


def test_hold_keeps_its_end_when_it_was_made_since_or_is_over(database):
    # Given a hold made after the clock was set back, and one that was returned before
    campaign = Campaign(database, make_organization(database), cents=200)
    now = database.now()
    since = campaign.permit("1", now=now).call_id
    over = campaign.permit("2", now=now + HOUR).call_id
    campaign.do(lambda s: withdraw(s, campaign.id, over, now + HOUR + timedelta(seconds=1)))
    ends = [campaign.hold(one).expires_at for one in (since, over)]
    # When the step is settled, Then neither expiry is moved
    step(database)
    assert [campaign.hold(one).expires_at for one in (since, over)] == ends
    assert campaign.cents() == (200, 60, 0)


def test_job_waits_as_long_as_meant_after_a_step_back(database):
    # Given a retry due in 10 s, a job staged for 3 days and a lease of 20 s, each an hour ahead
    retry, later, leased = stage(database), stage(database), stage(database)
    claim(database, retry)
    claim(database, leased)
    hour = "clock_timestamp() + interval '1 hour"
    change(database, retry, f"due_at = {hour} 10 s', ring_at = {hour} 10 s', lease_until = NULL")
    change(database, later, f"due_at = {hour} 3 days', ring_at = {hour} 3 days'")
    change(database, leased, f"lease_until = {hour} 20 s', ring_at = {hour} 20 s'")
    for job_id in (retry, later, leased):
        change(database, job_id, f"staged_at = {hour}'")
    step(database)
    assert seconds_until(database, retry, "due_at") == pytest.approx(10, abs=5)
    assert seconds_until(database, retry, "ring_at") == pytest.approx(10, abs=5)
    assert seconds_until(database, later, "due_at") == pytest.approx(3 * 86_400, abs=5)
    assert seconds_until(database, leased, "lease_until") == pytest.approx(20, abs=5)
    assert seconds_until(database, leased, "ring_at") == pytest.approx(20, abs=5)


def test_instants_written_after_the_step_stay(database):
    leased, staged = stage(database), stage(database, delay=600)
    claim(database, leased, lease=30)
    # The job is older than the step, and only its lease is new
    change(database, leased, "staged_at = clock_timestamp() - interval '1 minute'")
    step(database, within=5.0)
    assert seconds_until(database, leased, "lease_until") == pytest.approx(30, abs=5)
    assert seconds_until(database, staged, "due_at") == pytest.approx(600, abs=5)


def test_retry_is_due_when_it_is_further_ahead_than_any(database):
    # Given a suspension that was due in seconds, before the clock was set back by an hour
    job_id = stage(database)
    claim(database, job_id)
    change(
        database,
        job_id,
        "lease_until = NULL, due_at = clock_timestamp() + interval '1 hour',"
        " ring_at = clock_timestamp() + interval '1 hour'",
    )
    # Then it is due, while a job that was staged for later waits
    later = stage(database, delay=7_200)
    assert database.run(lambda s: due.take_due_safety(s, ["work"], 9)) == [job_id]
    assert claim(database, later) is None
    assert claim(database, job_id) is not None


def test_lease_is_over_when_it_is_longer_than_any(database):
    job_id = stage(database)
    claim(database, job_id)
    assert claim(database, job_id) is None
    change(database, job_id, "lease_until = clock_timestamp() + interval '1 hour'")
    taken = claim(database, job_id)
    assert taken is not None
    assert finish(database, taken)


def test_lease_on_a_subscription_is_over_when_it_is_longer_than_any(database):
    subscription = subscribe(database, make_organization(database))
    execute(
        database,
        "UPDATE subscriptions SET look_token = 'x',"
        " look_lease_until = clock_timestamp() + interval '1 hour'",
    )
    begun = database.run(
        lambda s: subscription_refresh.begin_refresh(
            s, Provider.PAYPAL, external_id(database), lease_seconds=20
        )
    )
    assert begun.leased, subscription


def external_id(database):
    return database.run(
        lambda s: s.execute(text("SELECT external_id FROM subscriptions")).scalar_one()
    )


def test_lease_on_a_subaccount_is_over_when_it_is_longer_than_any(database):
    organization_id = make_organization(database)
    execute(
        database,
        "INSERT INTO brands (id, organization_id, name, twilio_subaccount_sid, created_at,"
        " twilio_lease_token, twilio_lease_until) VALUES ('b1', :org, 'b', :sid,"
        " clock_timestamp(), 'x', clock_timestamp() + interval '1 hour')",
        org=organization_id,
        sid="AC" + "0" * 32,
    )
    lease = database.run(
        lambda s: subaccounts.take_lease(s, "b1", lease_seconds=35, unsure_seconds=120)
    )
    assert lease.brand_id == "b1"


def test_unsure_subaccount_stays_unsure_as_long_as_meant(database):
    organization_id = make_organization(database)
    execute(
        database,
        "INSERT INTO brands (id, organization_id, name, twilio_subaccount_sid, created_at,"
        " twilio_unsure_until) VALUES ('b1', :org, 'b', :sid, clock_timestamp(),"
        " clock_timestamp() + interval '1 hour 100 s')",
        org=organization_id,
        sid="AC" + "0" * 32,
    )
    step(database)
    left = database.run(
        lambda s: s.execute(
            text("SELECT extract(epoch FROM twilio_unsure_until - clock_timestamp()) FROM brands")
        ).scalar_one()
    )
    assert left == pytest.approx(100, abs=5)


@pytest.mark.parametrize(("seconds", "direction"), [(-3_600.0, "back"), (3_600.0, "forward")])
def test_step_is_alerted_with_its_size_for_a_day(database, seconds, direction):
    now = step(database, seconds)
    (alert,) = open_alerts(database)
    assert alert.severity == "critical"
    assert alert.details["seconds"] == seconds
    assert alert.details["to"] == now.isoformat()
    assert alert.details["from"] == (now - timedelta(seconds=seconds)).isoformat()
    assert f"stepped {direction}" in alert.details["meaning"]
    # A second step raises an alert, too
    step(database, seconds * 2)
    assert len(open_alerts(database)) == 2
    # Both alerts stay for a day
    database.run(clock_steps.clear_old_alerts)
    assert len(open_alerts(database)) == 2
    execute(database, "UPDATE alerts SET cleared_at = NULL")
    older = "INSERT INTO alerts (kind, subject, severity, details, raised_at) VALUES"
    execute(
        database,
        f"{older} ('clock_stepped', 'old', 'critical', '{{}}',"
        " clock_timestamp() - interval '25 hours')",
    )
    database.run(clock_steps.clear_old_alerts)
    assert sorted(one.subject == "old" for one in open_alerts(database)) == [False, False]


def test_step_forward_moves_nothing(database):
    job_id = stage(database, delay=7_200)
    step(database, 3_600.0)
    assert seconds_until(database, job_id, "due_at") == pytest.approx(7_200, abs=5)
