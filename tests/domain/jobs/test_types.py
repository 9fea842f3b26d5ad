"""Job types: each declared once, with a policy that ends and fixed arguments."""

from __future__ import annotations

import pytest

from base.enums import Provider, Queue
from base.outcomes import Refused
from db.models import Job
from db.waits import AGAIN_SECONDS_MAX, LEASE_SECONDS_MAX
from domain.jobs.declaration import KEY_KEPT_SECONDS, JobType, KeyForgotten, RetryPolicy
from domain.jobs.staging import open_arguments, stage, stage_many
from domain.jobs.types import (
    CONVERGE_TWILIO,
    FREEZE_WALLET,
    JOB_TYPES,
    REFRESH_CALL,
    REFRESH_SUBSCRIPTION,
)


def test_waits_double_up_to_the_cap_and_half_of_each_is_chance():
    policy = RetryPolicy(attempts=10, base_seconds=1, cap_seconds=60)
    for failures, full in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1_000, 60)]:
        waits = [policy.wait_seconds(failures) for _ in range(200)]
        assert all(full / 2 <= wait <= full for wait in waits)
        assert max(waits) > full * 0.8
        assert min(waits) < full * 0.7


def test_the_span_is_the_sum_of_the_longest_waits():
    assert RetryPolicy(attempts=1, base_seconds=1, cap_seconds=60).span_seconds == 0
    assert RetryPolicy(attempts=4, base_seconds=1, cap_seconds=60).span_seconds == 1 + 2 + 4
    assert RetryPolicy(attempts=5, base_seconds=1, cap_seconds=3).span_seconds == 1 + 2 + 3 + 3


def test_every_job_is_declared_under_its_own_name_and_stops_by_itself():
    assert set(JOB_TYPES) >= {
        "process_event",
        "enforce_organization",
        "converge_twilio",
        "look_at_subscription",
        "look_at_payment",
    }
    for name, job in JOB_TYPES.items():
        assert job.name == name
        assert isinstance(job.queue, Queue)
        assert len(name) <= 64
        assert job.lease_seconds > job.limit_seconds > 0
        assert job.policy.attempts >= 2
        assert job.policy.span_seconds < 4 * 86_400


def test_idempotency_keys_are_known_as_long_as_providers_document():
    assert KEY_KEPT_SECONDS == {
        Provider.PAYPAL: 72 * 3_600,
        Provider.STRIPE: 24 * 3_600,
        Provider.TWILIO: 0,
        Provider.VAPI: 0,
    }


def keyed(provider, attempts):
    policy = RetryPolicy(attempts=attempts, base_seconds=600, cap_seconds=600)
    return JobType("buy", Queue.BILLING, (), policy, True, 55, key_of=provider)


@pytest.mark.parametrize(
    ("provider", "most"),
    # An attempt may take its lease of 60 s, and 600 s pass between two attempts
    [(Provider.STRIPE, 131), (Provider.PAYPAL, 393), (Provider.TWILIO, 0), (Provider.VAPI, 0)],
)
def test_job_that_outlives_its_idempotency_key_cannot_be_declared(provider, most):
    if most:
        assert keyed(provider, most).total_seconds < KEY_KEPT_SECONDS[provider]
    with pytest.raises(KeyForgotten, match=f"buy goes on after {provider}"):
        keyed(provider, most + 1)


def test_the_share_of_chance_is_the_policys_own():
    steady = RetryPolicy(attempts=3, base_seconds=8, cap_seconds=60, jitter=0)
    assert {steady.wait_seconds(2) for _ in range(50)} == {16}


def test_a_refusal_is_permanent_for_every_job():
    assert all(Refused in job.policy.permanent for job in JOB_TYPES.values())


