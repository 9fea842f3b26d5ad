"""Disputes from PayPal's event to the wallet and back, with every order of events."""

from __future__ import annotations

import json

import pytest

from base.operators import Operator
from db.models import Alert, PaymentDispute, WalletEntry, WalletFreeze
from domain.payments import disputes
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallet
from tests.workers.scenes import (
    another_thread,
    clear_faults,
    held,
    jobs_of,
    newest_attempt,
    pay,
    release,
    stage_refresh,
)

DISPUTE_READ = {"method": "GET", "path_contains": "/v1/customer/disputes/"}
TEN = 10_000_000


@pytest.fixture
def org(world):
    return world.customer(micros=1_000_000).id


@pytest.fixture
def capture(world, org):
    """A payment of 10, credited."""
    one = pay(world, org)
    refresh_payment(world, one)
    assert balance(world, org) == 11_000_000
    return one


def ask(world, path, **body):
    return world.sandbox.control("POST", f"/paypal/{path}", {"deliver": False, **body})


def open_dispute(world, capture, **more):
    return ask(world, "disputes", capture_id=capture, **more)["dispute_id"]


def refresh_payment(world, external_id, kind="capture"):
    assert world.executor.execute(stage_refresh(world, external_id, kind)) == "done"
    world.run_due()


def stage_dispute_refresh(world, dispute):
    return world.stage("look_at_dispute", provider="paypal", external_id=dispute)


def refresh_dispute(world, dispute):
    assert world.executor.execute(stage_dispute_refresh(world, dispute)) == "done"
    world.run_due()


def deliver_dispute_event(world, event, dispute, *captures):
    """Deliver an event of PayPal's about a dispute to the inbox."""
    resource = {
        "dispute_id": dispute,
        "disputed_transactions": [{"seller_transaction_id": one} for one in captures],
    }
    event_type = f"CUSTOMER.DISPUTE.{event}"
    number = len(jobs_of(world, "process_event"))
    body = {"id": f"WH-{number}", "event_type": event_type, "resource": resource}
    world.receive(f"WH-{number}", event_type, json.dumps(body).encode())


def balance(world, org):
    return world.wallet(org).balance_micros


def reasons(world, org):
    found = world.read(WalletFreeze, organization_id=org, lifted_at=None)
    return sorted(one.reason for one in found)


def alerts(world):
    return world.read(Alert, kind="dispute_unsettled", cleared_at=None)


def moved(world, org):
    rows = sorted(world.read(WalletEntry, organization_id=org), key=lambda one: one.entry_no)
    return [(one.kind, one.amount_micros) for one in rows if one.amount_micros][1:]


def test_dispute_freezes_and_debits_and_a_won_one_credits(world, org, capture):
    # When PayPal reports a dispute
    dispute = open_dispute(world, capture)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    # Then the wallet is frozen, and the disputed amount is debited
    assert (balance(world, org), reasons(world, org)) == (1_000_000, ["dispute"])
    # When the dispute is won
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_SELLER_FAVOUR")
    deliver_dispute_event(world, "RESOLVED", dispute, capture)
    world.run_due()
    # Then the amount is credited back, and the freeze is lifted
    assert (balance(world, org), reasons(world, org)) == (11_000_000, [])
    assert moved(world, org) == [("topup", TEN), ("dispute", TEN), ("give_back", TEN)]


def test_event_freezes_at_once_while_paypal_is_away(world, org, capture):
    # Given a PayPal that does not answer
    dispute = open_dispute(world, capture)
    world.sandbox.fault("paypal", "status", match=DISPUTE_READ, status=503)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    assert ("look_at_dispute", "failed") in world.run_due()
    # Then the event alone freezes the wallet, and no money moves
    assert (balance(world, org), reasons(world, org)) == (11_000_000, ["dispute"])
    # When PayPal answers again, Then its answer decides the amount
    clear_faults(world)
    world.due_now()
    world.run_due()
    assert (balance(world, org), reasons(world, org)) == (1_000_000, ["dispute"])


def test_freeze_of_a_forged_dispute_is_lifted_by_paypals_answer(world, org, capture):
    # Given a dispute that was closed in our favor, and an event that claims it was opened
    dispute = open_dispute(world, capture)
    ask(world, f"disputes/{dispute}/resolve", outcome_code="CANCELED_BY_BUYER")
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    # Then the freeze is lifted, and nothing was debited
    assert (balance(world, org), reasons(world, org)) == (11_000_000, [])
    assert moved(world, org) == [("topup", TEN)]


