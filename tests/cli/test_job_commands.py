"""holdfast job and holdfast schedule: jobs are found, shown and changed."""

from __future__ import annotations

import json

from base.enums import Provider
from db.models import OperatorAction
from domain.jobs import schedules
from domain.jobs.declaration import KEY_KEPT_SECONDS
from domain.jobs.types import JOB_TYPES
from tests.db.jobs.support import WAIT, claim, fail, finish, row, stage


def dead(database, name="work"):
    job_id = stage(database, name=name, kwargs={"event_id": f"evt_of_{name}"})
    fail(database, claim(database, job_id), retry=None)
    return job_id


def acts(database, job_id):
    rows = database.run(lambda s: s.query(OperatorAction).filter_by(subject=job_id).all())
    return [(one.act, one.operator, one.why) for one in rows]


def counts(selected, changed):
    skipped = selected - changed
    return {"jobs_selected": selected, "jobs_changed": changed, "jobs_skipped": skipped}


def listed(run, *arguments):
    code, out, err = run("job", "list", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def test_jobs_are_found_by_every_filter(run, database):
    owed, gone = stage(database, name="a"), dead(database, "b")
    assert [one["job_id"] for one in listed(run)] == [owed]
    (shown,) = listed(run, "--state", "dead", "--job", "b", "--error", "BOO", "--queue", "safety")
    assert (shown["job_id"], shown["state"], shown["error"]) == (gone, "dead", "boom")
    argument = "event_id=evt_of_b"
    since = "2020-01-01"
    found = listed(run, "--state", "all", "--argument", argument, "--since", since)
    assert [one["job_id"] for one in found] == [gone]
    assert listed(run, "--state", "all", "--until", since) == []
    assert listed(run, "--state", "all", "--org", "org_none") == []


def test_pages_follow_each_other_by_cursor(run, database):
    ids = sorted((stage(database) for _ in range(5)), reverse=True)
    first = listed(run, "--limit", "3")
    assert [one["job_id"] for one in first] == ids[:3]
    second = listed(run, "--limit", "3", "--after", first[-1]["job_id"])
    assert [one["job_id"] for one in second] == ids[3:]
    # The cursor is on standard error, so that standard output has rows only.
    for form in ((), ("--json",)):
        assert run("job", "list", "--limit", "3", *form)[2] == f"more: --after {ids[2]}\n"
    assert run("job", "list", "--limit", "6")[2] == ""


def test_job_is_shown_with_its_attempts_and_possible_actions(run, database):
    job_id = dead(database)
    assert run("job", "redrive", job_id, "--why", "mended", "--by", "ann")[0] == 0
    fail(database, claim(database, job_id), retry=None)

    shown = json.loads(run("job", "show", job_id, "--json")[1])

    assert (shown["state"], shown["possible_actions"]) == ("dead", ["redrive", "discard"])
    assert [one["error"] for one in shown["attempts"]] == ["boom", "boom"]
    assert [one["traceback"] for one in shown["attempts"]] == ["trace", "trace"]
    (done,) = shown["operator_actions"]
    assert (done["action"], done["operator"], done["reason"]) == ("job.redrive", "ann", "mended")
    assert "boom" in run("job", "show", job_id)[1]


def test_one_job_is_redriven_discarded_and_run_now_by_id(run, database):
    again, away, waiting = dead(database), dead(database), stage(database)
    fail(database, claim(database, waiting), retry=WAIT)

    assert run("job", "redrive", again, "--why", "a")[1] == "redrive: 1 of 1 jobs\n"
    assert run("job", "discard", away, "--why", "b")[0] == 0
    out = run("job", "run-now", waiting, "--why", "c", "--by", "ann", "--json")[1]
    assert json.loads(out) == {"action": "run_now", **counts(1, 1)}

    assert row(database, again).dead_at is None
    assert row(database, away).outcome == "discarded"
    assert claim(database, waiting) is not None
    assert acts(database, waiting) == [("job.run_now", "ann", "c")]


def test_bulk_action_takes_the_filtered_jobs_up_to_its_limit(run, database):
    mine = [dead(database, "mine") for _ in range(4)]
    other = dead(database, "other")

    # When dead jobs of one name are redriven, three at most
    out = run("job", "redrive", "--job", "mine", "--limit", "3", "--why", "x", "--yes", "--json")[1]

    # Then the newest three are redriven, and nothing else
    assert json.loads(out) == {"action": "redrive", **counts(3, 3)}
    assert [row(database, one).dead_at is None for one in mine] == [False, True, True, True]
    assert row(database, other).dead_at is not None
    assert [len(acts(database, one)) for one in (*mine, other)] == [0, 1, 1, 1, 0]


def test_bulk_action_asks_for_confirmation(run, database):
    job_id = dead(database)
    code, out, err = run("job", "discard", "--why", "x", answer="n\n")
    assert (code, err) == (1, "holdfast: cancelled; nothing changed\n")
    assert "discard 1 jobs?" in out
    assert run("job", "discard", "--why", "x", "--json")[0] == 1
    assert row(database, job_id).dead_at is not None

    assert run("job", "discard", "--why", "x", answer="y\n")[0] == 0
    assert row(database, job_id).outcome == "discarded"


def test_redrive_skips_and_counts_jobs_that_do_not_allow_it(run, database):
    job_id, done = dead(database), stage(database)
    finish(database, claim(database, done))
    out = run("job", "redrive", job_id, done, "--why", "x", "--yes")[1]
    assert out == "redrive: 1 of 2 jobs; 1 skipped because their state changed\n"


def test_refused_jobs_are_redriven_when_requested(run, database):
    job_id = stage(database)
    finish(database, claim(database, job_id), outcome="refused", error="NO")
    assert run("job", "redrive", "--state", "refused", "--why", "mended", "--yes")[0] == 0
    assert row(database, job_id).outcome is None


def test_every_policy_is_listed_under_both_names_of_the_command(run):
    first = json.loads(run("job", "policies", "--json")[1])
    assert first == json.loads(run("jobs", "policies", "--json")[1])
    assert [one["job"] for one in first] == list(JOB_TYPES)
    for one in first:
        assert one["attempts"] == JOB_TYPES[one["job"]].policy.attempts
        assert one["span_hours"] == round(JOB_TYPES[one["job"]].total_seconds / 3600, 1)
        assert one["permanent_errors"][0] == "Refused"
    assert set(KEY_KEPT_SECONDS) == set(Provider)


def test_schedules_are_listed_with_their_next_and_last_tick(run, database):
    assert "schedules: none" in run("schedule", "list")[1]
    database.run(schedules.declare)
    listed = {one["schedule"]: one for one in json.loads(run("schedule", "list", "--json")[1])}
    assert set(listed) == {one.name for one in schedules.SCHEDULES}
    shown = listed["prune"]
    assert (shown["schedule"], shown["job"], shown["interval_seconds"]) == ("prune", "prune", 3600)
    assert (shown["last_at"], shown["last_job_id"]) == (None, None)

    database.run(
        lambda s: s.connection().exec_driver_sql("UPDATE schedules SET next_at = clock_timestamp()")
    )
    staged = database.run(schedules.tick)
    assert len(staged) == len(schedules.SCHEDULES)
    listed = {one["schedule"]: one for one in json.loads(run("schedule", "list", "--json")[1])}
    assert set(listed) == {one.name for one in schedules.SCHEDULES}
    shown = listed["prune"]
    assert shown["last_job_id"] in staged
    assert shown["last_job_state"] == "staged"
