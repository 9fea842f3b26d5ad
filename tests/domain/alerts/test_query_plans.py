"""Query plans: among many cleared alerts, a list reads only what it returns."""

from __future__ import annotations

import psycopg
import pytest

from db.address import driver_url
from domain.alerts.queries import list_alerts
from tests.support.statements import pages_read
from tests.support.world import make_organization

#: Bound in pages. The whole table has about 400 pages.
_FEW = 60
#: Thirty thousand alerts, all cleared but ten. The oldest hundred have a kind of their own.
_CROWD = """
    INSERT INTO alerts (kind, organization_id, subject, severity, details, raised_at, cleared_at)
    SELECT CASE WHEN n > 100 THEN 'low_balance' ELSE 'call_shortfall' END,
        (%(orgs)s::text[])[n %% 100 + 1], n::text, 'info', '{}', now(),
        CASE WHEN n > 10 THEN now() END
    FROM generate_series(1, 30000) n
"""


@pytest.fixture(scope="module")
def crowd(shared, shared_urls):
    """Many alerts of a hundred organizations; returns one of these."""
    organizations = [make_organization(shared) for _ in range(100)]
    # Connect as the owner, whose statements have no time limit.
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute(_CROWD, {"orgs": organizations})
        owner.execute("VACUUM ANALYZE alerts")
    return organizations[5]


@pytest.mark.parametrize(
    ("of_one", "filters", "rows"),
    [
        (False, {}, 10),
        (False, {"kind": "call_shortfall"}, 10),
        (False, {"cleared": True}, 20),
        (False, {"cleared": True, "kind": "call_shortfall"}, 20),
        (False, {"cleared": True, "after": 15_000}, 20),
        (True, {}, 1),
        (True, {"cleared": True}, 20),
        (True, {"cleared": True, "kind": "low_balance"}, 20),
    ],
)
def test_a_list_of_alerts_reads_few_pages_among_many(crowd, shared, of_one, filters, rows):
    given = filters | ({"organization_id": crowd} if of_one else {})

    def read(session):
        return list_alerts(session, **given, limit=20)

    assert len(shared.run(read)) == rows
    assert 0 < shared.run(lambda session: pages_read(session, read)) <= _FEW
