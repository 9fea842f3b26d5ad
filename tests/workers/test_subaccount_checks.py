"""Subaccounts that were changed at Twilio are found, repaired and reported."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.operators import Operator
from cli.main import app
from db.models import Alert, Brand, Job
from domain import operator_actions, subaccounts
from domain import subaccount_checks as twilio_checks
from domain.jobs import schedules
from domain.jobs.schedules import SCHEDULES, Schedule
from domain.jobs.types import RECONCILE_TWILIO
from domain.subaccount_checks import CheckOutcome
from tests.workers.scenes import asked, clear_faults, execute_sql, jobs_of, set_unsure_over, want

SUSPEND = {"method": "POST", "form": {"Status": "suspended"}}


@pytest.fixture
def customer(world):
    return world.customer()


@pytest.fixture
def sid(customer):
    return customer.sids[0]


def enforce(world, customer):
    return world.do(
        lambda session, now: operator_actions.enforce_manually(
            session, customer.id, operator=Operator("ann", "to be sure"), now=now
        )
    )


def set_at_twilio(world, sid, **changes):
    world.sandbox.control("POST", f"/twilio/subaccounts/{sid}", changes)


def suspended(world, customer):
    for brand_id in customer.brand_ids:
        want(world, brand_id, "suspended")
    world.run_due()


def alerts(world, **where):
    return [one for one in world.read(Alert, **where) if one.kind.startswith("subaccount_")]


def open_alerts(world):
    return {(one.kind, one.subject) for one in alerts(world, cleared_at=None)}


def found_by(world, enforced):
    jobs = tuple(enforced.subaccount_jobs.values())
    return world.do(lambda session, _: twilio_checks.results(session, jobs))


def sweep(world):
    """Stage the schedule's job and run everything that follows."""
    world.stage("reconcile_twilio")
    return world.run_due()


def set_checks_due(world):
    execute_sql(world, "UPDATE brands SET twilio_checked_at = now() - interval '21 hours'")


def test_enforcing_suspends_a_subaccount_activated_at_twilio(world, customer, sid):
    # Given a suspended organization whose subaccount was set active at Twilio
    suspended(world, customer)
    world.sandbox.control("POST", "/twilio/calls", {"sid": sid})
    set_at_twilio(world, sid, status="active")
    # When its entitlement is enforced
    execute_sql(world, "UPDATE subscriptions SET status = 'suspended'")
    enforced = enforce(world, customer)
    world.run_due()
    # Then the subaccount is suspended again, its calls have ended, and each result is reported
    assert world.twilio_status(sid) == "suspended"
    assert world.providers.twilio.live_calls(sid) == []
    found = {one.subaccount: one for one in found_by(world, enforced)}
    assert (found[sid].outcome, found[sid].found) == (CheckOutcome.REPAIRED, "active")
    assert found[customer.sids[1]].outcome is CheckOutcome.IN_LINE
    # And an alert names the side that was wrong
    (alert,) = alerts(world)
    assert (alert.kind, alert.severity, alert.subject) == ("subaccount_drifted", "critical", sid)
    assert alert.organization_id == customer.id
    assert alert.details == {
        "brand": customer.brand_ids[0],
        "wrong_side": "twilio",
        "found": "active",
        "desired": "suspended",
        "repaired": True,
    }


def test_enforcing_activates_a_subaccount_suspended_at_twilio(world, customer, sid):
    set_at_twilio(world, sid, status="suspended")
    enforce(world, customer)
    world.run_due()
    assert world.twilio_status(sid) == "active"
    (alert,) = alerts(world)
    assert (alert.kind, alert.severity) == ("subaccount_drifted", "warning")


