"""Automatic top-up: terms, decisions that are stored, and the times of checks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from base.enums import FreezeReason, Provider
from base.ids import new_id
from base.outcomes import Refused
from domain.top_ups import decisions as top_ups
from domain.top_ups.rule import DAY, DECISION_LIFE, GAP, RECHECK, Enough, TopUpCharge, Wait, Why
from domain.top_ups.settings import Method
from tests.db.support import at_once, scalar
from tests.domain.support import T0, credit, debit, figures, forget_jobs, later, staged
from tests.domain.wallet.hold_support import commit, release, reserve
from tests.domain.wallet.level_support import (
    CARD,
    CHARGEABLE,
    TERMS,
    begin,
    crossed,
    decide,
    decisions,
    notice,
    set_thresholds,
    settings,
    states,
    switch_off,
    switch_on,
    top_up,
)
from tests.domain.wallet.support import freeze, unfreeze

JOB = "decide_top_up"
NEW_ID = "SELECT ledger_new_id('job')"


def check_waits(database, org):
    """List the waits of the staged checks in seconds, by the database's clock."""
    rows = database.run(
        lambda session: session.execute(
            text(
                "SELECT extract(epoch FROM due_at - staged_at)::float AS wait FROM jobs"
                " WHERE organization_id = :org AND name = :name ORDER BY id"
            ),
            {"org": org, "name": JOB},
        ).all()
    )
    return [round(row.wait) for row in rows]


# The terms.


def test_top_up_is_switched_on_only_where_the_provider_can_charge(shared, org):
    with pytest.raises(Refused, match="CANNOT_CHARGE: paypal"):
        switch_on(shared, org, chargeable=frozenset())
    with pytest.raises(Refused, match="CANNOT_CHARGE: stripe"):
        switch_on(shared, org, method=Method(Provider.STRIPE, "pm_1"))
    assert settings(shared, org) is None


@pytest.mark.parametrize(
    "terms",
    [
        replace(TERMS, below_micros=0),
        replace(TERMS, amount_micros=0),
        replace(TERMS, amount_micros=251),
        replace(TERMS, day_cap_micros=10**15 + 1),
        replace(TERMS, day_cap_count=0),
        replace(TERMS, day_cap_count=101),
    ],
)
def test_terms_that_contradict_each_other_are_refused(shared, org, terms):
    with pytest.raises(Refused, match="INVALID_TERMS"):
        switch_on(shared, org, terms)
    assert settings(shared, org) is None


@pytest.mark.parametrize("method", ["", "  ", "m" * 201])
def test_a_payment_method_has_an_id(shared, org, method):
    with pytest.raises(Refused, match="INVALID_TERMS"):
        switch_on(shared, org, method=replace(CARD, external_id=method))


def test_terms_at_their_exact_limits_are_accepted(shared, org):
    switch_on(shared, org, replace(TERMS, amount_micros=250, day_cap_count=100))
    switch_on(shared, org, replace(TERMS, below_micros=10**15, day_cap_micros=10**15))
    assert settings(shared, org).below_micros == 10**15


def test_top_up_without_terms_cannot_be_switched_off(shared, org):
    with pytest.raises(Refused, match="TOP_UP_NOT_SET"):
        switch_off(shared, org)


# The crossing.


def test_falling_below_the_level_stages_the_decision_once(shared, low):
    (job,) = staged(shared, low, JOB)
    assert (job.queue, job.kwargs) == ("billing", {"organization_id": low})
    assert job.id.startswith("job_")
    assert len(job.id) == 30
    assert job.correlation_id == f"cor_{job.id[4:]}"
    assert (settings(shared, low).crossings, notice(shared, low)) == (1, None)
    debit(shared, low, 1)
    assert len(staged(shared, low, JOB)) == 1


