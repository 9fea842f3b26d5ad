"""Subaccounts: one lease holder at a time, and generations that change meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.outcomes import NotYet
from db.locks import BrandNotFound, lock_brand
from domain import organizations, subaccounts
from tests.db.support import at_once, wait_for_waiters
from tests.domain.support import T0, brand, columns_of, later, look, make_brand, staged, subscribe

ACTIVE, SUSPENDED = TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED


@pytest.fixture
def scene(shared, org):
    """The IDs of a subscription and of a brand that should be active."""
    external_id = subscribe(shared, org)
    return external_id, make_brand(shared, org)


def take(database, brand_id, *, lease=60.0, unsure=120.0):
    return database.run(
        lambda s: subaccounts.take(s, brand_id, lease_seconds=lease, unsure_seconds=unsure)
    )


def record(database, hand, status, now=T0):
    found = SubaccountFacts(hand.sid, TwilioStatus(status))
    return database.run(lambda s: subaccounts.record(s, hand, found, now))


def release(database, hand, **more):
    return database.run(lambda s: subaccounts.give_back(s, hand, **more))


def expire(database, brand_id):
    database.run(
        lambda s: s.execute(
            text("UPDATE brands SET twilio_lease_until = clock_timestamp() WHERE id = :id"),
            {"id": brand_id},
        )
    )


def test_lease_holder_gets_the_desired_state_and_its_generation(shared, org, scene):
    external_id, brand_id = scene
    hand = take(shared, brand_id)
    assert (hand.desired, hand.generation) == (ACTIVE, 0)
    assert hand.sid == brand(shared, brand_id).twilio_subaccount_sid
    release(shared, hand)
    look(shared, external_id, org, "suspended")
    hand = take(shared, brand_id)
    assert (hand.desired, hand.generation) == (SUSPENDED, 1)


def test_one_lease_holder_at_a_time(shared, scene):
    hands = at_once([lambda: take(shared, scene[1])] * 8)
    (hand,) = [one for one in hands if not isinstance(one, NotYet)]
    assert brand(shared, scene[1]).twilio_lease_token == hand.token
    release(shared, hand)
    assert take(shared, scene[1]).token != hand.token


def test_a_state_as_desired_is_recorded_as_converged(shared, scene):
    hand = take(shared, scene[1])
    assert record(shared, hand, "active", later(5)) is None
    found = brand(shared, scene[1])
    assert (found.twilio_actual, found.twilio_actual_at) == ("active", later(5))
    assert found.twilio_converged == found.twilio_generation == 0
    assert release(shared, hand) is False
    assert brand(shared, scene[1]).twilio_lease_token is None


def test_state_that_differs_from_the_desired_one_is_tried_again(shared, scene):
    hand = take(shared, scene[1])
    again = record(shared, hand, "suspended")
    assert (again.desired, again.generation, again.token) == (ACTIVE, 0, hand.token)
    assert brand(shared, scene[1]).twilio_converged is None
    assert record(shared, again, "active") is None


def test_desired_state_that_changed_meanwhile_is_tried_again(shared, org, scene):
    # Given a lease holder that is about to activate the subaccount
    external_id, brand_id = scene
    hand = take(shared, brand_id)
    # When the desired state changes to suspended meanwhile
    look(shared, external_id, org, "suspended")
    # Then the result for the old desired state is not final
    again = record(shared, hand, "active")
    assert (again.desired, again.generation) == (SUSPENDED, 1)
    assert brand(shared, brand_id).twilio_converged is None
    assert record(shared, again, "suspended") is None
    assert brand(shared, brand_id).twilio_converged == 1


def test_there_and_back_again_meanwhile_is_a_newer_generation_too(shared, org, scene):
    # Given a lease holder that set the state that was desired then and is desired again now
    external_id, brand_id = scene
    hand = take(shared, brand_id)
    look(shared, external_id, org, "suspended")
    look(shared, external_id, org, "active")
    # Then it reads once more before it believes, because another holder's request may lie in
    # between
    again = record(shared, hand, "active")
    assert (again.desired, again.generation) == (ACTIVE, 2)
    assert record(shared, again, "active") is None
    assert brand(shared, brand_id).twilio_converged == 2


def test_outdated_lease_holder_changes_nothing(shared, scene):
    # Given a holder whose lease ran out, and another that took over
    brand_id = scene[1]
    outdated = take(shared, brand_id)
    expire(shared, brand_id)
    newest = take(shared, brand_id)
    record(shared, newest, "active", later(5))
    before = columns_of(brand(shared, brand_id))
    # When the outdated holder records what it saw
    assert record(shared, outdated, "suspended", later(60)) is None
    assert release(shared, outdated, problem="old news") is False
    # Then nothing changed, including the lease
    assert columns_of(brand(shared, brand_id)) == before
    with pytest.raises(NotYet):
        take(shared, brand_id)


def test_lost_request_of_an_outdated_lease_holder_causes_a_new_read(shared, org, scene):
    # Given a holder that lost its lease to another, which has finished its work
    brand_id = scene[1]
    outdated = take(shared, brand_id)
    expire(shared, brand_id)
    newest = take(shared, brand_id, unsure=0)
    assert record(shared, newest, "active") is None
    assert release(shared, newest) is False
    jobs = len(staged(shared, org, "converge_twilio"))
    # When the outdated holder returns its lease, with a request that may still take effect
    release(shared, outdated, unsure_seconds=60)
    # Then the subaccount is unsure, and a job reads it again
    assert len(staged(shared, org, "converge_twilio")) == jobs + 1
    hand = take(shared, brand_id)
    assert release(shared, hand) is True


def test_sent_request_of_an_outdated_lease_holder_causes_a_new_read(shared, org, scene):
    # Given a holder that paused past its lease just before its request, and another that did the
    # work
    brand_id = scene[1]
    outdated = take(shared, brand_id)
    expire(shared, brand_id)
    newest = take(shared, brand_id)
    assert record(shared, newest, "active") is None
    release(shared, newest)
    jobs = len(staged(shared, org, "converge_twilio"))
    # When the outdated holder's request has taken effect after all
    seen = SubaccountFacts(outdated.sid, SUSPENDED)
    told = shared.run(
        lambda s: subaccounts.record(s, outdated, seen, later(1), sent_unsure_seconds=60)
    )
    # Then its result is not stored, but the subaccount is read again, repeatedly while it is unsure
    assert told is None
    assert brand(shared, brand_id).twilio_actual == "active"
    assert len(staged(shared, org, "converge_twilio")) == jobs + 1
    assert release(shared, take(shared, brand_id)) is True


def test_takeover_makes_unsure_since_a_lost_request_may_still_land(shared, scene):
    brand_id = scene[1]
    take(shared, brand_id)
    assert brand(shared, brand_id).twilio_unsure_until is None
    expire(shared, brand_id)
    second = take(shared, brand_id, unsure=120)
    found = brand(shared, brand_id)
    assert found.twilio_unsure_until > found.twilio_lease_until
    # It is still unsure when that holder is done, and returning the lease does not change that
    record(shared, second, "active")
    assert release(shared, second) is True
    third = take(shared, brand_id)
    assert brand(shared, brand_id).twilio_unsure_until == found.twilio_unsure_until
    assert release(shared, third) is True


def test_a_lost_request_makes_unsure_until_its_time_is_over(shared, scene):
    brand_id = scene[1]
    hand = take(shared, brand_id)
    assert release(shared, hand, unsure_seconds=120) is True
    shared.run(
        lambda s: s.execute(
            text("UPDATE brands SET twilio_unsure_until = clock_timestamp() WHERE id = :id"),
            {"id": brand_id},
        )
    )
    assert release(shared, take(shared, brand_id)) is False


def test_unsure_counts_from_when_the_last_read_began(shared, scene):
    # Given a lost request that could take effect until ten seconds ago
    brand_id = scene[1]

    def hand():
        taken = take(shared, brand_id)
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
    assert release(shared, hand(), read_seconds_ago=3_600) is True
    assert release(shared, hand(), read_seconds_ago=0) is False


def test_wait_for_the_brands_row_does_not_make_a_read_newer(shared, shared_urls, scene):
    # Given a holder that returns its lease right after its read, and waits for a lock
    brand_id = scene[1]
    hand = take(shared, brand_id)
    with Session(shared.engine) as other, ThreadPoolExecutor(1) as pool:
        lock_brand(other, brand_id)
        released = pool.submit(release, shared, hand)
        assert wait_for_waiters(shared_urls.owner_url, 1)
        # When a lost request could take effect after the read, but no longer when the wait is over
        other.execute(
            text("UPDATE brands SET twilio_unsure_until = clock_timestamp() WHERE id = :id"),
            {"id": brand_id},
        )
        other.commit()
        # Then the subaccount is unsure
        assert released.result(timeout=20) is True


@pytest.mark.parametrize("status", ["closed", "absent"])
def test_state_that_only_an_operator_can_repair_is_not_tried_again(shared, scene, status):
    hand = take(shared, scene[1])
    assert record(shared, hand, status) is None
    release(shared, hand, problem=f"SUBACCOUNT_{status.upper()}")
    found = brand(shared, scene[1])
    assert (found.twilio_actual, found.twilio_converged) == (status, None)
    assert found.twilio_problem == f"SUBACCOUNT_{status.upper()}"
    # After a manual repair, only the next good reading clears the problem
    hand = take(shared, scene[1])
    assert brand(shared, scene[1]).twilio_problem is not None
    record(shared, hand, "active")
    assert brand(shared, scene[1]).twilio_problem is None


def test_a_brand_that_is_not_there_or_has_no_subaccount_is_refused(shared, org):
    bare = shared.run(
        lambda s: organizations.create_brand(
            s, org, name="bare", twilio_subaccount_sid=None, now=T0
        )
    )
    for brand_id in (bare, "brd_none"):
        with pytest.raises(BrandNotFound):
            take(shared, brand_id)
