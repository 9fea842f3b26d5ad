"""A list sends as many statements for twenty rows as for one."""

from __future__ import annotations

import json

import psycopg
import pytest
from typer.testing import CliRunner

from cli.main import app
from db.address import driver_url
from db.engine import clock
from domain.wallet import operations as wallet
from tests.db.shared import shared, shared_urls
from tests.support.statements import recorded
from tests.support.world import make_organization

__all__ = ["shared", "shared_urls"]

MANY = 20
#: Write so many rows of a list. `%(tag)s` makes their names new, and `%(org)s` owns them.
_SUBSCRIPTIONS = """
    INSERT INTO subscriptions (id, organization_id, provider, external_id, status, created_at)
    SELECT 'sub_' || %(tag)s || n, %(org)s, 'paypal', 'I-' || %(tag)s || n, 'active', now()
    FROM generate_series(1, %(rows)s) n
"""
_BRANDS = """
    INSERT INTO brands (id, organization_id, name, created_at)
    SELECT 'brd_' || %(tag)s || n, %(org)s, 'North', now() FROM generate_series(1, %(rows)s) n
"""
_CAMPAIGNS = """
    WITH brand AS (
        INSERT INTO brands (id, organization_id, name, created_at)
        VALUES ('brd_' || %(tag)s, %(org)s, 'North', now()) RETURNING id
    )
    INSERT INTO campaigns (id, organization_id, brand_id, name, status, created_at)
    SELECT 'cmp_' || %(tag)s || n, %(org)s, brand.id, 'Spring', 'draft', now()
    FROM brand, generate_series(1, %(rows)s) n
"""

_SCHEDULES = """
    WITH job AS (
        INSERT INTO jobs (id, name, kwargs, queue, correlation_id, ring_at)
        SELECT 'job_' || %(tag)s || n, 'prune', '{}', 'maintenance', 'cor', now()
        FROM generate_series(1, %(rows)s) n RETURNING id
    )
    INSERT INTO schedules (name, every_seconds, next_at, declared_at, last_job_id)
    SELECT id, 60, now(), now(), id FROM job
"""
_PROCESSES = """
    INSERT INTO processes (id, kind, name, queues, started_at, seen_at)
    SELECT %(tag)s || n, 'worker', 'worker', '{safety}', now(), now()
    FROM generate_series(1, %(rows)s) n
"""
_JOBS = """
    INSERT INTO jobs (id, name, kwargs, organization_id, queue, correlation_id, ring_at)
    SELECT 'job_' || %(tag)s || n, 'prune', '{}', %(org)s, 'maintenance', 'cor', now()
    FROM generate_series(1, %(rows)s) n
"""
#: The job JOB, and so many attempts, causes or jobs of the same webhook.
_JOB = """
    INSERT INTO jobs (id, name, kwargs, queue, correlation_id, ring_at)
    VALUES (%(job)s, 'prune', '{}', 'maintenance', %(org)s, now()) ON CONFLICT DO NOTHING;
"""
_ATTEMPTS = (
    _JOB
    + """
    INSERT INTO job_attempts (job_id, attempt, worker, started_at)
    SELECT %(job)s, %(rows)s * 100 + n, 'w', now() FROM generate_series(1, %(rows)s) n
"""
)
_RELATED = (
    _JOB
    + """
    INSERT INTO jobs (id, name, kwargs, queue, correlation_id, ring_at)
    SELECT 'job_' || %(tag)s || n, 'prune', '{}', 'maintenance', %(org)s, now()
    FROM generate_series(1, %(rows)s) n
"""
)
_CAUSES = """
    INSERT INTO jobs (id, name, kwargs, queue, cause, correlation_id, ring_at)
    SELECT CASE n WHEN last THEN %(job)s ELSE 'job_' || %(org)s || n END, 'prune', '{}',
        'maintenance', 'job_' || %(org)s || n - 1, 'cor', now()
    FROM (SELECT %(rows)s + (%(rows)s > 1)::integer AS last) x, generate_series(0, last) n
    ON CONFLICT (id) DO UPDATE SET cause = excluded.cause
"""
_ACTIONS = """
    INSERT INTO operator_acts (id, act, subject, operator, why, acted_at)
    SELECT 'act_' || %(tag)s || n, 'test.done', %(org)s, 'ann', 'x', now()
    FROM generate_series(1, %(rows)s) n
"""

_ALERTS = """
    INSERT INTO alerts (kind, organization_id, subject, severity, details, raised_at)
    SELECT 'payment_unsettled', %(org)s, %(tag)s || n, 'info', '{}', now()
    FROM generate_series(1, %(rows)s) n
"""
_THRESHOLDS = """
    INSERT INTO wallet_thresholds (organization_id, threshold_micros, set_by, set_why, set_at)
    SELECT %(org)s, %(rows)s * 1000 + n, 'ann', 'x', now() FROM generate_series(1, %(rows)s) n
"""