def test_ids_made_by_the_database_sort_by_time_among_those_of_the_programs(shared_urls):
    makers = [lambda: new_id("job"), lambda: scalar(shared_urls.owner_url, NEW_ID)]
    made = [make() for _ in range(3) for make in makers]
    # The nine characters after the prefix are milliseconds; all clocks of one machine agree.
    assert [one[:13] for one in made] == sorted(one[:13] for one in made)
    assert (len(set(made)), {len(one) for one in made}) == (6, {30})


def test_concurrent_debits_over_the_level_stage_one_decision(shared, org):
    credit(shared, org, 150)
    switch_on(shared, org)
    at_once([lambda: debit(shared, org, 2)] * 60)
    assert len(staged(shared, org, JOB)) == 1
    assert settings(shared, org).crossings == 1


def test_switching_on_below_the_level_counts_as_crossing(shared, org):
    credit(shared, org, 49)
    switch_on(shared, org, now=later(7))
    found = settings(shared, org)
    assert (found.armed, found.crossings, found.crossed_at) == (False, 1, later(7))
    assert len(staged(shared, org, JOB)) == 1


def test_thresholds_and_the_level_are_watched_together(shared, low):
    set_thresholds(shared, low, 30)
    assert notice(shared, low) == 30
    debit(shared, low, 11)
    assert (crossed(shared, low), notice(shared, low)) == ([30], None)
    # The level was crossed before, so no new decision is staged.
    assert (len(staged(shared, low, JOB)), settings(shared, low).crossings) == (1, 1)
    top_up(shared, low, 25)
    assert (crossed(shared, low), notice(shared, low)) == ([], 50)


def test_organization_without_automatic_top_up_stages_nothing(shared, funded):
    switch_on(shared, funded)
    switch_off(shared, funded)
    set_thresholds(shared, funded, 50)
    debit(shared, funded, 90)
    assert (crossed(shared, funded), staged(shared, funded, JOB)) == ([50], [])
    assert decide(shared, funded) is None


# The decision.


def test_decision_is_stored_with_a_key_made_of_its_crossing(shared, low):
    assert decide(shared, low, later(1)) == TopUpCharge(100)
    (one,) = decisions(shared, low)
    assert one.idempotency_key == f"topup:{low}:1:1"
    assert (one.state, one.amount_micros, one.currency) == ("decided", 100, "USD")
    assert (one.provider, one.payment_method) == ("paypal", "card-1")
    assert (one.decided_at, one.expires_at) == (later(1), later(1) + DECISION_LIFE)
    # Nothing has moved, and nothing will before a provider has charged.
    assert figures(shared, low) == (40, 0)


def test_deciding_again_while_it_is_pending_adds_nothing(shared, low):
    decide(shared, low)
    assert decide(shared, low, later(1)) == Wait(T0 + DECISION_LIFE, Why.PENDING)
    assert states(shared, low) == ["decided"]


def test_concurrent_decisions_decide_once(shared, low):
    verdicts = at_once([lambda: decide(shared, low)] * 8)
    assert verdicts.count(TopUpCharge(100)) == 1
    assert states(shared, low) == ["decided"]


def test_a_second_pending_decision_is_refused_by_the_database_itself(shared, low):
    decide(shared, low)
    again = (
        "INSERT INTO top_up_decisions SELECT 'top_' || right(id, 26) || 'x', organization_id,"
        " idempotency_key || {key}, crossing, provider, payment_method, amount_micros, currency,"
        " {state}, decided_at, expires_at, charging_at, {ended} FROM top_up_decisions"
        " WHERE organization_id = :org"
    )
    cases = [("'x'", "'decided'", "NULL", "pending"), ("''", "'expired'", "now()", "key")]
    for key, state, ended, index in cases:
        statement = text(again.format(key=key, state=state, ended=ended))
        with pytest.raises(IntegrityError, match=index) as caught:
            shared.run(lambda session, one=statement: session.execute(one, {"org": low}))
        assert isinstance(caught.value.orig, errors.UniqueViolation)