def test_lost_dispute_and_its_reversal_debit_once(world, org, capture):
    dispute = open_dispute(world, capture, value="4.00")
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    assert balance(world, org) == 7_000_000
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_BUYER_FAVOUR")
    refund = ask(world, f"captures/{capture}/refund", value="4.00", reversal=True)["id"]
    refresh_payment(world, refund, "refund")
    refresh_dispute(world, dispute)
    assert (balance(world, org), reasons(world, org)) == (7_000_000, [])


def test_lost_dispute_debits_only_the_sellers_part(world, org, capture):
    # Given a dispute over 10.00, of which PayPal pays the buyer 7.50 and we pay 2.50
    dispute = open_dispute(world, capture)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    assert balance(world, org) == 1_000_000
    ask(
        world,
        f"disputes/{dispute}/resolve",
        outcome_code="RESOLVED_BUYER_FAVOUR",
        refunded="10.00",
        borne_by_seller="2.50",
    )
    # When it is lost
    refresh_dispute(world, dispute)
    # Then 2.50 stays debited, and PayPal's part is credited back
    assert (balance(world, org), reasons(world, org)) == (8_500_000, [])
    given_back = ("give_back", 7_500_000)
    assert moved(world, org) == [("topup", TEN), ("dispute", TEN), given_back]


def test_lost_dispute_debits_nothing_when_paypal_paid_it(world, org, capture):
    dispute = open_dispute(world, capture)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    lost = {"outcome_code": "RESOLVED_BUYER_FAVOUR", "refunded": "10.00", "borne_by_seller": "0.00"}
    ask(world, f"disputes/{dispute}/resolve", **lost)
    refresh_dispute(world, dispute)
    assert (balance(world, org), reasons(world, org)) == (11_000_000, [])


def test_dispute_is_settled_when_it_lists_its_payment_twice(world, org, capture):
    dispute = open_dispute(world, capture, also=[capture])
    deliver_dispute_event(world, "CREATED", dispute, capture, capture)
    world.run_due()
    assert (balance(world, org), reasons(world, org)) == (1_000_000, ["dispute"])
    assert alerts(world) == []


def test_dispute_of_a_cryptocurrency_stays_frozen_for_a_person(world, org, capture):
    # Given a dispute that names bitcoins instead of an amount
    dispute = open_dispute(world, capture, asset="BTC")
    deliver_dispute_event(world, "CREATED", dispute, capture)
    # When it is refreshed
    assert ("look_at_dispute", "refused") in world.run_due()
    # Then no money moved, the wallet stays frozen, and an alert is raised
    assert (balance(world, org), reasons(world, org)) == (11_000_000, ["dispute"])
    (alert,) = alerts(world)
    assert (alert.subject, alert.details["code"]) == (dispute, "NO_AMOUNT")


def test_dispute_of_spent_money_is_outstanding_until_won(world, org, capture):
    world.do(
        lambda session, now: wallet.debit(
            session, org, key="spent", amount_micros=8_000_000, currency="USD", now=now
        )
    )
    dispute = open_dispute(world, capture)
    refresh_dispute(world, dispute)
    assert (balance(world, org), world.wallet(org).owed_micros) == (0, 7_000_000)
    assert reasons(world, org) == ["dispute", "refund_shortfall"]
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_WITH_PAYOUT")
    refresh_dispute(world, dispute)
    assert (balance(world, org), world.wallet(org).owed_micros) == (3_000_000, 0)
    assert reasons(world, org) == []


def test_appeal_opens_again_and_a_late_event_does_not(world, org, capture):
    dispute = open_dispute(world, capture)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    ask(world, f"disputes/{dispute}/resolve", outcome_code="DENIED")
    refresh_dispute(world, dispute)
    # A late copy of the first event changes nothing in the end
    deliver_dispute_event(world, "CREATED", dispute, capture)
    world.run_due()
    assert (balance(world, org), reasons(world, org)) == (11_000_000, [])
    ask(world, f"disputes/{dispute}/reopen")
    deliver_dispute_event(world, "UPDATED", dispute, capture)
    world.run_due()
    assert (balance(world, org), reasons(world, org)) == (1_000_000, ["dispute"])


def test_manual_freeze_outlives_the_dispute(world, org, capture):
    dispute = open_dispute(world, capture)
    refresh_dispute(world, dispute)
    world.do(
        lambda s, now: wallet_freezes.freeze(
            s, org, "manual", operator=Operator("ann", "fraud"), now=now
        )
    )
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_SELLER_FAVOUR")
    refresh_dispute(world, dispute)
    assert reasons(world, org) == ["manual"]


def test_dispute_of_an_unknown_payment_settles_both(world, org):
    one = pay(world, org)
    dispute = open_dispute(world, one, value="4.00")
    deliver_dispute_event(world, "CREATED", dispute, one)
    world.run_due()
    assert (balance(world, org), reasons(world, org)) == (7_000_000, ["dispute"])
    # The payment's own event then moves nothing more
    refresh_payment(world, one)
    assert balance(world, org) == 7_000_000