_CALLS = """
    INSERT INTO calls (organization_id, id, direction, status, currency, micros_per_minute,
        increment_seconds, minimum_micros, ended_seen_at, duration_ms, cost_micros, settled_by,
        settled_at, created_at)
    SELECT %(org)s, %(rows)s || '-' || n, 'inbound', 'ended', 'USD', 60, 1, 0, t, 1000, 10,
        'report', t, t
    FROM (SELECT n, now() - (n + (%(rows)s > 1)::integer) * interval '1 day' AS t
          FROM generate_series(1, %(rows)s) n) x
"""
_TIMELINE = """
    INSERT INTO calls (organization_id, id, direction, status, currency, micros_per_minute,
        increment_seconds, minimum_micros, created_at)
    VALUES (%(org)s, %(job)s, 'inbound', 'ringing', 'USD', 60, 1, 0, now()) ON CONFLICT DO NOTHING;
    INSERT INTO call_timeline (organization_id, call_id, at, what)
    SELECT %(org)s, %(job)s, now(), 'status' FROM generate_series(1, %(rows)s)
"""
_RATES = """
    INSERT INTO call_rates (organization_id, route, micros_per_minute, increment_seconds,
        minimum_micros, set_by, set_why, set_at)
    SELECT %(org)s, 'outbound:+' || %(rows)s || n, 60, 1, 0, 'ann', 'x', now()
    FROM generate_series(1, %(rows)s) n
"""
_ENTRY_POINTS = """
    INSERT INTO call_doors (kind, external_id, organization_id, created_at)
    SELECT 'assistant', %(tag)s || n, %(org)s, now() FROM generate_series(1, %(rows)s) n
"""


def make_organizations(database, _org, rows):
    for _ in range(rows):
        make_organization(database)


def make_entries(database, org, rows):
    def work(session):
        for row in range(rows):
            wallet.credit(
                session,
                org,
                key=f"{rows} {row}",
                amount_micros=1_000_000,
                currency="USD",
                now=clock(session),
            )

    database.run(work)


#: Each list: its command, what makes its rows, and the key of its rows in the output.
LISTS = {
    "organizations": ("org list --limit 1000", make_organizations, None),
    "subscriptions": ("org show ORG", _SUBSCRIPTIONS, "subscriptions"),
    "brands": ("org show ORG", _BRANDS, "brands"),
    "campaigns of an organization": ("org show ORG", _CAMPAIGNS, "campaigns"),
    "campaigns": ("campaign list --org ORG", _CAMPAIGNS, None),
    "entries": ("wallet history ORG", make_entries, None),
    "jobs": ("job list --org ORG", _JOBS, None),
    "attempts": ("job show JOB", _ATTEMPTS, "attempts"),
    "causes": ("job show JOB", _CAUSES, "causes"),
    "related jobs": ("job show JOB", _RELATED, "related_jobs"),
    "schedules": ("schedule list", _SCHEDULES, None),
    "processes": ("worker list", _PROCESSES, None),
    "alerts": ("alert list --org ORG", _ALERTS, None),
    "thresholds": ("wallet thresholds ORG", _THRESHOLDS, None),
    "calls": ("call list --all --org ORG", _CALLS, None),
    "costs": ("call costs --org ORG", _CALLS, None),
    "timeline": ("call show JOB --org ORG", _TIMELINE, "timeline"),
    "rates": ("call rate list ORG", _RATES, None),
    "entry points": ("call entry-point list ORG", _ENTRY_POINTS, None),
    "operator actions": ("action list --org ORG", _ACTIONS, None),
}


@pytest.fixture
def read(shared_urls, monkeypatch):
    """A function that runs a command; it returns its output and its statements."""
    monkeypatch.setenv("DATABASE_URL", shared_urls.app_url)
    monkeypatch.setenv("REDIS_URL", shared_urls.redis_url)

    def invoke(arguments):
        with recorded() as sent:
            done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout), len(sent)

    return invoke


@pytest.mark.parametrize("name", LISTS)
def test_list_sends_the_same_statements_for_many_rows(read, shared, shared_urls, name):
    arguments, make, key = LISTS[name]
    org = make_organization(shared)
    job = f"job_of_{org}"
    arguments = [{"ORG": org, "JOB": job}.get(argument, argument) for argument in arguments.split()]

    def rows_and_statements(more):
        if callable(make):
            make(shared, org, more)
        else:
            values = {"org": org, "job": job, "tag": f"{org}{more}x", "rows": more}
            with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
                for statement in make.split(";"):
                    owner.execute(statement, values)
        data, statements = read(arguments)
        return len(data if key is None else data[key]), statements

    few, statements = rows_and_statements(1)
    assert rows_and_statements(MANY - 1) == (few + MANY - 1, statements)
    assert few > 0
    assert statements > 0
