"""Query plans: among a year's calls, each query reads only what it needs."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from base.enums import CallBillingState
from db.address import driver_url
from domain.calls import queries as call_queries
from domain.calls.queries import find_call, list_calls
from tests.domain.calls.support import CallCustomer
from tests.domain.support import T0
from tests.support.statements import pages_read
from tests.support.world import make_organization

SID = "CA" + "7" * 32
OWN = {"live": False, "limit": 10}
SUNDAY = {"first_day": date(2025, 6, 1), "last_day": date(2025, 6, 1)}
#: Bounds in pages: for a few calls, and for a few of each of a hundred organizations. The whole
#: table has 990 pages.
_FEW, _A_FEW_EACH = 30, 800
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
    """One live call among those of a hundred organizations; returns one of these."""
    customer = CallCustomer(shared, make_organization(shared))
    customer.reserve("needle", seconds=10, provider="needle-vapi", appointment_id="needle-visit")
    customer.report_status(customer.call("needle"), "ringing", twilio_call_sid=SID)
    others = [make_organization(shared) for _ in range(100)]
    # Connect as the owner, whose statements have no time limit.
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute(_CROWD, {"orgs": others})
        owner.execute("VACUUM ANALYZE calls")
        owner.execute("VACUUM ANALYZE wallets")
    return others[5]


@pytest.mark.parametrize(
    ("asked", "pages_max"),
    [
        (lambda s, org: find_call(s, "needle"), _FEW),
        (lambda s, org: find_call(s, "needle-vapi"), _FEW),
        (lambda s, org: find_call(s, "needle-visit"), _FEW),
        (lambda s, org: find_call(s, SID), _FEW),
        (lambda s, org: find_call(s, "crowd5005", org), _FEW),
        (lambda s, org: find_call(s, "visit5005", org), _FEW),
        (lambda s, org: list_calls(s), _FEW),
        (lambda s, org: list_calls(s, refused_since=T0), _FEW),
        (lambda s, org: list_calls(s, live=False, unsettled=True), _FEW),
        (lambda s, org: list_calls(s, live=False, state=CallBillingState.HELD), _FEW),
        (lambda s, org: list_calls(s, live=False, state=CallBillingState.WITHHELD), _FEW),
        (lambda s, org: list_calls(s, **OWN, organization_id=org), _FEW),
        (lambda s, org: list_calls(s, **OWN, organization_id=org, after=f"{org}/crowd1005"), _FEW),
        (lambda s, org: list_calls(s, live=False, since=T0), _A_FEW_EACH),
        (lambda s, org: call_queries.costs_by_day(s, organization_id=org, **SUNDAY), _FEW),
        (lambda s, org: call_queries.costs_by_day(s, **SUNDAY), _A_FEW_EACH),
    ],
    ids=["id", "vapi", "visit", "sid", "own-id", "own-visit", "live", "refused",
         "unsettled", "held", "withheld", "own", "page",
         "since", "own-day", "day"],
)  # fmt: skip
def test_query_reads_its_own_rows_and_not_all_calls(crowd, shared, asked, pages_max):
    pages = shared.run(lambda session: pages_read(session, lambda s: asked(s, crowd)))
    assert 0 < pages <= pages_max
