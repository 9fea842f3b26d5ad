"""Query plans: among many finished jobs, a search reads only what it returns."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from db.address import driver_url
from db.jobs.search import SEARCHABLE_STATES, Filters, page
from tests.support.statements import pages_read

#: Bound in pages. The whole table has about 700 pages.
_FEW = 60
ENDS = {"refused", "discarded", "dead"}
#: Thirty thousand jobs that are done, and ten of each other end among the oldest.
_CROWD = """
    INSERT INTO jobs (id, name, kwargs, organization_id, queue, correlation_id, done_at, outcome,
        dead_at)
    SELECT 'job_00' || lpad(n::text, 24, '0'), 'prune', '{}', 'org_' || n % 997, 'maintenance',
        'cor_' || n,
        CASE WHEN n % 4 < 3 OR n > 40 THEN now() END,
        CASE WHEN n > 40 OR n % 4 = 0 THEN 'done' WHEN n % 4 = 1 THEN 'refused'
             WHEN n % 4 = 2 THEN 'discarded' END,
        CASE WHEN n % 4 = 3 AND n <= 40 THEN now() END
    FROM generate_series(1, 30000) n
"""


@pytest.fixture(scope="module")
def crowd(shared, shared_urls):
    # Connect as the owner, whose statements have no time limit.
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute(_CROWD)
        owner.execute("VACUUM ANALYZE jobs")


@pytest.mark.parametrize("state", [None, *SEARCHABLE_STATES])
def test_search_by_state_reads_few_pages_among_many_jobs(crowd, shared, state):
    def search(session):
        return page(session, Filters(state), limit=20)

    found = shared.run(search)
    assert len(found) == {None: 20, "done": 20}.get(state, 10 * (state in ENDS))
    assert 0 < shared.run(lambda session: pages_read(session, search)) <= _FEW


@pytest.mark.parametrize(
    "filters",
    [
        Filters(organization_id="org_5"),
        Filters("discarded", name="prune"),
        Filters(since=datetime(2100, 1, 1, tzinfo=UTC), name="prune"),
    ],
    ids=["organization", "discarded-name", "since-name"],
)
def test_search_by_other_filters_reads_few_pages(crowd, shared, filters):
    pages = shared.run(lambda s: pages_read(s, lambda s: page(s, filters, limit=20)))
    assert 0 < pages <= _FEW