def test_enforcing_reads_every_subaccount_and_sets_none_in_line(world, customer):
    reads = {sid: asked(world, sid, "GET") for sid in customer.sids}
    enforced = enforce(world, customer)
    assert set(enforced.subaccount_jobs) == set(customer.brand_ids)
    world.run_due()
    for sid in customer.sids:
        assert (asked(world, sid, "GET") - reads[sid], asked(world, sid, "POST")) == (1, 0)
    assert {one.outcome for one in found_by(world, enforced)} == {CheckOutcome.IN_LINE}
    assert alerts(world) == []


@pytest.mark.parametrize(
    ("change", "code", "found"),
    [
        ({"status": "closed"}, "SUBACCOUNT_CLOSED", "closed"),
        (
            {"status": "suspended", "suspended_by_twilio": True},
            "SUSPENDED_BY_TWILIO",
            "suspended",
        ),
        (None, "SUBACCOUNT_MISSING", "absent"),
    ],
)
def test_enforcing_alerts_a_subaccount_that_it_cannot_repair(
    world, customer, sid, change, code, found
):
    # Given a subaccount that is missing, closed, or suspended by Twilio
    if change is None:
        world.sandbox.fault("twilio", "status", match={"path_contains": sid}, status=404)
    else:
        set_at_twilio(world, sid, **change)
    # When the entitlement is enforced twice
    for _ in range(2):
        enforced = enforce(world, customer)
        world.run_due()
    # Then the check does not succeed, and one alert names the subaccount
    result = next(one for one in found_by(world, enforced) if one.subaccount == sid)
    assert (result.outcome, result.problem) == (CheckOutcome.NEEDS_PERSON, code)
    (alert,) = alerts(world)
    assert (alert.kind, alert.severity, alert.subject) == ("subaccount_unusable", "critical", sid)
    assert (alert.details["code"], alert.details["found"]) == (code, found)
    # And once the subaccount is usable again, the next check clears the alert
    clear_faults(world)
    set_at_twilio(world, sid, status="active", suspended_by_twilio=False)
    sweep(world)
    assert open_alerts(world) == set()
    assert world.brands(customer.id)[0].twilio_problem is None


def test_drift_is_alerted_when_the_repairs_answer_was_lost(world, customer, sid):
    # Given drift, and a repair that takes effect but whose answer is lost
    suspended(world, customer)
    execute_sql(world, "UPDATE subscriptions SET status = 'suspended'")
    set_at_twilio(world, sid, status="active")
    world.sandbox.fault("twilio", "act_then_drop", match=SUSPEND, times=1)
    enforce(world, customer)
    assert ("converge_twilio", "failed") in world.run_due()
    # When the job is retried
    world.due_now()
    set_unsure_over(world)
    world.run_due()
    # Then the drift is reported nevertheless
    assert world.twilio_status(sid) == "suspended"
    assert open_alerts(world) == {("subaccount_drifted", sid)}


def test_change_of_our_own_is_no_drift(world, customer, sid):
    want(world, customer.brand_ids[0], "suspended")
    world.run_due()
    assert world.twilio_status(sid) == "suspended"
    assert alerts(world) == []


def test_lost_request_that_lands_late_is_no_drift(world, customer, sid):
    # Given a suspension whose request was lost, and a change of state while it may still take
    # effect
    world.sandbox.fault("twilio", "drop", match=SUSPEND, times=1)
    want(world, customer.brand_ids[0], "suspended")
    world.run_due()
    world.due_now()
    world.run_due()
    assert world.twilio_status(sid) == "suspended"
    set_at_twilio(world, sid, status="active")
    world.due_now()
    world.run_due()
    # Then the state is set again, and no drift is reported
    assert world.twilio_status(sid) == "suspended"
    assert alerts(world) == []