def test_dispute_of_an_unassigned_payment_is_left_to_an_operator(world):
    dispute = open_dispute(world, pay(world, "org_of_nobody"))
    job = stage_dispute_refresh(world, dispute)
    assert world.executor.execute(job) == "refused"
    assert world.job(job).last_error.startswith("UNKNOWN_ORGANIZATION")


def test_dispute_of_a_subscriptions_fee_never_credits_the_wallet(world, org):
    # Given a fee, which can be read as a capture too
    (event,) = world.sandbox.control(
        "POST",
        "/paypal/events",
        {"event_type": "PAYMENT.SALE.COMPLETED", "organization_id": org, "deliver": False},
    )
    stored = world.sandbox.control("GET", f"/paypal/events/{event['event_id']}")
    fee = json.loads(stored["body"])["resource"]["id"]
    dispute = open_dispute(world, fee)
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_SELLER_FAVOUR")
    job = stage_dispute_refresh(world, dispute)
    # When its dispute is refreshed, Then the job is refused, and nothing was credited
    assert world.executor.execute(job) == "refused"
    assert world.job(job).last_error.startswith("NOT_A_TOP_UP")
    assert moved(world, org) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [({"currency": "EUR"}, "CURRENCY_MISMATCH"), ({"outcome_code": "TIE"}, "UNKNOWN_OUTCOME")],
)
def test_unusable_dispute_is_refused_and_moves_nothing(world, org, capture, change, code):
    currency = {name: value for name, value in change.items() if name == "currency"}
    dispute = open_dispute(world, capture, **currency)
    if "outcome_code" in change:
        ask(world, f"disputes/{dispute}/resolve", **change)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    job = stage_dispute_refresh(world, dispute)
    world.run_due()
    assert world.job(job).last_error.startswith(code)
    assert newest_attempt(world, job).outcome == "refused"
    assert moved(world, org) == [("topup", TEN)]
    # And there is one alert, although it was refreshed more than once
    (alert,) = alerts(world)
    assert (alert.organization_id, alert.subject) == (org, dispute)
    assert alert.details["code"] == code


def test_dispute_over_several_payments_freezes_all_and_raises_alerts(world, org, capture):
    # Given one dispute over payments of two organizations, and over an unknown payment
    other = world.customer(micros=1_000_000).id
    theirs, unheard = pay(world, other), pay(world, org)
    refresh_payment(world, theirs)
    dispute = open_dispute(world, capture, also=[theirs, unheard])
    # When PayPal reports it, and PayPal's answer cannot be divided among them
    deliver_dispute_event(world, "CREATED", dispute, capture, theirs, unheard)
    assert ("look_at_dispute", "refused") in world.run_due()
    # Then both wallets are frozen, no money moved, and each has an alert
    for one in (org, other):
        assert (balance(world, one), reasons(world, one)) == (11_000_000, ["dispute"])
    found = alerts(world)
    assert {one.organization_id for one in found} == {org, other}
    assert {(one.subject, one.details["code"]) for one in found} == {(dispute, "SEVERAL_PAYMENTS")}


def test_refresh_about_one_payment_lifts_the_freezes_of_the_others(world, org, capture):
    # Given two events while PayPal is away, of which only the second also names a second payment
    other = world.customer(micros=1_000_000).id
    theirs = pay(world, other)
    refresh_payment(world, theirs)
    dispute = open_dispute(world, capture)
    world.sandbox.fault("paypal", "status", match=DISPUTE_READ, status=503)
    deliver_dispute_event(world, "CREATED", dispute, capture)
    deliver_dispute_event(world, "CREATED", dispute, capture, theirs)
    world.run_due()
    assert (reasons(world, org), reasons(world, other)) == (["dispute"], ["dispute"])
    # When PayPal's answer names the first payment alone, Then the other wallet's freeze is lifted
    clear_faults(world)
    world.due_now()
    world.run_due()
    assert (balance(world, org), reasons(world, org)) == (1_000_000, ["dispute"])
    assert (balance(world, other), reasons(world, other)) == (11_000_000, [])


def test_dispute_that_can_be_settled_at_last_clears_its_alert(world, capture):
    dispute = open_dispute(world, capture)
    ask(world, f"disputes/{dispute}/resolve", outcome_code="TIE")
    world.executor.execute(stage_dispute_refresh(world, dispute))
    assert [one.organization_id for one in alerts(world)] == [None]
    ask(world, f"disputes/{dispute}/resolve", outcome_code="DENIED")
    refresh_dispute(world, dispute)
    assert alerts(world) == []


