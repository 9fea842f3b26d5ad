"""Scenes about money: a top-up and its refund, a dispute, and the final books."""

from __future__ import annotations

from base.problems.wallet import FROZEN_WALLET, INSUFFICIENT_FUNDS
from domain.wallet.queries import entries_sum
from local.demo.report import Report
from local.demo.scenes import DOLLAR, OPEN
from local.demo.set import Set


def money(on: Set, report: Report) -> None:
    """Top up once from five events, refund it, and try to overdraw the wallet.

    The wallet must be credited with the amount that PayPal's API reports.
    """
    report.scene("A top-up, five times at once; its refund; a debit over the balance")
    before, topups = on.balance(), on.entries("topup")
    capture = on.ask(
        "POST",
        "/paypal/captures",
        {
            "organization_id": on.organization_id,
            "value": "12.34",
            "currency": "USD",
            "deliver": False,
        },
    )
    # The events claim a different amount than PayPal's API will report.
    deliveries = on.send(
        "PAYMENT.CAPTURE.COMPLETED",
        resource_id=capture["id"],
        value="9999.00",
        copies=5,
        keep_state=True,
    )
    report.check(
        "five copies at once are answered 200",
        [one["status_code"] for one in deliveries],
        [200] * 5,
    )
    report.eventually(
        "12.34 is credited: the amount in PayPal's API, not the event's 9999.00",
        on.balance,
        before + 12_340_000,
    )
    report.eventually("all jobs are finished", on.unfinished, 0)
    report.check("once", on.entries("topup"), topups + 1)
    on.ask("POST", f"/paypal/captures/{capture['id']}/refund", {"value": "2.34"})
    report.eventually("a refund of 2.34 debits 2.34", on.balance, before + 10 * DOLLAR)
    on.ask("POST", f"/paypal/captures/{capture['id']}/refund", {})
    report.eventually("a refund of the rest debits the rest", on.balance, before)
    newest = on.wallet().entry_no
    report.check(
        "a debit over the balance is refused",
        on.debit(on.balance() + 1, "demo:over"),
        INSUFFICIENT_FUNDS,
    )
    report.check("and wrote nothing", on.wallet().entry_no, newest)


def dispute(on: Set, report: Report) -> None:
    """Dispute a top-up, which freezes and debits the wallet, and win the dispute."""
    report.scene("A buyer disputes a top-up, and loses")
    before = on.balance()
    body = {"organization_id": on.organization_id, "value": "8.00", "currency": "USD"}
    capture = on.ask("POST", "/paypal/captures", body)
    report.eventually("8.00 USD are credited", on.balance, before + 8 * DOLLAR)
    opened = on.ask("POST", "/paypal/disputes", {"capture_id": capture["id"]})
    report.print_line(f"PayPal sends CUSTOMER.DISPUTE.CREATED for {opened['dispute_id']}")
    report.eventually("the wallet is frozen", on.freezes, ["dispute"])
    report.eventually("the disputed amount is debited", on.balance, before)
    report.check("a debit is refused", on.debit(DOLLAR, "demo:disputed"), FROZEN_WALLET)
    won = {"outcome_code": "RESOLVED_SELLER_FAVOUR"}
    on.ask("POST", f"/paypal/disputes/{opened['dispute_id']}/resolve", won)
    report.eventually(
        "when the dispute is won, it is credited again", on.balance, before + 8 * DOLLAR
    )
    report.eventually("and the freeze is lifted", on.freezes, [])
    report.eventually("the campaigns run again", on.campaigns, OPEN)


def books(on: Set, report: Report) -> None:
    """Check that the books are right at the end."""
    report.scene("The books")
    figures = on.wallet()
    total = on.do(lambda session, _: entries_sum(session, on.organization_id))
    report.check("the balance is the sum of its entries", figures.balance_micros, total)
    report.check("the wallet equals its newest entry", figures.consistent)
    report.check(
        "no amount is outstanding, nothing is held",
        (figures.owed_micros, figures.held_micros),
        (0, 0),
    )
    report.eventually("no job is left", on.unfinished, 0)
    report.check("no job is dead", on.jobs("dead"), 0)