def test_schedule_repairs_drift_through_a_safety_job(world, customer, sid):
    # Given drift that no job has found yet
    set_at_twilio(world, sid, status="suspended")
    # When the schedule ticks
    assert Schedule("reconcile_twilio", 300, RECONCILE_TWILIO) in SCHEDULES
    ran = sweep(world)
    # Then every subaccount is read as bulk work, and the drifted one is repaired as safety work
    assert ran.count(("check_subaccount", "done")) == 2
    assert {job.queue for job in jobs_of(world, "check_subaccount")} == {"maintenance"}
    assert ran.count(("converge_twilio", "done")) == 1
    assert jobs_of(world, "converge_twilio")[-1].queue == "safety"
    assert world.twilio_status(sid) == "active"
    assert open_alerts(world) == {("subaccount_drifted", sid)}


def test_drift_alert_is_cleared_by_a_check_an_hour_later(world, customer, sid):
    set_at_twilio(world, sid, status="suspended")
    sweep(world)
    # When it is checked again at once, Then the alert stays
    set_checks_due(world)
    sweep(world)
    assert open_alerts(world) == {("subaccount_drifted", sid)}
    # When it is checked an hour later
    (alert,) = alerts(world)
    world.do(
        lambda session, now: session.execute(
            Alert.__table__.insert().values(
                kind="low_balance",
                organization_id=customer.id,
                subject="x",
                severity="info",
                details={},
                raised_at=now,
            )
        )
    )
    check_an_hour_later(world, customer.brand_ids[0], sid)
    # Then this alert is cleared, and no other
    assert open_alerts(world) == set()
    assert len(world.read(Alert, kind="low_balance", cleared_at=None)) == 1
    assert alert.subject == sid


def check_an_hour_later(world, brand_id, sid):
    facts = SubaccountFacts(sid, TwilioStatus.ACTIVE)
    for minutes, left in ((59, 1), (61, 0)):
        world.do(
            lambda session, now, minutes=minutes: subaccounts.record_check(
                session, brand_id, facts, now + timedelta(minutes=minutes)
            )
        )
        assert len(alerts(world, cleared_at=None)) == left


def test_each_subaccount_is_checked_once_a_day_and_no_more(world, customer):
    assert sweep(world).count(("check_subaccount", "done")) == 2
    assert sweep(world).count(("check_subaccount", "done")) == 0
    set_checks_due(world)
    assert sweep(world).count(("check_subaccount", "done")) == 2


def test_checks_of_many_brands_are_spread_over_ticks(world, customer):
    # Given thirty brands that were never checked
    world.do(
        lambda session, now: session.add_all(
            Brand(
                id=f"brd_{number:02}",
                organization_id=customer.id,
                name="b",
                twilio_subaccount_sid=f"AC{number:032x}",
                created_at=now,
            )
            for number in range(28)
        )
    )
    # When the schedule ticks three times, Then each tick takes a bounded share, until all are
    # checked
    staged = [world.do(twilio_checks.stage_due_checks) for _ in range(3)]
    assert staged == [20, 10, 0]


def test_check_takes_no_lease_and_does_not_delay_safety_work(world, customer, sid):
    # Given a worker that has the lease
    execute_sql(
        world,
        "UPDATE brands SET twilio_lease_token = 'lse_x', twilio_actual_at = NULL,"
        " twilio_lease_until = clock_timestamp() + interval '1 minute'"
        " WHERE twilio_subaccount_sid = %s",
        sid,
    )
    # When the subaccount is checked, Then the check is done, and the lease and state are unchanged
    assert sweep(world).count(("check_subaccount", "done")) == 2
    brand = next(one for one in world.brands(customer.id) if one.twilio_subaccount_sid == sid)
    assert (brand.twilio_lease_token, brand.twilio_actual_at) == ("lse_x", None)


def test_check_waits_for_twilio_to_come_back(world, customer):
    world.sandbox.fault("twilio", "status", status=503)
    ran = sweep(world)
    assert ("check_subaccount", "failed") in ran
    assert ("check_subaccount", "done") not in ran
    assert all(job.ring_at is not None for job in jobs_of(world, "check_subaccount"))
    clear_faults(world)
    world.due_now()
    assert world.run_due().count(("check_subaccount", "done")) == 2


