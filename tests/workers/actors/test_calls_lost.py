"""Calls whose providers are away, answer late or twice, or do not know the call."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from base.clock import wait_until
from domain.calls import ending, reservations
from domain.calls.rows import HOLD_GRACE_SECONDS
from domain.jobs.types import REFRESH_TRIES, WARN_TRIES
from providers import registry
from tests.db.support import at_once
from tests.support.sandbox import SANDBOX_SECONDS
from tests.workers.scenes import another_thread, clear_faults, execute_sql, held, jobs_of, release
from workers.actors import ACTORS
from workers.executor import Executor

SPEAK_OR_END = {"method": "POST"}
GET = {"method": "GET", "path_contains": "/call/"}
LEG = {"method": "POST", "path_contains": "/Calls/"}


# Orders whose answer is lost


@pytest.mark.parametrize(
    ("kind", "more"), [("act_then_drop", {}), ("drop", {}), ("status", {"status": 500})]
)
def test_call_ends_once_when_the_answer_to_its_speech_is_lost(phone, kind, more):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", kind, match=SPEAK_OR_END, times=1, **more)
    phone.decide(call_id)
    # The outcome of the speech is unknown, so Twilio ends the leg in the same round
    phone.world.run_due()
    assert phone.leg(call_id) == "completed"
    assert phone.row(call_id).end_rounds == 1
    phone.run_until_over(call_id)
    row = phone.row(call_id)
    assert (row.status, phone.hold(call_id).status) == ("ended", "committed")
    assert phone.timeline(call_id).count("settled") == 1


def test_provider_settles_the_call_when_the_answer_to_its_end_is_lost(phone):
    # Given a call that ignores speech, and an order whose answer is lost
    call_id = phone.call(behaviour={"deaf_to_say": True})
    phone.decide(call_id)
    phone.round()
    phone.world.sandbox.fault("vapi", "act_then_drop", match=SPEAK_OR_END, times=1)
    phone.round()
    assert phone.orders(call_id) == ["say", "end-call"]
    phone.run_until_over(call_id)
    assert phone.row(call_id).settled_by == "look"


def test_twilio_ends_a_call_that_cannot_be_read_and_vapi_alone_settles_it(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503, match=GET)
    phone.decide(call_id)
    for _ in range(3):
        phone.round()
    assert (phone.orders(call_id), phone.leg(call_id)) == ([], "completed")
    assert (phone.row(call_id).status, phone.hold(call_id).status) == ("in_progress", "open")
    # When Vapi answers again
    clear_faults(phone.world)
    phone.run_until_over(call_id)
    assert phone.hold(call_id).status == "committed"


def test_end_is_repeated_when_twilios_answer_is_lost_too(phone):
    call_id = phone.call(behaviour={"deaf": True})
    # Each round asks both subaccounts, because it is unknown which of them carries the call
    phone.world.sandbox.fault("twilio", "drop", match=LEG, times=4)
    phone.decide(call_id)
    for _ in range(ending.VAPI_ROUNDS + 2):
        phone.round()
    assert phone.leg(call_id) == "in-progress"
    phone.run_until_over(call_id)
    assert phone.leg(call_id) == "completed"
    assert phone.alerts("call_not_ended", call_id) == []


def test_call_without_a_leg_that_ignores_orders_raises_an_alert_at_once(phone):
    # Given a call in the browser, which no carrier can end
    call_id = phone.call(behaviour={"deaf": True})
    execute_sql(phone.world, "UPDATE calls SET twilio_call_sid = NULL")
    phone.world.sandbox.fault("vapi", "status", status=503)
    phone.decide(call_id)
    phone.rounds(call_id, ending.VAPI_ROUNDS + 1)
    (alert,) = phone.alerts("call_not_ended", call_id)
    assert alert.details["why"] == "neither Vapi nor Twilio accepted the order to end the call"
    assert phone.hold(call_id).status == "open"


def test_alert_is_cleared_when_the_call_ends(phone):
    call_id = phone.call(behaviour={"deaf": True})
    phone.world.sandbox.fault("twilio", "status", status=500, match=LEG)
    phone.decide(call_id)
    phone.rounds(call_id, ending.ALERT_ROUND)
    assert len(phone.alerts("call_not_ended", call_id)) == 1
    clear_faults(phone.world)
    phone.run_until_over(call_id)
    assert phone.alerts("call_not_ended", call_id) == []
    assert phone.hold(call_id).status == "committed"


# Jobs that run twice


def test_ending_delivered_twice_at_once_is_executed_once(phone):
    call_id = phone.call()
    phone.decide(call_id)
    (job,) = jobs_of(phone.world, "end_call")
    fault = phone.world.sandbox.fault("vapi", "hold", match=GET, times=1)
    with another_thread() as start:
        first = start(phone.world.executor.execute, job.id)
        assert held(phone.world, fault)
        others = at_once([lambda: phone.world.executor.execute(job.id)] * 4)
        release(phone.world, fault)
        assert first.result(SANDBOX_SECONDS) == "postponed"
    assert others == ["taken"] * 4
    assert phone.orders(call_id) == ["say"]
    # And the same again when the call is over
    phone.run_until_over(call_id)
    phone.round()
    assert phone.world.executor.execute(job.id) == "taken"
    assert phone.orders(call_id).count("say") == 1


def test_two_endings_of_one_call_end_it_once(phone):
    # Given a job that was staged manually beside the decision's own job
    call_id = phone.call()
    phone.decide(call_id)
    phone.world.stage("end_call", organization_id=phone.id, call_id=call_id)
    phone.run_until_over(call_id)
    phone.round()
    assert phone.timeline(call_id).count("ended") == phone.timeline(call_id).count("settled") == 1
    assert {job.outcome for job in jobs_of(phone.world, "end_call")} == {"done"}


def test_concurrent_refreshes_settle_once(phone):
    call_id = phone.call(talk_seconds=0.2)
    provider_call_id = phone.row(call_id).provider_call_id
    assert wait_until(
        lambda: phone.seen(provider_call_id)["call"]["status"] == "ended",
        limit_seconds=SANDBOX_SECONDS,
    )
    assert at_once([lambda: phone.run_twin("look_at_call", call_id)] * 4) == ["done"] * 4
    assert phone.timeline(call_id).count("settled") == 1
    assert phone.world.wallet(phone.id).balance_micros == 990_000


# Warnings


def warned(phone, call_id):
    phone.world.do(
        lambda session, now: ending.decide_warnings(
            session, [ending.lock_call(session, phone.id, call_id)], now
        )
    )


def test_warning_is_spoken_and_the_call_continues(phone):
    phone.terms(warning_text="Nearly over.")
    call_id = phone.call()
    warned(phone, call_id)
    phone.world.run_due()
    seen = phone.seen(phone.row(call_id).provider_call_id)
    assert [one["text"] for one in seen["spoken"]] == ["Nearly over."]
    assert seen["call"]["status"] == "in-progress"


def test_warning_is_not_spoken_when_the_call_is_ending(phone):
    call_id = phone.call()
    warned(phone, call_id)
    phone.decide(call_id)
    phone.world.run_due()
    assert phone.orders(call_id) == ["say"]
    assert phone.row(call_id).end_rounds == 1


def test_warning_is_given_up_when_vapi_does_not_accept_it(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503, match=SPEAK_OR_END)
    warned(phone, call_id)
    for _ in range(WARN_TRIES + 1):
        phone.round()
    (job,) = jobs_of(phone.world, "warn_call")
    assert (job.outcome, job.failures) == ("done", WARN_TRIES - 1)
    assert phone.orders(call_id) == []


def last_worker_dies(phone, name, tries):
    """Leave a job as a worker does that is killed during the job's last try."""
    execute_sql(
        phone.world,
        f"UPDATE jobs SET failures = {tries - 1}, attempt = {tries}, worker = 'killed:1',"
        " lease_until = clock_timestamp() - interval '1 second', due_at = clock_timestamp(),"
        f" ring_at = clock_timestamp() WHERE name = '{name}' AND done_at IS NULL",
    )


