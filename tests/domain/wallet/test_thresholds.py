"""Low-balance thresholds: one alert per crossing, and armed again by a top-up."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from base.money import InvalidAmount
from base.operators import Operator
from base.outcomes import Refused
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.wallet import operations as wallets
from domain.wallet.debits import Debit, debit_many, debit_now
from tests.db.support import at_once, one_behind_the_other
from tests.domain.support import T0, correct, credit, debit, later
from tests.domain.wallet.hold_support import (
    buy,
    commit,
    expire,
    extend,
    release,
    reserve,
    set_limit,
    settle,
)
from tests.domain.wallet.level_support import (
    alert_subjects,
    crossed,
    notice,
    open_alert_subjects,
    rearm,
    set_thresholds,
    top_up,
)
from tests.domain.wallet.support import as_owner, freeze
from tests.support.world import make_organization


def take_many(database, org, amount):
    asked = [Debit(org, f"many:{n}", amount // 2, "USD", "messages") for n in range(2)]
    return database.run(lambda session: debit_many(session, asked, T0))


def test_a_threshold_is_crossed_below_it_and_not_at_it(shared, funded):
    # Given 100 micros and a threshold of 40
    set_thresholds(shared, funded, 40)
    # When exactly 40 are left
    debit(shared, funded, 60)
    assert (crossed(shared, funded), alert_subjects(shared, funded)) == ([], [])
    # When one micro more is debited
    debit(shared, funded, 1, now=later(5))
    # Then one alert is raised, and the threshold is disarmed
    assert (crossed(shared, funded), alert_subjects(shared, funded)) == ([40], ["40"])
    assert notice(shared, funded) is None
    debit(shared, funded, 1)
    assert alert_subjects(shared, funded) == ["40"]


def test_alert_shows_the_threshold_the_instant_and_what_is_left(shared, funded):
    set_thresholds(shared, funded, 40)
    debit(shared, funded, 75, now=later(5))
    row = shared.run(
        lambda session: session.execute(
            text("SELECT * FROM alerts WHERE organization_id = :org"), {"org": funded}
        ).one()
    )
    assert row.details == {"threshold_micros": 40, "available_micros": 25, "currency": "USD"}
    assert (row.severity, row.raised_at, row.cleared_at) == ("warning", later(5), None)


def test_several_thresholds_crossed_by_one_debit_are_alerted_once_each(shared, funded):
    set_thresholds(shared, funded, 90, 50, 20, 5)
    debit(shared, funded, 85)
    assert crossed(shared, funded) == [20, 50, 90]
    assert sorted(alert_subjects(shared, funded), key=int) == ["20", "50", "90"]
    # The remaining threshold is still watched, and the others keep their instant.
    assert notice(shared, funded) == 5
    debit(shared, funded, 11, now=later(5))
    rows = set_thresholds(shared, funded, 90, 50, 20, 5)
    assert [row.crossed_at for row in rows] == [T0, T0, T0, later(5)]


#: The operations that reduce available by 60 of 100.
FALLING = {
    "debit": lambda database, org: debit(database, org, 60),
    "debits in numbers": lambda database, org: take_many(database, org, 60),
    "reserve": lambda database, org: reserve(database, org, 60),
    "asset": lambda database, org: buy(database, org, 60, "asset"),
    "correction": lambda database, org: correct(database, org, -60),
    "commit without a hold": lambda database, org: commit(database, org, 60),
}


@pytest.mark.parametrize("way", FALLING)
def test_every_operation_that_reduces_available_crosses(shared, funded, way):
    set_thresholds(shared, funded, 50)
    FALLING[way](shared, funded)
    assert (crossed(shared, funded), alert_subjects(shared, funded)) == ([50], ["50"])


def test_a_combined_debit_crosses(shared, funded):
    set_thresholds(shared, funded, 50)
    assert debit_now(shared, Debit(funded, "k", 60, "USD", "messages")).ok
    assert alert_subjects(shared, funded) == ["50"]


def test_an_extension_crosses(shared, funded):
    reserve(shared, funded, 40)
    set_thresholds(shared, funded, 50)
    extend(shared, funded, 1, 20)
    assert alert_subjects(shared, funded) == ["50"]


def test_a_commit_beyond_its_hold_crosses_and_one_within_does_not(shared, funded):
    reserve(shared, funded, 30)
    reserve(shared, funded, 10, "c2")
    set_thresholds(shared, funded, 50)
    commit(shared, funded, 10, "c2")
    assert alert_subjects(shared, funded) == []
    commit(shared, funded, 60)
    assert alert_subjects(shared, funded) == ["50"]


def test_a_commit_with_a_shortfall_crosses(shared, funded):
    set_limit(shared, funded, 10)
    set_thresholds(shared, funded, 50)
    commit(shared, funded, 500)
    assert alert_subjects(shared, funded) == ["50"]


def test_a_refund_crosses(shared, org):
    settle(shared, org, 100)
    set_thresholds(shared, org, 50)
    settle(shared, org, 100, 60)
    assert alert_subjects(shared, org) == ["50"]


def test_rebuild_that_finds_less_crosses(shared, shared_urls, funded):
    # Given a wallet whose balance was raised past every guard
    as_owner(
        shared_urls,
        f"UPDATE wallets SET balance_micros = 1000 WHERE organization_id = '{funded}'",
        broken=True,
    )
    set_thresholds(shared, funded, 500)
    assert alert_subjects(shared, funded) == []
    # When it is rebuilt from its entries
    as_owner(shared_urls, f"SELECT wallet_rebuild('{funded}', 'ann', 'broken', now())")
    assert alert_subjects(shared, funded) == ["500"]


def test_refused_replayed_or_rolled_back_debit_alerts_nothing(shared, funded):
    set_thresholds(shared, funded, 50)
    assert debit(shared, funded, 101).outcome == "INSUFFICIENT_FUNDS"
    freeze(shared, funded)
    assert debit(shared, funded, 60).outcome == "FROZEN_WALLET"
    with Session(shared.engine) as session:
        correction = {"currency": "USD", "operator": Operator("a", "b"), "now": T0}
        wallets.correct(session, funded, key="k", amount_micros=-60, **correction)
        session.rollback()
    assert (crossed(shared, funded), alert_subjects(shared, funded)) == ([], [])
    assert notice(shared, funded) == 50


def test_open_alert_never_prevents_a_debit(shared, funded):
    # Given an alert that was raised without the ledger
    set_thresholds(shared, funded, 50)
    shared.run(
        lambda session: raise_alert(
            session,
            AlertKind.LOW_BALANCE,
            funded,
            "50",
            severity=Severity.INFO,
            details={},
            now=T0,
        )
    )
    assert debit(shared, funded, 60).ok
    assert (crossed(shared, funded), alert_subjects(shared, funded)) == ([50], ["50"])


# Armed again by a top-up, and by nothing else.


def fallen(database, org):
    """Cause a crossing of a threshold of 50: 70 of 100 micros are held."""
    credit(database, org, 100)
    set_thresholds(database, org, 50)
    reserve(database, org, 70)
    assert crossed(database, org) == [50]
    return org


def test_a_top_up_that_reaches_the_threshold_arms_it_and_clears_its_alert(shared, org):
    fallen(shared, org)
    # When a top-up does not quite reach it
    top_up(shared, org, 19)
    assert (crossed(shared, org), open_alert_subjects(shared, org)) == ([50], ["50"])
    # When the next one does
    top_up(shared, org, 1)
    assert (crossed(shared, org), open_alert_subjects(shared, org)) == ([], [])
    assert notice(shared, org) == 50
    # Then the next crossing is alerted again
    debit(shared, org, 1)
    assert (alert_subjects(shared, org), open_alert_subjects(shared, org)) == (["50", "50"], ["50"])


def test_a_payment_that_is_settled_arms_it(shared, org):
    fallen(shared, org)
    settle(shared, org, 20)
    assert (crossed(shared, org), open_alert_subjects(shared, org)) == ([], [])


def test_refund_of_a_payment_arms_nothing(shared, org):
    # Given a payment, and a crossed threshold above which a correction has raised available again
    settle(shared, org, 100)
    set_thresholds(shared, org, 50)
    debit(shared, org, 60)
    correct(shared, org, 60)
    settle(shared, org, 100, 10)
    assert (crossed(shared, org), open_alert_subjects(shared, org)) == ([50], ["50"])


def test_top_up_arms_only_what_it_reaches_after_the_outstanding_amount(shared, funded):
    set_thresholds(shared, funded, 50, 20)
    commit(shared, funded, 130)
    assert (crossed(shared, funded), notice(shared, funded)) == ([20, 50], None)
    # When 60 are paid, of which 30 were outstanding
    top_up(shared, funded, 60)
    assert crossed(shared, funded) == [50]
    assert notice(shared, funded) == 20


#: The ways to rise from 30 available to more than 50 without a payment.
RISING = {
    "release": release,
    "expire": expire,
    "commit of less": lambda database, org: commit(database, org, 10),
    "correction": lambda database, org: correct(database, org, 70),
    "goodwill": lambda database, org: credit(database, org, 70),
    "refund of a message": lambda database, org: credit(database, org, 70, kind="refund"),
}


@pytest.mark.parametrize("way", RISING)
def test_only_a_top_up_rearms_so_that_bouncing_alerts_once(shared, org, way):
    fallen(shared, org)
    RISING[way](shared, org)
    assert (crossed(shared, org), open_alert_subjects(shared, org)) == ([50], ["50"])
    for n in range(3):
        reserve(shared, org, 55, f"b{n}")
        release(shared, org, f"b{n}")
    assert alert_subjects(shared, org) == ["50"]


def test_replayed_top_up_arms_nothing_that_was_crossed_since(shared, funded):
    set_thresholds(shared, funded, 50)
    credit(shared, funded, 10, key="pay", kind="topup")
    debit(shared, funded, 80)
    credit(shared, funded, 10, key="pay", kind="topup")
    assert crossed(shared, funded) == [50]


def test_operator_may_arm_only_what_is_not_crossed_now(shared, org):
    # Given two crossed thresholds, above one of which a correction raises available again
    credit(shared, org, 100)
    set_thresholds(shared, org, 90, 50)
    debit(shared, org, 70)
    correct(shared, org, 30)
    # When an operator arms them
    rearm(shared, org)
    # Then the threshold that is still crossed stays crossed
    assert (crossed(shared, org), open_alert_subjects(shared, org)) == ([90], ["90"])
    debit(shared, org, 11)
    assert alert_subjects(shared, org).count("50") == 2


# Set, changed and removed while below.


def test_threshold_set_above_available_is_crossed_at_once(shared, funded):
    rows = set_thresholds(shared, funded, 200, 100, now=later(9))
    assert [(row.threshold_micros, row.armed, row.crossed_at) for row in rows] == [
        (200, False, later(9)),
        (100, True, None),
    ]
    assert (alert_subjects(shared, funded), notice(shared, funded)) == (["200"], 100)


def test_setting_thresholds_again_leaves_them_unchanged(shared, funded):
    set_thresholds(shared, funded, 50)
    debit(shared, funded, 60)
    row = set_thresholds(shared, funded, 50, now=later(60), operator=Operator("bob", "agreed"))[0]
    assert (row.armed, row.set_by) == (False, "ann")
    assert alert_subjects(shared, funded) == ["50"]


def test_removed_threshold_clears_its_alert(shared, funded):
    set_thresholds(shared, funded, 80, 50, 20)
    debit(shared, funded, 60)
    assert open_alert_subjects(shared, funded) == ["80", "50"]
    set_thresholds(shared, funded, 50, now=later(1))
    assert (crossed(shared, funded), open_alert_subjects(shared, funded)) == ([50], ["50"])
    assert notice(shared, funded) is None
    assert set_thresholds(shared, funded) == []
    assert open_alert_subjects(shared, funded) == []
    debit(shared, funded, 30)
    assert sorted(alert_subjects(shared, funded)) == ["50", "80"]


def test_threshold_changed_while_crossed_is_a_new_one(shared, funded):
    set_thresholds(shared, funded, 50)
    debit(shared, funded, 60)
    set_thresholds(shared, funded, 30)
    assert (open_alert_subjects(shared, funded), notice(shared, funded)) == ([], 30)
    debit(shared, funded, 11)
    assert open_alert_subjects(shared, funded) == ["30"]


@pytest.mark.parametrize("micros", [0, -1, 10**15 + 1])
def test_a_threshold_out_of_bounds_is_refused(shared, funded, micros):
    with pytest.raises(InvalidAmount):
        set_thresholds(shared, funded, 50, micros)
    assert notice(shared, funded) is None


def test_up_to_ten_thresholds_at_the_exact_bounds_are_accepted(shared, funded):
    set_thresholds(shared, funded, 1, 10**15, *range(10, 18))
    with pytest.raises(Refused, match="TOO_MANY_THRESHOLDS"):
        set_thresholds(shared, funded, *range(1, 12))
    assert notice(shared, funded) == 17


def test_without_organization_or_wallet_nothing_can_be_set(shared):
    with pytest.raises(Refused, match="ORGANIZATION_NOT_FOUND"):
        set_thresholds(shared, "org_nobody", 5)


# At once.


def test_a_hundred_concurrent_debits_over_it_raise_one_alert(shared, org):
    credit(shared, org, 150)
    set_thresholds(shared, org, 100)
    outcomes = at_once([lambda: debit(shared, org, 1)] * 100)
    assert {outcome.outcome for outcome in outcomes} == {"OK"}
    assert (alert_subjects(shared, org), crossed(shared, org)) == (["100"], [100])


def test_a_hundred_concurrent_combined_debits_raise_one_alert(shared):
    # Given two wallets, debited by the same hundred callers
    orgs = [make_organization(shared, micros=70) for _ in range(2)]
    for org in orgs:
        set_thresholds(shared, org, 60, 50)
    asked = [Debit(org, f"k{n}", 1, "USD", "messages") for n in range(50) for org in orgs]
    outcomes = at_once([lambda one=one: debit_now(shared, one) for one in asked])
    assert {outcome.outcome for outcome in outcomes} == {"OK"}
    for org in orgs:
        assert alert_subjects(shared, org) == ["60", "50"]


def test_concurrent_top_up_and_debit_end_in_agreement(shared, shared_urls, org):
    # Given a crossed threshold, and a top-up that is not committed yet
    fallen(shared, org)

    def topping_up(session):
        values = {"currency": "USD", "kind": "topup", "now": T0}
        wallets.credit(session, org, key="t", amount_micros=50, **values)

    # When a debit waits for it and takes available below the threshold again
    one_behind_the_other(shared, shared_urls.owner_url, topping_up, lambda: debit(shared, org, 40))
    # Then both crossings were alerted, and only the second alert is open
    assert (alert_subjects(shared, org), open_alert_subjects(shared, org)) == (["50", "50"], ["50"])


def test_setting_a_threshold_behind_a_debit_reads_the_new_balance(shared, shared_urls, funded):
    def debiting(session):
        wallets.debit(session, funded, key="d", amount_micros=60, currency="USD", now=T0)

    one_behind_the_other(
        shared, shared_urls.owner_url, debiting, lambda: set_thresholds(shared, funded, 50)
    )
    assert alert_subjects(shared, funded) == ["50"]


def test_serving_role_cannot_stop_the_watch_of_a_wallet(shared, funded):
    set_thresholds(shared, funded, 50)
    for change in ("UPDATE wallets SET notice_below_micros = NULL", "SELECT wallet_fell()"):
        with pytest.raises(DBAPIError, match="permission denied"):
            shared.run(lambda session, change=change: session.execute(text(change)))
    # The thresholds that the role may write cannot get out of step with the wallet.
    shared.run(
        lambda session: session.execute(
            text(
                "INSERT INTO wallet_thresholds (organization_id, threshold_micros, set_by, set_why,"
                " set_at) VALUES (:org, 70, 'x', 'x', now())"
            ),
            {"org": funded},
        )
    )
    assert notice(shared, funded) == 70


def test_changed_level_never_costs_an_index_of_the_wallets(shared):
    indexes = shared.run(
        lambda session: session.scalars(
            text("SELECT indexname FROM pg_indexes WHERE tablename = 'wallets'")
        ).all()
    )
    assert indexes == ["wallets_pkey"]
