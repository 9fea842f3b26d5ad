"""The states of jobs and the search for them.

Each job is in exactly one state, and pages have no gaps.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.jobs import operator as job_operator
from db.jobs import search as job_search
from db.jobs import staging
from db.jobs.search import ACTIONS_BY_STATE, SEARCHABLE_STATES, STATES, Filters, UnboundedSearch
from db.jobs.staging import Cause
from db.models import Job
from tests.db.jobs.support import WAIT, abandon, change, claim, fail, finish, notify_due, stage


def state_of(database, job_id):
    return database.run(lambda session: job_search.find(session, job_id)).state


def found(database, *, after=None, limit=50, **filters):
    rows = database.run(
        lambda session: job_search.page(session, Filters(**filters), after=after, limit=limit)
    )
    return [row.job.id for row in rows]


@pytest.fixture
def one_of_each(emptied):
    """One job in each state."""
    made = {state: stage(emptied, name=state, kwargs={"of": state}) for state in STATES}
    change(emptied, made["sent"], "ring_at = clock_timestamp()")
    assert notify_due(emptied) == [made["sent"]]
    claim(emptied, made["running"])
    claim(emptied, made["abandoned"])
    abandon(emptied, made["abandoned"])
    fail(emptied, claim(emptied, made["waiting"]), retry=WAIT)
    finish(emptied, claim(emptied, made["done"]))
    finish(emptied, claim(emptied, made["refused"]), outcome="refused", error="NO_SUCH: Thing_1")
    fail(emptied, claim(emptied, made["discarded"]), retry=None)
    emptied.run(lambda session: job_operator.discard(session, made["discarded"]))
    fail(emptied, claim(emptied, made["dead"]), retry=None)
    return made


def test_each_job_is_in_exactly_one_state(emptied, one_of_each):
    assert {name: state_of(emptied, job_id) for name, job_id in one_of_each.items()} == {
        state: state for state in STATES
    }
    # And the states exclude each other
    for state, condition in STATES.items():
        ids = emptied.run(lambda s, given=condition: s.scalars(select(Job.id).where(given)).all())
        assert ids == [one_of_each[state]]


def test_open_means_not_done_and_not_dead(emptied, one_of_each):
    owed = {"staged", "sent", "running", "abandoned", "waiting"}
    assert set(found(emptied, state="open")) == {one_of_each[state] for state in owed}


def test_possible_actions_are_those_that_the_row_allows(emptied, one_of_each):
    acts = {
        "redrive": job_operator.redrive,
        "discard": job_operator.discard,
        "run-now": job_operator.run_now,
    }
    for state, job_id in one_of_each.items():
        for name, act in acts.items():
            with Session(emptied.engine) as session:
                # Try the action and roll it back
                assert act(session, job_id) is (name in ACTIONS_BY_STATE.get(state, ())), (
                    state,
                    name,
                )
                session.rollback()


def test_every_filter_returns_only_matching_jobs(emptied, one_of_each):
    since = emptied.now() - timedelta(minutes=5)
    assert found(emptied, state="refused", error="no_such") == [one_of_each["refused"]]
    assert found(emptied, state="refused", error="no%such") == []
    assert found(emptied, state="refused", error="Thing_") == [one_of_each["refused"]]
    assert found(emptied, since=since, name="dead") == [one_of_each["dead"]]
    assert found(emptied, since=since, arguments={"of": "done"}) == [one_of_each["done"]]
    assert found(emptied, since=since, arguments={"of": "done", "x": "y"}) == []
    assert found(emptied, since=since, queue="billing") == []
    assert len(found(emptied, since=since, queue="safety")) == len(STATES)


def test_time_range_includes_its_start_and_not_its_end(emptied):
    first, second = stage(emptied), stage(emptied)
    instants = {
        job_id: emptied.run(lambda s, one=job_id: s.get_one(Job, one).staged_at)
        for job_id in (first, second)
    }
    assert found(emptied, since=instants[second]) == [second]
    assert found(emptied, until=instants[second]) == [first]
    assert found(emptied, since=instants[first], until=instants[second]) == [first]


def test_organizations_jobs_are_found_by_it_alone(emptied):
    def work(session):
        return [
            staging.insert(session, name="n", queue="safety", kwargs={}, organization_id=one)
            for one in ("org_a", "org_b")
        ]

    first, _ = emptied.run(work)
    assert found(emptied, organization_id="org_a", name="n") == [first]


@pytest.mark.parametrize("state", [None, "done"])
@pytest.mark.parametrize(
    "seeking", [{"name": "x"}, {"queue": "safety"}, {"error": "x"}, {"arguments": {"a": "b"}}]
)
def test_search_that_would_read_every_job_is_refused(emptied, state, seeking):
    with pytest.raises(UnboundedSearch):
        found(emptied, state=state, **seeking)
    # With a time range, an organization or an indexed state the search is allowed
    assert found(emptied, state=state, since=emptied.now(), **seeking) == []
    assert found(emptied, state=state, organization_id="org_none", **seeking) == []
    assert found(emptied, state="dead", **seeking) == []


def test_pages_have_no_gap_or_repeat_while_jobs_are_staged(emptied):
    # Given seven jobs
    expected = sorted((stage(emptied) for _ in range(7)), reverse=True)
    pages, after = [], None
    # When they are read page by page, with another job staged after each page
    while page := found(emptied, state="open", after=after, limit=3):
        pages.append(page)
        after = page[-1]
        stage(emptied)
    # Then each of the seven was returned once, newest first
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [one for page in pages for one in page] == expected


def test_family_of_a_job_has_its_event_its_causes_and_its_siblings(emptied):
    # Given an event, its job, and two jobs that this job staged
    emptied.run(
        lambda s: s.execute(
            text(
                "INSERT INTO inbox (id, source, external_id, event_type, body, body_sha256,"
                " correlation_id, received_at) VALUES ('evt_1', 'paypal', 'WH-1', 'T', 'b',"
                " sha256('b'), 'cor_1', now())"
            )
        )
    )

    def staged_by(cause):
        def work(session):
            staging.set_cause(session, Cause(cause, "cor_1"))
            return staging.insert(
                session, name="n", queue="safety", kwargs={}, organization_id=None
            )

        return emptied.run(work)

    parent = staged_by("evt_1")
    child, sibling = staged_by(parent), staged_by(parent)
    stage(emptied)

    # When the child's family is requested
    family = emptied.run(lambda s: job_search.family(s, s.get_one(Job, child)))

    # Then it is complete and has no unrelated job
    assert family.event.external_id == "WH-1"
    assert [one.job.id for one in family.causes] == [parent]
    assert [one.job.id for one in family.others] == [sibling]

    # And the chain ends at a pruned cause
    emptied.run(lambda s: s.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": parent}))
    family = emptied.run(lambda s: job_search.family(s, s.get_one(Job, child)))
    assert (family.event, family.causes) == (None, [])


def test_every_state_can_be_searched():
    assert set(SEARCHABLE_STATES) == {"open", *STATES}
    assert set(ACTIONS_BY_STATE) <= set(STATES)