def test_warning_is_done_when_the_worker_of_its_last_try_is_killed(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503, match=SPEAK_OR_END)
    warned(phone, call_id)
    last_worker_dies(phone, "warn_call", WARN_TRIES)
    phone.round()
    (job,) = jobs_of(phone.world, "warn_call")
    assert (job.outcome, job.dead_at, phone.orders(call_id)) == ("done", None, [])


def test_refresh_is_done_when_the_worker_of_its_last_try_is_killed(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503, match=GET)
    phone.world.stage("look_at_call", organization_id=phone.id, call_id=call_id)
    last_worker_dies(phone, "look_at_call", REFRESH_TRIES)
    phone.round()
    ended = {(job.outcome, job.dead_at) for job in jobs_of(phone.world, "look_at_call")}
    assert ended == {("done", None)}
    assert len(phone.alerts("hold_unanswered", call_id)) == 1


# Refreshes


def reserve_for(phone, provider_call_id, call_id="c1", *, seconds_ago=0):
    """Reserve ten seconds for a call, now or `seconds_ago` seconds ago."""
    reserved = phone.world.do(
        lambda session, now: reservations.reserve_for_call(
            session,
            phone.id,
            call_id=call_id,
            provider_call_id=provider_call_id,
            estimated_seconds=10,
            now=now - timedelta(seconds=seconds_ago),
        )
    )
    assert reserved.outcome.ok
    return call_id


