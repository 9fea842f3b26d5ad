"""Subaccounts: one lease holder at a time, and generations that change meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.outcomes import NotYet
from base.problems.providers import SUBACCOUNT_CLOSED, SUBACCOUNT_MISSING
from db.locks import BrandNotFound, lock_brand
from domain import organizations, subaccounts
from tests.db.support import at_once, wait_for_waiters
from tests.domain.support import (
    T0,
    brand,
    columns_of,
    later,
    make_brand,
    refresh_subscription,
    staged,
    subscribe,
)

ACTIVE, SUSPENDED = TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED


@pytest.fixture
def scene(shared, org):
    """The IDs of a subscription and of a brand that should be active."""
    external_id = subscribe(shared, org)
    return external_id, make_brand(shared, org)


def take_lease(database, brand_id, *, lease=60.0, unsure=120.0):
    return database.run(
        lambda s: subaccounts.take_lease(s, brand_id, lease_seconds=lease, unsure_seconds=unsure)
    )


def record_state(database, lease, status, now=T0):
    found = SubaccountFacts(lease.sid, TwilioStatus(status))
    return database.run(lambda s: subaccounts.record_state(s, lease, found, now))


def release(database, lease, **more):
    return database.run(lambda s: subaccounts.release_lease(s, lease, **more))


def expire(database, brand_id):
    database.run(
        lambda s: s.execute(
            text("UPDATE brands SET twilio_lease_until = clock_timestamp() WHERE id = :id"),
            {"id": brand_id},
        )
    )


def test_lease_holder_gets_the_desired_state_and_its_generation(shared, org, scene):
    external_id, brand_id = scene
    lease = take_lease(shared, brand_id)
    assert (lease.desired, lease.generation) == (ACTIVE, 0)
    assert lease.sid == brand(shared, brand_id).twilio_subaccount_sid
    release(shared, lease)
    refresh_subscription(shared, external_id, org, "suspended")
    lease = take_lease(shared, brand_id)
    assert (lease.desired, lease.generation) == (SUSPENDED, 1)


def test_one_lease_holder_at_a_time(shared, scene):
    leases = at_once([lambda: take_lease(shared, scene[1])] * 8)
    (lease,) = [one for one in leases if not isinstance(one, NotYet)]
    assert brand(shared, scene[1]).twilio_lease_token == lease.token
    release(shared, lease)
    assert take_lease(shared, scene[1]).token != lease.token


def test_a_state_as_desired_is_recorded_as_converged(shared, scene):
    lease = take_lease(shared, scene[1])
    assert record_state(shared, lease, "active", later(5)) is None
    found = brand(shared, scene[1])
    assert (found.twilio_actual, found.twilio_actual_at) == ("active", later(5))
    assert found.twilio_converged == found.twilio_generation == 0
    assert release(shared, lease) is False
    assert brand(shared, scene[1]).twilio_lease_token is None


def test_state_that_differs_from_the_desired_one_is_tried_again(shared, scene):
    lease = take_lease(shared, scene[1])
    again = record_state(shared, lease, "suspended")
    assert (again.desired, again.generation, again.token) == (ACTIVE, 0, lease.token)
    assert brand(shared, scene[1]).twilio_converged is None
    assert record_state(shared, again, "active") is None


def test_desired_state_that_changed_meanwhile_is_tried_again(shared, org, scene):
    # Given a lease holder that is about to activate the subaccount
    external_id, brand_id = scene
    lease = take_lease(shared, brand_id)
    # When the desired state changes to suspended meanwhile
    refresh_subscription(shared, external_id, org, "suspended")
    # Then the result for the old desired state is not final
    again = record_state(shared, lease, "active")
    assert (again.desired, again.generation) == (SUSPENDED, 1)
    assert brand(shared, brand_id).twilio_converged is None
    assert record_state(shared, again, "suspended") is None
    assert brand(shared, brand_id).twilio_converged == 1


def test_desired_state_changed_and_restored_is_a_newer_generation(shared, org, scene):
    # Given a lease holder that set the state that was desired then and is desired again now
    external_id, brand_id = scene
    lease = take_lease(shared, brand_id)
    refresh_subscription(shared, external_id, org, "suspended")
    refresh_subscription(shared, external_id, org, "active")
    # Then it reads once more before it believes, because another holder's request may lie in
    # between
    again = record_state(shared, lease, "active")
    assert (again.desired, again.generation) == (ACTIVE, 2)
    assert record_state(shared, again, "active") is None
    assert brand(shared, brand_id).twilio_converged == 2


def test_outdated_lease_holder_changes_nothing(shared, scene):
    # Given a holder whose lease ran out, and another that took over
    brand_id = scene[1]
    outdated = take_lease(shared, brand_id)
    expire(shared, brand_id)
    newest = take_lease(shared, brand_id)
    record_state(shared, newest, "active", later(5))
    before = columns_of(brand(shared, brand_id))
    # When the outdated holder records what it saw
    assert record_state(shared, outdated, "suspended", later(60)) is None
    assert release(shared, outdated, problem="old news") is False
    # Then nothing changed, including the lease
    assert columns_of(brand(shared, brand_id)) == before
    with pytest.raises(NotYet):
        take_lease(shared, brand_id)


def test_lost_request_of_an_outdated_lease_holder_causes_a_new_read(shared, org, scene):
    # Given a holder that lost its lease to another, which has finished its work
    brand_id = scene[1]
    outdated = take_lease(shared, brand_id)
    expire(shared, brand_id)
    newest = take_lease(shared, brand_id, unsure=0)
    assert record_state(shared, newest, "active") is None
    assert release(shared, newest) is False
    jobs = len(staged(shared, org, "converge_twilio"))
    # When the outdated holder returns its lease, with a request that may still take effect
    release(shared, outdated, unsure_seconds=60)
    # Then the subaccount is unsure, and a job reads it again
    assert len(staged(shared, org, "converge_twilio")) == jobs + 1
    lease = take_lease(shared, brand_id)
    assert release(shared, lease) is True


def test_sent_request_of_an_outdated_lease_holder_causes_a_new_read(shared, org, scene):
    # Given a holder that paused past its lease just before its request, and another that did the
    # work
    brand_id = scene[1]
    outdated = take_lease(shared, brand_id)
    expire(shared, brand_id)
    newest = take_lease(shared, brand_id)
    assert record_state(shared, newest, "active") is None
    release(shared, newest)
    jobs = len(staged(shared, org, "converge_twilio"))
    # When the outdated holder's request has taken effect after all
    seen = SubaccountFacts(outdated.sid, SUSPENDED)
    repeated = shared.run(
        lambda s: subaccounts.record_state(s, outdated, seen, later(1), sent_unsure_seconds=60)
    )
    # Then its result is not stored, but the subaccount is read again, repeatedly while it is unsure
    assert repeated is None
    assert brand(shared, brand_id).twilio_actual == "active"
    assert len(staged(shared, org, "converge_twilio")) == jobs + 1
    assert release(shared, take_lease(shared, brand_id)) is True


def test_takeover_makes_unsure_since_a_lost_request_may_still_land(shared, scene):
    brand_id = scene[1]
    take_lease(shared, brand_id)
    assert brand(shared, brand_id).twilio_unsure_until is None
    expire(shared, brand_id)
    second = take_lease(shared, brand_id, unsure=120)
    found = brand(shared, brand_id)
    assert found.twilio_unsure_until > found.twilio_lease_until
    # It is still unsure when that holder is done, and returning the lease does not change that
    record_state(shared, second, "active")
    assert release(shared, second) is True
    third = take_lease(shared, brand_id)
    assert brand(shared, brand_id).twilio_unsure_until == found.twilio_unsure_until
    assert release(shared, third) is True


def test_a_lost_request_makes_unsure_until_its_time_is_over(shared, scene):
    brand_id = scene[1]
    lease = take_lease(shared, brand_id)
    assert release(shared, lease, unsure_seconds=120) is True
    shared.run(
        lambda s: s.execute(
            text("UPDATE brands SET twilio_unsure_until = clock_timestamp() WHERE id = :id"),
            {"id": brand_id},
        )
    )
    assert release(shared, take_lease(shared, brand_id)) is False


def test_unsure_counts_from_when_the_last_read_began(shared, scene):
    # Given a lost request that could take effect until ten seconds ago
    brand_id = scene[1]

    def lease():
        taken = take_lease(shared, brand_id)
        shared.run(
            lambda s: s.execute(
                text(
                    "UPDATE brands SET twilio_unsure_until ="
                    " clock_timestamp() - interval '10 seconds' WHERE id = :id"
                ),
                {"id": brand_id},
            )
        )
        return taken

    # Then a read that began earlier cannot have seen its effect, and one that began later can
    assert release(shared, lease(), read_seconds_ago=3_600) is True
    assert release(shared, lease(), read_seconds_ago=0) is False


def test_wait_for_the_brands_row_does_not_make_a_read_newer(shared, shared_urls, scene):
    # Given a holder that returns its lease right after its read, and waits for a lock
    brand_id = scene[1]
    lease = take_lease(shared, brand_id)
    with Session(shared.engine) as other, ThreadPoolExecutor(1) as pool:
        lock_brand(other, brand_id)
        released = pool.submit(release, shared, lease)
        assert wait_for_waiters(shared_urls.owner_url, 1)
        # When a lost request could take effect after the read, but no longer when the wait is over
        other.execute(
            text("UPDATE brands SET twilio_unsure_until = clock_timestamp() WHERE id = :id"),
            {"id": brand_id},
        )
        other.commit()
        # Then the subaccount is unsure
        assert released.result(timeout=20) is True


@pytest.mark.parametrize(
    ("status", "problem"), [("closed", SUBACCOUNT_CLOSED), ("absent", SUBACCOUNT_MISSING)]
)
def test_state_that_only_an_operator_can_repair_is_not_tried_again(shared, scene, status, problem):
    lease = take_lease(shared, scene[1])
    assert record_state(shared, lease, status) is None
    release(shared, lease, problem=problem)
    found = brand(shared, scene[1])
    assert (found.twilio_actual, found.twilio_converged) == (status, None)
    assert found.twilio_problem == problem
    # After a manual repair, only the next good reading clears the problem
    lease = take_lease(shared, scene[1])
    assert brand(shared, scene[1]).twilio_problem is not None
    record_state(shared, lease, "active")
    assert brand(shared, scene[1]).twilio_problem is None


def test_a_brand_that_is_not_there_or_has_no_subaccount_is_refused(shared, org):
    bare = shared.run(
        lambda s: organizations.create_brand(
            s, org, name="bare", twilio_subaccount_sid=None, now=T0
        )
    )
    for brand_id in (bare, "brd_none"):
        with pytest.raises(BrandNotFound):
            take_lease(shared, brand_id)
