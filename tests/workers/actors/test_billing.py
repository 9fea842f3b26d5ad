"""Payments and refunds move money once, by the provider's figures, in any order."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from base.operators import Operator
from db.jobs.retention import prune_jobs
from db.models import Alert, WalletEntry
from domain.jobs.operator import redrive_manually
from domain.wallet import operations as wallet
from providers.paypal import amounts
from tests.domain.wallet.support import bare_organization
from tests.workers.scenes import (
    another_thread,
    clear_faults,
    held,
    pay,
    release,
    run,
    stage_refresh,
)

PAYMENT_READ = {"method": "GET", "path_contains": "/v2/payments/"}
TEN = 10_000_000


def give_back(world, capture_id, value):
    path = f"/paypal/captures/{capture_id}/refund"
    return world.sandbox.control("POST", path, {"value": value, "deliver": False})["id"]


def balance(world, organization_id):
    return world.wallet(organization_id).balance_micros


def moved(world, organization_id):
    """List the signed amounts that the ledger moved, in order."""
    entries = world.read(WalletEntry, organization_id=organization_id)
    signed = [
        one.balance_after_micros - one.balance_before_micros
        for one in sorted(entries, key=lambda one: one.entry_no)
    ]
    return [amount for amount in signed if amount]


def test_payment_is_credited_once_however_often_it_is_refreshed(world, organization):
    capture_id = pay(world, organization)
    first = stage_refresh(world, capture_id)

    assert [run(world, first), run(world, first)] == ["done", "taken"]
    assert run(world, stage_refresh(world, capture_id)) == "done"

    assert moved(world, organization) == [TEN]


def test_settled_payment_is_logged_with_what_was_captured(world, organization):
    capture_id = pay(world, organization)
    with capture_logs() as logs:
        run(world, stage_refresh(world, capture_id))
        run(world, stage_refresh(world, capture_id))
        run(world, stage_refresh(world, pay(world, organization, status="DECLINED")))
    logged = [one for one in logs if one["event"] == "payment_settled"]
    assert [(one["payment"], one["replayed"]) for one in logged] == [
        (capture_id, False),
        (capture_id, True),
    ]
    assert {one["organization"] for one in logged} == {organization}
    assert {(one["captured_micros"], one["currency"]) for one in logged} == {(TEN, "USD")}


def test_concurrent_refreshes_of_one_payment_credit_once(world, organization):
    # Given four refreshes that all wait for PayPal's answer
    capture_id = pay(world, organization)
    fault = world.sandbox.fault("paypal", "hold", match=PAYMENT_READ, times=4)
    ids = [stage_refresh(world, capture_id) for _ in range(4)]
    with another_thread() as start:
        outcomes = [start(run, world, job_id) for job_id in ids]
        assert held(world, fault, 4)

        # When all are answered together
        release(world, fault)
        assert {one.result() for one in outcomes} <= {"done", "postponed"}
    world.due_now()
    world.run_due()

    # Then the money was credited once
    assert moved(world, organization) == [TEN]


@pytest.mark.parametrize("status", ["PENDING", "DECLINED"])
def test_payment_that_is_not_captured_is_not_credited(world, organization, status):
    assert run(world, stage_refresh(world, pay(world, organization, status=status))) == "done"
    assert moved(world, organization) == []


def test_payment_unknown_to_paypal_is_refreshed_again(world, organization):
    assert run(world, stage_refresh(world, "7XX0000000000000A")) == "failed"
    assert moved(world, organization) == []


def test_payment_without_an_organization_is_left_to_an_operator(world):
    job_id = stage_refresh(world, pay(world, "org_of_nobody"))

    assert run(world, job_id) == "refused"
    assert world.job(job_id).last_error.startswith("UNKNOWN_ORGANIZATION")


def unsettled_alerts(world):
    """List organization, payment and code of the open alerts on unsettled payments."""
    alerts = world.read(Alert, kind="payment_unsettled", cleared_at=None)
    return [(one.organization_id, one.subject, one.details["code"]) for one in alerts]


def test_uncredited_payment_keeps_its_alert_after_its_job_is_pruned(world):
    # Given a completed payment that names no organization of ours
    capture_id = pay(world, "org_of_nobody")
    job_id = stage_refresh(world, capture_id)
    assert run(world, job_id) == "refused"
    # When its job has ended longer ago than jobs are kept
    later = timedelta(days=40)
    pruned = world.do(lambda s, now: prune_jobs(s, over_before=now + later, limit=9))
    assert pruned == 1
    # Then the alert is still open
    assert unsettled_alerts(world) == [(None, capture_id, "UNKNOWN_ORGANIZATION")]


def test_payment_alert_is_kept_until_the_payment_can_be_credited(world):
    # Given a payment of an organization that has no wallet yet
    organization = bare_organization(world.database)
    capture_id = pay(world, organization)
    first = stage_refresh(world, capture_id)
    assert run(world, first) == run(world, stage_refresh(world, capture_id)) == "refused"
    assert unsettled_alerts(world) == [(organization, capture_id, "WALLET_NOT_FOUND")]
    # When the wallet exists, and an operator redrives the job
    world.do(lambda s, now: wallet.open_wallet(s, organization, "USD", now))
    world.do(
        lambda s, now: redrive_manually(s, first, operator=Operator("ann", "has a wallet"), now=now)
    )
    assert run(world, first) == "done"
    # Then the payment is credited, and the alert is cleared
    assert moved(world, organization) == [TEN]
    assert unsettled_alerts(world) == []


def test_payment_alert_is_kept_until_the_payment_can_be_read(world, monkeypatch):
    # Given a payment and a partial refund in a currency that we do not know
    organization = bare_organization(world.database)
    world.do(lambda s, now: wallet.open_wallet(s, organization, "KWD", now))
    capture_id = pay(world, organization, currency="KWD")
    refund_id = give_back(world, capture_id, "3.00")
    jobs = [stage_refresh(world, capture_id), stage_refresh(world, refund_id, "refund")]
    assert [run(world, job) for job in jobs] == ["refused", "refused"]
    assert sorted(unsettled_alerts(world)) == sorted(
        (None, subject, "INVALID_AMOUNT") for subject in (capture_id, refund_id)
    )
    # When the currency is known, and an operator redrives the jobs
    monkeypatch.setitem(amounts.DECIMALS, "KWD", 3)
    for job in jobs:
        world.do(
            lambda s, now, job=job: redrive_manually(
                s, job, operator=Operator("ann", "known"), now=now
            )
        )
    assert [run(world, job) for job in jobs] == ["done", "done"]
    # Then both are settled, and their alerts are cleared
    assert balance(world, organization) == 7_000_000
    assert unsettled_alerts(world) == []


def test_uncaptured_payment_without_an_organization_is_not_alerted(world):
    assert (
        run(world, stage_refresh(world, pay(world, "org_of_nobody", status="PENDING"))) == "refused"
    )
    assert unsettled_alerts(world) == []


def test_payment_in_another_currency_is_refused_and_changes_nothing(world, organization):
    job_id = stage_refresh(world, pay(world, organization, currency="EUR"))

    assert run(world, job_id) == "refused"
    assert world.job(job_id).last_error.startswith("CURRENCY_MISMATCH")
    assert moved(world, organization) == []


@pytest.mark.parametrize(
    ("kind", "more"),
    [("status", {"status": 503}), ("status", {"status": 429}), ("drop", {})],
)
def test_payment_is_credited_later_when_paypal_is_away(world, organization, kind, more):
    # Given a payment, and a PayPal that does not answer
    job_id = stage_refresh(world, pay(world, organization))
    world.sandbox.fault("paypal", kind, match=PAYMENT_READ, **more)
    assert run(world, job_id) == "failed"
    assert moved(world, organization) == []

    # When it answers again
    clear_faults(world)
    world.due_now()

    # Then the payment is credited
    assert run(world, job_id) == "done"
    assert moved(world, organization) == [TEN]


def test_refresh_is_repeated_when_its_answer_is_lost(world, organization):
    world.sandbox.fault("paypal", "act_then_drop", match=PAYMENT_READ, times=1)

    assert run(world, stage_refresh(world, pay(world, organization))) == "done"
    assert moved(world, organization) == [TEN]


def test_refunds_and_payment_may_be_reported_in_any_order(world, organization):
    # Given a payment of 10, of which 3 and then 2 were refunded
    capture_id = pay(world, organization)
    refunds = [give_back(world, capture_id, value) for value in ("3.00", "2.00")]

    # When they are refreshed in reverse order, and all of them twice
    for _ in range(2):
        for kind, external_id in [
            ("refund", refunds[1]),
            ("refund", refunds[0]),
            ("capture", capture_id),
        ]:
            assert run(world, stage_refresh(world, external_id, kind)) == "done"

    # Then the balance is the rest
    assert balance(world, organization) == 5_000_000


def test_refund_of_spent_money_is_outstanding_and_freezes(world, organization):
    # Given a credited payment of which most was spent
    capture_id = pay(world, organization)
    assert run(world, stage_refresh(world, capture_id)) == "done"
    world.do(
        lambda session, now: wallet.correct(
            session,
            organization,
            key="spent",
            amount_micros=-9_000_000,
            currency="USD",
            operator=Operator("me", "spent"),
            now=now,
        )
    )

    # When all of it is refunded
    assert (
        run(world, stage_refresh(world, give_back(world, capture_id, "10.00"), "refund")) == "done"
    )

    # Then the balance is debited, and the rest is an outstanding amount
    wallet_row = world.wallet(organization)
    assert (wallet_row.balance_micros, wallet_row.owed_micros) == (0, 9_000_000)


@pytest.fixture
def fee(world, organization):
    """The id of a subscription's fee, which PayPal also shows as a capture."""
    (event,) = world.sandbox.control(
        "POST",
        "/paypal/events",
        {
            "event_type": "PAYMENT.SALE.COMPLETED",
            "organization_id": organization,
            "deliver": False,
        },
    )
    stored = world.sandbox.control("GET", f"/paypal/events/{event['event_id']}")
    return json.loads(stored["body"])["resource"]["id"]


def test_refund_of_a_subscription_fee_never_moves_the_wallet(world, organization, fee):
    # Given a partial refund of a fee
    job = stage_refresh(world, give_back(world, fee, "1.00"), "refund")
    # When the refund is refreshed, Then no money moves
    assert run(world, job) == "refused"
    assert world.job(job).last_error.startswith("NOT_A_TOP_UP")
    assert (balance(world, organization), moved(world, organization)) == (0, [])
    # And no alert is raised, because this is expected
    assert unsettled_alerts(world) == []


def test_capture_event_about_a_subscription_fee_credits_nothing(world, organization, fee):
    event_type = "PAYMENT.CAPTURE.COMPLETED"
    body = {"id": "WH-fee", "event_type": event_type, "resource": {"id": fee}}
    world.receive("WH-fee", event_type, json.dumps(body).encode())
    assert ("look_at_payment", "refused") in world.run_due()
    assert (balance(world, organization), moved(world, organization)) == (0, [])