def test_job_that_calls_a_provider_does_not_give_up_within_twelve_hours():
    # Except a warning, which is useful only at once, and a call's refresh, which is staged again as
    # long as it is needed. The alert about the dead job informs the operators.
    ended_early = {"warn_call", "look_at_call"}
    for job in JOB_TYPES.values():
        if job.calls_provider and job.name not in ended_early:
            # Jitter may halve every wait
            assert job.policy.span_seconds / 2 > 12 * 3_600, job.name


def test_unread_subaccount_is_never_left_alone_for_more_than_a_minute():
    policy = CONVERGE_TWILIO.policy
    waits = [policy.wait_seconds(failures) for failures in range(1, policy.attempts)]
    assert max(waits) <= 60
    assert 24 * 3_600 < policy.span_seconds < 30 * 3_600


@pytest.mark.parametrize(
    "arguments",
    [{}, {"provider": "paypal"}, {"provider": "p", "external_id": "x", "more": "y"}],
)
def test_other_arguments_than_those_declared_are_a_bug(shared, arguments):
    with pytest.raises(TypeError, match="look_at_subscription takes"):
        shared.run(lambda s: stage(s, REFRESH_SUBSCRIPTION, None, **arguments))
    assert shared.run(lambda s: s.query(Job).count()) == 0


def test_job_is_staged_in_its_own_queue_by_default(shared):
    arguments = {"provider": "paypal", "external_id": "I-1"}

    def work(session):
        own = stage(session, REFRESH_SUBSCRIPTION, "org_1", **arguments)
        other = stage(
            session,
            FREEZE_WALLET,
            None,
            queue=Queue.MAINTENANCE,
            organization_id="o",
            reason="r",
            cause="c",
        )
        return [session.get_one(Job, one) for one in (own, other)]

    own, other = shared.run(work)
    assert (own.queue, own.organization_id, own.kwargs) == ("safety", "org_1", arguments)
    assert (other.queue, other.organization_id) == ("maintenance", None)
    shared.run(lambda s: [s.delete(s.get_one(Job, one.id)) for one in (own, other)])


def test_many_jobs_are_staged_at_once_and_listed_until_they_are_over(
    shared,
):
    many = [(f"org_{n}", {"organization_id": f"org_{n}", "call_id": f"c{n}"}) for n in range(3)]
    ids = shared.run(lambda s: stage_many(s, REFRESH_CALL, many))
    staged = shared.run(lambda s: [s.get_one(Job, one) for one in ids])
    assert [(job.organization_id, job.kwargs) for job in staged] == many
    assert {(job.name, job.queue) for job in staged} == {("look_at_call", "billing")}
    assert len({job.correlation_id for job in staged}) == 1
    assert shared.run(lambda s: open_arguments(s, REFRESH_CALL)) == {
        (f"org_{n}", f"c{n}") for n in range(3)
    }

    shared.run(lambda s: s.delete(s.get_one(Job, ids[0])))
    assert shared.run(lambda s: open_arguments(s, REFRESH_CALL)) == {
        ("org_1", "c1"),
        ("org_2", "c2"),
    }
    shared.run(lambda s: [s.delete(s.get_one(Job, one)) for one in ids[1:]])
    assert shared.run(lambda s: open_arguments(s, REFRESH_CALL)) == set()


def test_staging_many_does_nothing_for_none_or_with_wrong_arguments(shared):
    assert shared.run(lambda s: stage_many(s, REFRESH_CALL, [])) == []
    good = (None, {"organization_id": "o", "call_id": "c"})
    with pytest.raises(TypeError, match="look_at_call takes"):
        shared.run(lambda s: stage_many(s, REFRESH_CALL, [good, (None, {"call_id": "c"})]))
    assert shared.run(lambda s: s.query(Job).count()) == 0


def test_no_job_waits_longer_than_a_clock_that_was_set_back_allows():
    for job in JOB_TYPES.values():
        assert job.lease_seconds <= LEASE_SECONDS_MAX, job.name
        assert job.policy.cap_seconds <= AGAIN_SECONDS_MAX, job.name