def test_tick_stages_one_reconciliation(world):
    world.do(lambda session, _: schedules.declare(session))
    execute_sql(world, "UPDATE schedules SET next_at = now() WHERE name = 'reconcile_twilio'")
    for _ in range(2):
        world.do(lambda session, _: schedules.tick(session))
    (job,) = world.read(Job, name="reconcile_twilio")
    assert job.queue == "maintenance"


@pytest.fixture
def holdfast(urls, monkeypatch):
    """Run the command while a worker does the due jobs."""
    monkeypatch.setenv("DATABASE_URL", urls.app_url)
    monkeypatch.setenv("REDIS_URL", urls.redis_url)

    def invoke(*arguments: str, world=None):
        over = threading.Event()

        def work():
            while not over.wait(0.05):
                world.run_due()

        with ThreadPoolExecutor(1) as pool:
            worker = pool.submit(work) if world is not None else None
            try:
                done = CliRunner().invoke(app, list(arguments))
            finally:
                over.set()
            if worker is not None:
                worker.result()
        return done.exit_code, done.stdout

    return invoke


def data_in(printed: str):
    """Parse the JSON that was printed after the worker's log lines."""
    start = min(at for at in (printed.find("{\n"), printed.find("[\n")) if at >= 0)
    return json.JSONDecoder().raw_decode(printed[start:])[0]


def test_enforce_command_prints_what_it_found_and_repaired(world, customer, sid, holdfast):
    set_at_twilio(world, sid, status="suspended")
    arguments = ("org", "enforce", customer.id, "--why", "x", "--by", "ann")
    code, printed = holdfast(*arguments, world=world)
    assert f"subaccount {sid}: repaired; Twilio reported suspended, and it is active now" in printed
    assert f"subaccount {customer.sids[1]}: in line, active" in printed
    assert code == 0


def test_enforce_command_fails_when_a_subaccount_is_unusable(world, customer, sid, holdfast):
    set_at_twilio(world, sid, status="closed")
    arguments = ("org", "enforce", customer.id, "--why", "x", "--by", "ann", "--json")
    code, printed = holdfast(*arguments, world=world)
    shown = data_in(printed)
    assert code == 1
    assert shown["subscription_state"] == "active"
    assert shown["subaccounts"][0] == {
        "organization_id": customer.id,
        "brand_id": customer.brand_ids[0],
        "subaccount_sid": sid,
        "outcome": "needs_person",
        "found_state": "closed",
        "desired_state": "active",
        "problem": "SUBACCOUNT_CLOSED",
    }
    assert shown["subaccounts"][1]["outcome"] == "in_line"


def test_enforce_command_is_no_success_without_a_worker(customer, holdfast):
    arguments = ("org", "enforce", customer.id, "--why", "x", "--wait", "0.3")
    code, printed = holdfast(*arguments)
    assert code == 1
    assert printed.count("not done yet") == 2


def test_reconcile_command_repairs_all_or_one_organization(world, customer, sid, holdfast):
    other = world.customer()
    for drifted in (sid, other.sids[1]):
        set_at_twilio(world, drifted, status="suspended")
    one = ("reconcile", "twilio", "--org", customer.id, "--json")
    code, printed = holdfast(*one, world=world)
    outcomes = {one["subaccount_sid"]: one["outcome"] for one in data_in(printed)}
    assert outcomes == {sid: "repaired", customer.sids[1]: "in_line"}
    assert code == 0
    code, printed = holdfast("reconcile", "twilio", "--json", world=world)
    outcomes = {one["subaccount_sid"]: one["outcome"] for one in data_in(printed)}
    assert outcomes == {
        sid: "in_line",
        customer.sids[1]: "in_line",
        other.sids[0]: "in_line",
        other.sids[1]: "repaired",
    }


def test_reconcile_command_is_refused_for_an_unknown_organization(holdfast):
    assert holdfast("reconcile", "twilio", "--org", "org_none")[0] == 1
