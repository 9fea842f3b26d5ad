"""Of a year's calls, what is read is what is asked for."""

from __future__ import annotations

from datetime import date
from functools import partial

import psycopg
import pytest
from sqlalchemy import event, text

from db.engine import driver_url
from domain.calls import reading
from domain.calls.reading import find_call, list_calls
from tests.domain.calls.calls_by_hand import T0, Line
from tests.world import make_organization

DAY = T0.date()
SID = "CA" + "7" * 32
WEEK = {"first_day": date(2025, 6, 1), "last_day": date(2025, 6, 7)}
OWN_DAY = {"first_day": DAY, "last_day": DAY}
#: Thirty thousand calls over a year, all over.
_CROWD = """
    INSERT INTO calls (organization_id, id, provider_call_id, twilio_call_sid, appointment_id,
        direction, status, currency, micros_per_minute, increment_seconds, minimum_micros,
        ended_seen_at, duration_ms, cost_micros, settled_by, settled_at, created_at)
    SELECT (%(orgs)s::text[])[n %% 100 + 1], 'crowd' || n, 'crowd-vapi' || n,
        'CA' || lpad(to_hex(n), 32, '0'), 'visit' || n, 'inbound', 'ended', 'USD', 60, 1, 0,
        t, 1000, 10, 'report', t, t
    FROM (SELECT n, timestamptz '2025-01-01' + n * interval '17 minutes' AS t
          FROM generate_series(1, 30000) n) x
"""


@pytest.fixture(scope="module")
def crowd(shared, shared_urls):
    """One call that lives, and those of a hundred other organizations."""
    line = Line(shared, make_organization(shared))
    line.reserve("needle", seconds=10, provider="needle-vapi", appointment_id="needle-visit")
    line.hear(line.call("needle"), "ringing", twilio_call_sid=SID)
    others = [make_organization(shared) for _ in range(100)]
    # As the owner, whose statements may take as long as a busy machine needs.
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute(_CROWD, {"orgs": others})
        owner.execute("VACUUM ANALYZE calls")
        owner.execute("VACUUM ANALYZE wallets")
    return line


@pytest.mark.parametrize(
    "asked",
    [
        lambda s, org: find_call(s, "needle"),
        lambda s, org: find_call(s, "needle-vapi"),
        lambda s, org: find_call(s, "needle-visit"),
        lambda s, org: find_call(s, SID, org),
        lambda s, org: find_call(s, "needle-visit", org),
        lambda s, org: list_calls(s),
        lambda s, org: list_calls(s, live=False, unsettled=True),
        lambda s, org: list_calls(s, live=False, organization_id=org),
        lambda s, org: list_calls(s, live=False, organization_id=org, after=f"{org}/needle"),
        lambda s, org: list_calls(s, live=False, since=T0),
        lambda s, org: reading.costs_by_day(s, organization_id=org, **OWN_DAY),
    ],
    ids=["id", "vapi", "visit", "sid", "own-visit", "live", "unsettled", "own", "page",
         "since", "own-day"],
)  # fmt: skip
def test_no_reading_goes_through_all_calls(crowd, shared, asked):
    plans = shared.run(lambda session: _plans_of(session, lambda: asked(session, crowd.id)))
    assert plans
    assert [plan for plan in plans if "Seq Scan on calls" in plan] == []


def test_a_report_over_all_organizations_reads_its_days_alone(crowd, shared):
    # That of Debian, 15, reads all of them here.
    if shared.run(lambda session: session.scalar(text("SHOW server_version_num"))) < "180000":
        pytest.skip("planned otherwise before PostgreSQL 18")
    work = partial(reading.costs_by_day, **WEEK)
    (plan,) = shared.run(lambda session: _plans_of(session, lambda: work(session)))
    assert "Seq Scan on calls" not in plan


def _plans_of(session, work) -> list[str]:
    """The plan of each statement that work sends, as it would be made for its own values."""
    connection, seen = session.connection(), []

    def note(_conn, cursor, statement, parameters, _context, _many):
        seen.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    work()
    event.remove(connection, "before_cursor_execute", note)
    return [
        "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {one}", values).all())
        for one, values in seen
    ]
