"""SQL functions stage jobs as Python declares them: name, queue, arguments, delay."""

from __future__ import annotations

import ast
import re

import psycopg
import pytest

from db.address import driver_url
from db.jobs.staging import FIRST_NOTIFICATION_SECONDS
from domain.jobs.types import JOB_TYPES
from local import ROOT

_INSERT = re.compile(r"INSERT INTO jobs \(([^)]*)\)\s*(SELECT|VALUES)\s(.*)", re.DOTALL)
_FUNCTIONS = """
    SELECT proname, prosrc FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prosrc ~ 'INSERT INTO jobs'
"""
#: The job of each function that stages one. A new function must be added here.
STAGED = {
    "inbox_receive": "process_event",
    "wallet_debit_many": "enforce_organization",
    "wallet_fell": "decide_top_up",
}
#: The event's queue depends on its type, so that the function receives it.
QUEUE_GIVEN = {"inbox_receive"}
#: No process notifies a worker of a job that a trigger stages. The relay therefore does at once.
NOTIFIED_AT_ONCE = {"wallet_fell"}
PACKAGES = ("base", "db", "domain", "providers", "ingress", "workers", "local", "cli")


@pytest.fixture(scope="module")
def inserts(shared_urls):
    """The deployed functions that stage a job, each with its values by column."""
    with psycopg.connect(driver_url(shared_urls.owner_url)) as connection:
        return {name: values_of(source) for name, source in connection.execute(_FUNCTIONS)}


def values_of(source):
    """Read an INSERT's values by column, as SQL."""
    (found,) = _INSERT.findall(source)
    columns, form, rest = found
    return dict(
        zip(
            [name.strip() for name in columns.split(",")],
            list_of(rest.removeprefix("(") if form == "VALUES" else rest),
            strict=True,
        )
    )


def list_of(text):
    """Split a list of values at its commas, up to FROM or its closing parenthesis."""
    values, depth = [""], 0
    for token in re.findall(r"\w+|\s+|.", text, re.DOTALL):
        depth += (token == "(") - (token == ")")
        if depth < 0 or (depth == 0 and token == "FROM"):
            break
        if depth == 0 and token == ",":
            values.append("")
        else:
            values[-1] += token
    return [" ".join(value.split()) for value in values]


def test_every_function_that_stages_a_job_is_checked_here(inserts):
    assert {name: one["name"] for name, one in inserts.items()} == {
        name: f"'{job}'" for name, job in STAGED.items()
    }


@pytest.mark.parametrize("name", STAGED)
def test_a_job_staged_by_sql_is_as_declared(inserts, name):
    job, values = JOB_TYPES[STAGED[name]], inserts[name]
    arguments = re.findall(r"'(\w+)', ", values["kwargs"])
    assert values["kwargs"].startswith("jsonb_build_object(")
    assert tuple(arguments) == job.arguments
    if name not in QUEUE_GIVEN:
        assert values["queue"] == f"'{job.queue}'"
    delay = f" + interval '{FIRST_NOTIFICATION_SECONDS} seconds'"
    assert values["ring_at"] == "clock_timestamp()" + (delay, "")[name in NOTIFIED_AT_ONCE]
    # It is due at once and refreshes no object, by the columns' defaults
    assert not {"due_at", "object_key"} & values.keys()
    assert not job.refreshes


def modules():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield path, path.read_text()


def test_only_the_staging_module_inserts_jobs_from_python():
    inserting = {path for path, source in modules() if "INSERT INTO jobs" in source}
    assert inserting == {ROOT / "db/jobs/staging.py"}


def test_jobs_that_python_notifies_by_name_are_as_declared():
    notified = []
    for path, source in modules():
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Staged":
                notified.append((path.name, *(getattr(one, "value", None) for one in call.args)))
    names = {tuple(one[2:]) for one in notified if len(one) == 4 and isinstance(one[2], str)}
    assert {name for name, _ in names} == {"enforce_organization", "process_event"}
    for name, queue in names:
        assert queue in (None, str(JOB_TYPES[name].queue)), name