def set_back(phone):
    """Make the calls and their last refreshes one hour older."""
    execute_sql(
        phone.world,
        "UPDATE calls SET created_at = created_at - interval '1 hour',"
        " seen_at = seen_at - interval '1 hour'",
    )


def test_unanswered_refresh_keeps_the_hold_and_the_alert_until_answered(phone):
    call_id = phone.call()
    phone.world.sandbox.fault("vapi", "status", status=503, match=GET)
    phone.world.stage("look_at_call", organization_id=phone.id, call_id=call_id)
    for _ in range(REFRESH_TRIES - 1):
        phone.round()
    assert phone.alerts("hold_unanswered", call_id) == []
    phone.round()
    assert len(phone.alerts("hold_unanswered", call_id)) == 1
    assert (phone.row(call_id).settled_at, phone.hold(call_id).status) == (None, "open")
    assert {job.outcome for job in jobs_of(phone.world, "look_at_call")} == {"done"}
    clear_faults(phone.world)
    phone.run("look_at_call", call_id)
    assert phone.alerts("hold_unanswered", call_id) == []


def test_id_that_cannot_be_vapis_is_alerted(phone):
    call_id = reserve_for(phone, "not-one-of-theirs")
    assert phone.run("look_at_call", call_id) == "done"
    assert len(phone.alerts("hold_unanswered", call_id)) == 1
    assert phone.hold(call_id).status == "open"


def test_refresh_of_a_call_without_a_provider_id_does_nothing(phone):
    call_id = reserve_for(phone, None)
    assert phone.run("look_at_call", call_id) == "done"
    assert phone.world.sandbox.requests(provider="vapi") == []


def test_hold_of_a_live_call_is_postponed(phone):
    # Given a live call whose hold of 30 s expired, and which has not been refreshed yet
    call_id = phone.dial(reserved_ago=1_000)
    expired_at = phone.hold(call_id).expires_at
    asked_at = phone.world.do(lambda session, now: now)
    assert expired_at < asked_at
    # When the worker refreshes it
    assert phone.run("look_at_call", call_id) == "done"
    answered_at = phone.world.do(lambda session, now: now)
    # Then the hold expires one grace period after the answer, and keeps its money
    grace = timedelta(seconds=HOLD_GRACE_SECONDS)
    hold = phone.hold(call_id)
    assert asked_at + grace <= hold.expires_at <= answered_at + grace
    assert (hold.status, hold.reserved_micros) == ("open", 300_000)
    assert phone.world.wallet(phone.id).held_micros == 300_000
    assert asked_at <= phone.row(call_id).seen_at <= answered_at


