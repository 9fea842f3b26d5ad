"""Scenes about money: a top-up and its refund, a dispute, and the final books."""

from __future__ import annotations

from base.problems.wallet import FROZEN_WALLET, INSUFFICIENT_FUNDS
from domain.wallet.queries import entries_sum
from local.demo.report import Report
from local.demo.scenes import DOLLAR, OPEN
from local.demo.system import DemoSystem


def money(system: DemoSystem, report: Report) -> None:
    """Top up once from five events, refund it, and try to overdraw the wallet.

    The wallet must be credited with the amount that PayPal's API reports.
    """
    report.scene("A top-up, five times at once; its refund; a debit over the balance")
    balance_before, topups_before = system.balance(), system.entries("topup")
    capture = system.ask(
        "POST",
        "/paypal/captures",
        {
            "organization_id": system.organization_id,
            "value": "12.34",
            "currency": "USD",
            "deliver": False,
        },
    )
    # The events claim a different amount than PayPal's API will report.
    deliveries = system.send(
        "PAYMENT.CAPTURE.COMPLETED",
        resource_id=capture["id"],
        value="9999.00",
        copies=5,
        keep_state=True,
    )
    report.check(
        "five copies at once are answered 200",
        [delivery["status_code"] for delivery in deliveries],
        [200] * 5,
    )
    report.eventually(
        "12.34 is credited: the amount in PayPal's API, not the event's 9999.00",
        system.balance,
        balance_before + 12_340_000,
    )
    report.eventually("all jobs are finished", system.unfinished, 0)
    report.check("once", system.entries("topup"), topups_before + 1)
    system.ask("POST", f"/paypal/captures/{capture['id']}/refund", {"value": "2.34"})
    report.eventually("a refund of 2.34 debits 2.34", system.balance, balance_before + 10 * DOLLAR)
    system.ask("POST", f"/paypal/captures/{capture['id']}/refund", {})
    report.eventually("a refund of the rest debits the rest", system.balance, balance_before)
    newest_entry_no = system.wallet().entry_no
    report.check(
        "a debit over the balance is refused",
        system.debit(system.balance() + 1, "demo:over"),
        INSUFFICIENT_FUNDS,
    )
    report.check("and wrote nothing", system.wallet().entry_no, newest_entry_no)


def dispute(system: DemoSystem, report: Report) -> None:
    """Dispute a top-up, which freezes and debits the wallet, and win the dispute."""
    report.scene("A buyer disputes a top-up, and loses")
    balance_before = system.balance()
    body = {"organization_id": system.organization_id, "value": "8.00", "currency": "USD"}
    capture = system.ask("POST", "/paypal/captures", body)
    report.eventually("8.00 USD are credited", system.balance, balance_before + 8 * DOLLAR)
    dispute_response = system.ask("POST", "/paypal/disputes", {"capture_id": capture["id"]})
    report.print_line(f"PayPal sends CUSTOMER.DISPUTE.CREATED for {dispute_response['dispute_id']}")
    report.eventually("the wallet is frozen", system.freezes, ["dispute"])
    report.eventually("the disputed amount is debited", system.balance, balance_before)
    report.check("a debit is refused", system.debit(DOLLAR, "demo:disputed"), FROZEN_WALLET)
    resolution = {"outcome_code": "RESOLVED_SELLER_FAVOUR"}
    system.ask("POST", f"/paypal/disputes/{dispute_response['dispute_id']}/resolve", resolution)
    report.eventually(
        "when the dispute is won, it is credited again", system.balance, balance_before + 8 * DOLLAR
    )
    report.eventually("and the freeze is lifted", system.freezes, [])
    report.eventually("the campaigns run again", system.campaigns, OPEN)


def books(system: DemoSystem, report: Report) -> None:
    """Check that the books are right at the end."""
    report.scene("The books")
    figures = system.wallet()
    total = system.do(lambda session, _: entries_sum(session, system.organization_id))
    report.check("the balance is the sum of its entries", figures.balance_micros, total)
    report.check("the wallet equals its newest entry", figures.consistent)
    report.check(
        "no amount is outstanding, nothing is held",
        (figures.owed_micros, figures.held_micros),
        (0, 0),
    )
    report.eventually("no job is left", system.unfinished, 0)
    report.check("no job is dead", system.jobs("dead"), 0)