def test_decision_that_is_rolled_back_leaves_no_trace(shared, low):
    with Session(shared.engine) as session:
        top_ups.decide(session, low, T0, chargeable=CHARGEABLE)
        session.rollback()
    assert states(shared, low) == []
    assert decide(shared, low) == TopUpCharge(100)
    assert decisions(shared, low)[0].idempotency_key == f"topup:{low}:1:1"


def test_level_is_armed_without_a_top_up_when_money_is_enough_again(shared, org):
    # Given a crossing by a hold that is released before the check
    credit(shared, org, 100)
    switch_on(shared, org)
    reserve(shared, org, 80)
    release(shared, org)
    assert notice(shared, org) is None
    # When the check runs
    assert decide(shared, org) == Enough()
    # Then nothing was decided, and the next crossing is noticed
    assert (states(shared, org), notice(shared, org)) == ([], 50)
    debit(shared, org, 60)
    assert settings(shared, org).crossings == 2


def test_top_up_is_not_decided_when_the_provider_cannot_charge_any_more(shared, low):
    assert decide(shared, low, chargeable=frozenset()) == Wait(T0 + RECHECK, Why.CANNOT_CHARGE)
    assert states(shared, low) == []


@pytest.mark.parametrize(
    "reason", [one for one in FreezeReason if one is not FreezeReason.CALL_SHORTFALL]
)
def test_top_up_is_not_decided_while_frozen(shared, low, reason):
    freeze(shared, low, reason)
    assert decide(shared, low) == Wait(T0 + RECHECK, Why.FROZEN)
    unfreeze(shared, low, reason)
    assert decide(shared, low) == TopUpCharge(100)


def test_freeze_that_more_money_ends_does_not_prevent_a_top_up(shared, low):
    commit(shared, low, 60)
    assert figures(shared, low) == (0, 20)
    assert decide(shared, low) == TopUpCharge(100)


# When the next check is due.


def test_wait_stages_one_check_for_its_end(shared, low):
    forget_jobs(shared, low)
    freeze(shared, low)
    for seconds in (0, 10, 20):
        decide(shared, low, later(seconds))
    assert check_waits(shared, low) == [3600]
    # When that check found the same, Then another follows
    decide(shared, low, later(3600))
    assert check_waits(shared, low) == [3600, 3600]


def test_decision_stages_the_check_that_expires_it_if_not_charged(shared, low):
    forget_jobs(shared, low)
    decide(shared, low)
    assert check_waits(shared, low) == [3600]
    # When its time is over
    assert decide(shared, low, T0 + DECISION_LIFE) == TopUpCharge(100)
    # Then it is expired, and the next decision has a new key
    assert states(shared, low) == ["expired", "decided"]
    assert decisions(shared, low)[1].idempotency_key == f"topup:{low}:1:2"


def test_a_decision_being_charged_does_not_expire(shared, low):
    decide(shared, low)
    begin(shared, decisions(shared, low)[0].id)
    much_later = T0 + 3 * DAY
    assert decide(shared, low, much_later) == Wait(much_later + RECHECK, Why.PENDING)
    assert states(shared, low) == ["decided"]


# Changed and switched off meanwhile.


def test_new_terms_expire_the_waiting_decision(shared, low):
    decide(shared, low)
    switch_on(shared, low, replace(TERMS, amount_micros=200), now=later(5))
    assert states(shared, low) == ["expired"]
    assert decide(shared, low, later(5)) == Wait(T0 + GAP, Why.BURST)
    assert decide(shared, low, T0 + GAP) == TopUpCharge(200)


def test_switching_off_expires_the_decision_and_watches_nothing(shared, low):
    decide(shared, low)
    found = switch_off(shared, low, later(5))
    assert (found.enabled, states(shared, low)) == (False, ["expired"])
    assert notice(shared, low) is None
    assert switch_off(shared, low, later(6)).set_at == later(5)
    assert decide(shared, low, later(7)) is None