def show(phone, call_id, *without, **fields):
    """Change what Vapi's API shows of a call."""
    provider_call_id = phone.row(call_id).provider_call_id
    phone.world.sandbox.control(
        "POST",
        f"/vapi/calls/{provider_call_id}/record",
        {"fields": fields, "without": list(without)},
    )


def lapsed(phone):
    """Start a call at Vapi whose hold expired before it began."""
    asked = {"deliver": False, "queued_seconds": 0, "ring_seconds": 0}
    made = phone.world.sandbox.control("POST", "/vapi/calls", asked)
    return reserve_for(phone, made["id"], seconds_ago=1_000)


@pytest.mark.parametrize("without", [(), ("status",)], ids=["unknown", "none"])
def test_hold_is_unchanged_when_the_status_is_unknown(phone, without):
    # Given a call whose hold has expired, and an answer with an unknown status
    call_id = lapsed(phone)
    before = phone.hold(call_id).expires_at
    show(phone, call_id, *without, **({} if without else {"status": "deletion-failed"}))
    # When it is refreshed
    assert phone.run("look_at_call", call_id) == "done"
    # Then the hold is not extended, and an alert is raised
    assert (phone.hold(call_id).expires_at, phone.hold(call_id).status) == (before, "open")
    assert len(phone.alerts("call_status_unknown", call_id)) == 1
    # And a known status extends the hold and clears the alert
    show(phone, call_id, status="in-progress")
    phone.run("look_at_call", call_id)
    assert phone.hold(call_id).expires_at > before
    assert phone.alerts("call_status_unknown", call_id) == []


def test_call_that_is_not_found_is_treated_like_a_404(phone):
    call_id = lapsed(phone)
    show(phone, call_id, status="not-found")
    assert phone.run("look_at_call", call_id) == "done"
    assert (phone.hold(call_id).status, phone.row(call_id).settled_by) == ("expired", "expiry")
    assert phone.world.wallet(phone.id).held_micros == 0


def test_call_without_a_status_is_settled_when_it_has_an_end(phone):
    call_id = phone.call(talk_seconds=0.3)
    provider_call_id = phone.row(call_id).provider_call_id
    assert wait_until(
        lambda: phone.seen(provider_call_id)["call"]["status"] == "ended",
        limit_seconds=SANDBOX_SECONDS,
    )
    show(phone, call_id, "status")
    assert phone.run("look_at_call", call_id) == "done"
    assert (phone.row(call_id).status, phone.row(call_id).cost_micros) == ("ended", 10_000)
    assert phone.world.wallet(phone.id).balance_micros == 990_000


def test_call_unknown_to_vapi_is_not_believed_gone_at_once(phone):
    call_id = reserve_for(phone, str(uuid.uuid4()))
    assert phone.run("look_at_call", call_id) == "done"
    assert (phone.hold(call_id).status, phone.row(call_id).oddities) == ("open", [])
    # After an hour the call counts as absent, but its hold stays until it expires
    set_back(phone)
    phone.run("look_at_call", call_id)
    assert (phone.hold(call_id).status, phone.row(call_id).oddities) == ("open", ["absent"])


def test_call_unknown_to_vapi_releases_its_hold_at_its_expiry(phone):
    call_id = reserve_for(phone, str(uuid.uuid4()), seconds_ago=1_000)
    phone.world.stage("reconcile_calls")
    phone.world.run_due()
    assert phone.hold(call_id).status == "expired"
    assert phone.world.wallet(phone.id).held_micros == 0