def test_dispute_debits_the_captured_amount_at_most(world, org, capture):
    refresh_dispute(world, open_dispute(world, capture, value="999.00"))
    assert balance(world, org) == 1_000_000


def test_refresh_is_repeated_when_its_answer_is_lost(world, org, capture):
    dispute = open_dispute(world, capture)
    world.sandbox.fault("paypal", "act_then_drop", match=DISPUTE_READ, times=1)
    refresh_dispute(world, dispute)
    assert balance(world, org) == 1_000_000


def test_dispute_unknown_to_paypal_is_refreshed_again(world):
    assert world.executor.execute(stage_dispute_refresh(world, "PP-D-NONE")) == "failed"


def test_repeated_and_concurrent_refreshes_debit_once(world, org, capture):
    dispute = open_dispute(world, capture)
    first = stage_dispute_refresh(world, dispute)
    assert [world.executor.execute(first), world.executor.execute(first)] == ["done", "taken"]
    fault = world.sandbox.fault("paypal", "hold", match=DISPUTE_READ, times=4)
    given = {"provider": "paypal", "external_id": dispute}
    ids = [world.stage_twin("look_at_dispute", **given) for _ in range(4)]
    with another_thread() as start:
        outcomes = [start(world.executor.execute, job_id) for job_id in ids]
        assert held(world, fault, 4)
        release(world, fault)
        assert {one.result() for one in outcomes} <= {"done", "postponed"}
    world.due_now()
    world.run_due()
    assert moved(world, org) == [("topup", TEN), ("dispute", TEN)]
    assert reasons(world, org) == ["dispute"]


def test_answer_that_is_recorded_after_a_newer_one_changes_nothing(world, org, capture):
    # Given an answer of PayPal's, still open, that is delayed while the dispute is won and
    # refreshed
    dispute = open_dispute(world, capture)
    late = world.providers.paypal.get_dispute(dispute)
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_SELLER_FAVOUR")
    refresh_dispute(world, dispute)
    # When the delayed answer is recorded
    world.do(lambda session, now: disputes.record_dispute(session, late, None, now))
    world.run_due()
    # Then the newer answer is kept
    assert (balance(world, org), reasons(world, org)) == (11_000_000, [])
    assert world.read(PaymentDispute, external_id=dispute)[0].state == "won"


@pytest.mark.parametrize("name", ["freeze_wallet", "unfreeze_wallet"])
def test_freezes_jobs_run_twice_and_at_once_and_follow_the_cause(world, org, capture, name):
    dispute = open_dispute(world, capture)
    refresh_dispute(world, dispute)
    wanted = {"organization_id": org, "reason": "dispute", "cause": f"paypal:{dispute}"}
    ids = [world.stage(name, **wanted) for _ in range(4)]
    with another_thread() as start:
        outcomes = {start(world.executor.execute, job_id) for job_id in ids * 2}
        assert {one.result() for one in outcomes} <= {"done", "taken", "postponed"}
    world.due_now()
    world.run_due()
    assert reasons(world, org) == ["dispute"]


def test_pending_refund_that_fails_is_given_back(world, org, capture):
    # Given a refund that PayPal has not carried out yet
    refund = ask(world, f"captures/{capture}/refund", value="3.00", status="PENDING")["id"]
    refresh_payment(world, refund, "refund")
    assert balance(world, org) == 8_000_000
    (again,) = [job for job in jobs_of(world, "look_at_payment") if job.done_at is None]
    # When it fails, without any event
    ask(world, f"refunds/{refund}/status", status="FAILED")
    world.due_now()
    assert world.executor.execute(again.id) == "done"
    # Then the amount is credited back, and no further refresh is staged
    assert balance(world, org) == 11_000_000
    assert [job for job in jobs_of(world, "look_at_payment") if job.done_at is None] == []


def test_reversal_that_is_cancelled_with_the_dispute_is_given_back(world, org, capture):
    # Given a dispute whose money PayPal took by a reversal
    dispute = open_dispute(world, capture)
    refund = ask(world, f"captures/{capture}/refund", reversal=True)["id"]
    refresh_dispute(world, dispute)
    refresh_payment(world, refund, "refund")
    assert balance(world, org) == 1_000_000
    # When it is won, and the reversal cancelled without an event
    ask(world, f"refunds/{refund}/status", status="CANCELLED")
    ask(world, f"disputes/{dispute}/resolve", outcome_code="RESOLVED_SELLER_FAVOUR")
    refresh_dispute(world, dispute)
    # Then the whole amount is credited back
    assert (balance(world, org), reasons(world, org)) == (11_000_000, [])