def test_sweep_stages_the_refresh_that_settles_a_silent_call(phone):
    # Given a call that ended an hour ago, of which no message arrived
    call_id = phone.call(talk_seconds=0.2)
    provider_call_id = phone.row(call_id).provider_call_id
    assert wait_until(
        lambda: phone.seen(provider_call_id)["call"]["status"] == "ended",
        limit_seconds=SANDBOX_SECONDS,
    )
    set_back(phone)
    phone.world.stage("reconcile_calls")
    phone.world.run_due()
    assert phone.row(call_id).settled_by == "look"
    # And it is not refreshed again
    phone.world.stage("reconcile_calls")
    assert [name for name, _ in phone.world.run_due()] == ["reconcile_calls"]


def test_sweep_expires_holds_of_calls_without_a_provider_id(phone):
    call_id = reserve_for(phone, None, seconds_ago=1_000)
    phone.world.stage("reconcile_calls")
    ran = [name for name, _ in phone.world.run_due()]
    assert ran[:2] == ["reconcile_calls", "expire_holds"]
    assert phone.hold(call_id).status == "expired"
    assert phone.row(call_id).settled_by == "expiry"


# Records that cannot be read


def small(phone):
    """Limit the worker's executor to 10000 bytes of a call's record."""
    settings = phone.world.settings
    providers = registry.build(settings, call_bytes_max=10_000)
    phone.world.executor = Executor(
        phone.world.database, providers, settings, ACTORS, "test-worker"
    )
    return providers


@pytest.fixture
def narrow(phone):
    providers = small(phone)
    yield phone
    providers.close()


def talked_ten_seconds(phone, ended_seconds_ago):
    """Start a call that talked for 10 s and whose end was seen `ended_seconds_ago`."""
    call_id = phone.call()
    execute_sql(
        phone.world,
        "UPDATE calls SET status = 'ended', tick_at = NULL,"
        f" ended_seen_at = now() - interval '{ended_seconds_ago} seconds',"
        f" metered_from = now() - interval '{ended_seconds_ago + 10} seconds'",
    )
    return call_id


def test_call_of_several_megabytes_is_settled_with_its_control_url(phone):
    # Given calls whose records have 2.4 MB
    call_id, other = phone.call(), phone.call()
    for one in (call_id, other):
        show(phone, one, artifact={"transcript": "x" * 2_400_000})
    # When one must end, Then its control URL receives the order
    phone.decide(call_id)
    phone.run_until_over(call_id)
    # A further round may follow while Vapi still speaks
    assert phone.orders(call_id)[0] == "say"
    assert phone.row(call_id).settled_by == "look"
    # And the other call keeps its hold while it is live
    assert phone.run("look_at_call", other) == "done"
    assert phone.alerts("hold_unanswered", other) == []


def test_ended_call_is_settled_by_our_meter_when_its_record_is_too_large(narrow):
    call_id = talked_ten_seconds(narrow, ended_seconds_ago=121)
    show(narrow, call_id, artifact={"transcript": "x" * 20_000})
    assert narrow.run("look_at_call", call_id) == "done"
    row = narrow.row(call_id)
    assert (row.cost_micros, row.duration_ms, row.settled_by) == (100_000, 10_000, "look")
    assert row.oddities == ["metered_by_us", "unreadable"]
    wallet = narrow.world.wallet(narrow.id)
    assert (wallet.balance_micros, wallet.held_micros) == (900_000, 0)
    assert "unreadable" in narrow.timeline(call_id)


@pytest.mark.parametrize("ended", [False, True])
def test_unreadable_call_keeps_its_hold_before_its_report_is_due(narrow, ended):
    call_id = talked_ten_seconds(narrow, ended_seconds_ago=5) if ended else narrow.call()
    show(narrow, call_id, artifact={"transcript": "x" * 20_000})
    assert narrow.run("look_at_call", call_id) == "done"
    assert (narrow.row(call_id).settled_at, narrow.hold(call_id).status) == (None, "open")
    (alert,) = narrow.alerts("hold_unanswered", call_id)
    assert "10000 bytes" in alert.details["why"]
