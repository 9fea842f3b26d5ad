"""The scenes of a suspension: what goes wrong at such companies, in typical order."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from base.enums import FreezeReason
from base.operators import Operator
from base.problems.wallet import FROZEN_WALLET, SUBSCRIPTION_INACTIVE
from db.models import InboxEvent, Job, WalletEntry
from domain import operator_actions
from local.demo.report import Report
from local.demo.set import Set
from local.stack import SAFETY_WORKERS

CLOSED = ["subscription_inactive", "subscription_inactive", "manual_pause"]
OPEN = ["running", "running", "manual_pause"]
SUSPENDED = "BILLING.SUBSCRIPTION.SUSPENDED"
ACTIVATED = "BILLING.SUBSCRIPTION.ACTIVATED"
CANCELLED = "BILLING.SUBSCRIPTION.CANCELLED"
DOLLAR = 1_000_000
#: Top-ups that are waiting when Redis is emptied.
_WAITING = 20


def allowed_to_spend(on: Set, report: Report) -> None:
    """Set up an organization that may spend: money, two brands and three campaigns.

    One of the campaigns is paused manually.
    """
    report.scene("An organization pays and may spend")
    on.create()
    report.print_line("two brands with Twilio subaccounts; three campaigns, one paused manually")
    report.check("without a subscription it may not spend", on.refusal(), SUBSCRIPTION_INACTIVE)
    subscription = on.ask("POST", "/paypal/subscriptions", {"organization_id": on.organization_id})
    report.print_line(f"PayPal sends {ACTIVATED} for {subscription['id']}")
    report.eventually(
        "the subscription is read from PayPal and is active",
        lambda: getattr(on.subscription(subscription["id"]), "status", None),
        "active",
    )
    on.ask(
        "POST",
        "/paypal/captures",
        {"organization_id": on.organization_id, "value": "50.00", "currency": "USD"},
    )
    report.print_line("PayPal sends PAYMENT.CAPTURE.COMPLETED over 50.00 USD")
    report.eventually("the wallet holds 50.00 USD", on.balance, 50 * DOLLAR)
    report.eventually("two campaigns run, the third stays paused manually", on.campaigns, OPEN)
    report.eventually("both subaccounts are active at Twilio", on.twilio, ["active", "active"])
    report.eventually("it may spend", on.refusal, None)


def suspension(on: Set, report: Report) -> str:
    """Suspend the subscription: all spending must stop. Return the event's id."""
    report.scene("PayPal suspends the subscription: all spending stops")
    delivery = on.send(SUSPENDED)[0]
    event_id = str(delivery["event_id"])
    report.check("the signed webhook is answered 200", delivery["status_code"], 200)
    report.check("the inbox has it once", len(on.inbox(event_id)), 1)
    report.eventually("the wallet is frozen", on.freezes, ["subscription_inactive"])
    report.check(
        "the running campaigns are paused; the manually paused one is unchanged",
        on.campaigns(),
        CLOSED,
    )
    report.check(
        "frozen and paused in one and the same transaction",
        len(on.writers("wallet_freezes", "campaigns")),
        1,
    )
    report.check("a debit is refused", on.debit(DOLLAR, "demo:frozen"), FROZEN_WALLET)
    report.eventually(
        "the subscription is read back from PayPal's API", lambda: _newest_status(on), "suspended"
    )
    report.eventually(
        "both subaccounts are suspended at Twilio", on.twilio, ["suspended", "suspended"]
    )
    report.eventually("and read back from there", on.read_back, ["suspended", "suspended"])
    report.check(
        "one correlation id from the webhook to the last job",
        on.count(
            Job,
            Job.name == "converge_twilio",
            Job.correlation_id == on.inbox(event_id)[0].correlation_id,
        ),
        2,
    )
    return event_id


def same_again(on: Set, report: Report, event_id: str) -> None:
    """Send the same event again, then forgeries: nothing may change or be stored."""
    report.scene("The same event again, and two forgeries")
    report.eventually("all jobs so far are finished", on.unfinished, 0)
    before = _figures(on)
    deliveries = on.ask("POST", f"/paypal/events/{event_id}/redeliver", {"copies": 3})
    report.check(
        "three copies are answered 200", [one["status_code"] for one in deliveries], [200, 200, 200]
    )
    report.check(
        "nothing has changed: no row, no job, no entry, nothing at Twilio", _figures(on), before
    )
    forged = on.send(ACTIVATED, forge="signature")
    report.check("a forged signature is answered 401", forged[0]["status_code"], 401)
    report.check("and is not in the inbox", len(on.inbox(str(forged[0]["event_id"]))), 0)
    deliveries = on.ask("POST", f"/paypal/events/{event_id}/redeliver", {"forge": "body_crc"})
    report.check(
        "another body with the same CRC under the genuine signature is answered 401",
        deliveries[0]["status_code"],
        401,
    )
    report.check("still nothing has changed", _figures(on), before)


def reactivation(on: Set, report: Report) -> None:
    """Reactivate the subscription: all but the manual pause must be undone."""
    report.scene("PayPal reactivates: what it closed opens again")
    report.check("answered 200", on.send(ACTIVATED)[0]["status_code"], 200)
    _opens(on, report)
    report.check("a debit goes through", on.debit(DOLLAR, "demo:open"), "OK")


def stale_suspension(on: Set, report: Report) -> None:
    """Send the suspension again, late and with a new id: it may not last."""
    report.scene("The suspension comes again, late and under a new id")
    report.eventually("all jobs so far are finished", on.unfinished, 0)
    freezes, lifted, requests = on.entries("freeze"), on.entries("unfreeze"), on.twilio_changes()
    delivery = on.send(SUSPENDED, keep_state=True, create_time="2026-01-01T00:00:00Z")[0]
    report.check("answered 200", delivery["status_code"], 200)
    report.eventually("spending closed for a moment", lambda: on.entries("freeze"), freezes + 1)
    report.eventually(
        "PayPal's API reports ACTIVE: spending opened again by itself",
        lambda: on.entries("unfreeze"),
        lifted + 1,
    )
    report.eventually("the campaigns run again", on.campaigns, OPEN)
    report.eventually("all jobs are finished", on.unfinished, 0)
    report.check("Twilio was not touched", on.twilio_changes(), requests)


def cancellation(on: Set, report: Report) -> None:
    """Cancel the subscription for good, then subscribe again and spend."""
    report.scene("Cancelled for good, then a new subscription")
    on.send(CANCELLED)
    report.eventually("PayPal confirms the end", lambda: _newest_status(on), "cancelled")
    report.eventually("both subaccounts are suspended", on.twilio, ["suspended", "suspended"])
    report.check("the campaigns are paused", on.campaigns(), CLOSED)
    on.ask("POST", "/paypal/subscriptions", {"organization_id": on.organization_id})
    report.print_line("the customer subscribes anew")
    _opens(on, report)


def manual_freeze(on: Set, report: Report) -> None:
    """Freeze the wallet manually: only a person may lift this freeze."""
    report.scene("A manual freeze survives the reactivation")
    on.do(
        lambda session, now: operator_actions.freeze_manually(
            session, on.organization_id, operator=Operator("demo", "fraud check"), now=now
        )
    )
    on.send(SUSPENDED)
    report.eventually("two freezes are active", on.freezes, ["manual", "subscription_inactive"])
    report.eventually("PayPal confirms", lambda: _newest_status(on), "suspended")
    on.send(ACTIVATED)
    report.eventually(
        "the subscription's freeze is lifted, the manual one stays", on.freezes, ["manual"]
    )
    report.check("spending stays closed", on.refusal(), FROZEN_WALLET)
    report.eventually(
        "the campaigns wait for the wallet",
        on.campaigns,
        ["wallet_frozen", "wallet_frozen", "manual_pause"],
    )
    on.do(
        lambda session, now: operator_actions.lift_manually(
            session,
            on.organization_id,
            FreezeReason.MANUAL,
            operator=Operator("demo", "cleared"),
            now=now,
        )
    )
    _opens(on, report)


def emptied_redis(on: Set, report: Report) -> None:
    """Empty Redis while jobs wait: notifications are lost, but no job may be lost."""
    report.scene(f"Valkey is emptied while {_WAITING} top-ups wait")
    before = on.balance()
    on.stack.supervisor.stop("worker-billing")
    report.print_line("the billing worker is stopped")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(_WAITING):
            pool.submit(
                on.ask,
                "POST",
                "/paypal/captures",
                {"organization_id": on.organization_id, "value": "0.50", "currency": "USD"},
            )
    report.eventually(
        "they wait in Valkey", lambda: on.waiting_in_redis("billing") >= _WAITING, True
    )
    on.redis.flushall()
    report.print_line("FLUSHALL")
    on.stack.start_worker("worker-billing")
    report.eventually(
        "every one of them is credited, once", on.balance, before + _WAITING * DOLLAR // 2
    )


def killed_worker(on: Set, report: Report) -> None:
    """Kill the workers inside a job: the job must run again, with one effect."""
    report.scene("A worker is killed with SIGKILL inside a job")
    report.eventually("all jobs so far are finished", on.unfinished, 0)
    freezes = on.entries("freeze")
    with on.database.engine.begin() as connection:
        # The suspension's job needs this row, so that it waits halfway through.
        connection.execute(
            text("SELECT 1 FROM organizations WHERE id = :id FOR NO KEY UPDATE"),
            {"id": on.organization_id},
        )
        event_id = str(on.send(SUSPENDED)[0]["event_id"])
        report.eventually("the job is at work and waits for a row", lambda: _waits_for_a_lock(on))
        # Any of the safety workers may run the job.
        for name in SAFETY_WORKERS:
            on.stack.supervisor.kill(name, signal.SIGKILL)
        report.print_line("SIGKILL")
    report.eventually("the job runs again: frozen", on.freezes, ["subscription_inactive"])
    report.eventually(
        "the event is handled",
        lambda: on.count(
            InboxEvent, InboxEvent.external_id == event_id, InboxEvent.handled_at.is_not(None)
        ),
        1,
    )
    report.eventually("both subaccounts are suspended", on.twilio, ["suspended", "suspended"])
    report.check("its effect is there once", on.entries("freeze"), freezes + 1)
    on.send(ACTIVATED)
    _opens(on, report)


def _opens(on: Set, report: Report) -> None:
    report.eventually("unfrozen", on.freezes, [])
    report.eventually("the two run again; the third is still paused manually", on.campaigns, OPEN)
    report.eventually("both subaccounts are active again", on.twilio, ["active", "active"])
    report.eventually("and read back", on.read_back, ["active", "active"])


def _newest_status(on: Set) -> str | None:
    theirs = on.ask("GET", f"/paypal/subscriptions?organization_id={on.organization_id}")[-1]
    ours = on.subscription(theirs["id"])
    return ours.status if ours is not None and ours.closing_reported_at is None else None


def _figures(on: Set) -> tuple[int, int, int, int]:
    """Count what an event could add: inbox rows, jobs, entries, Twilio changes."""
    return (on.count(InboxEvent), on.event_jobs(), on.count(WalletEntry), on.twilio_changes())


def _waits_for_a_lock(on: Set) -> bool:
    waiting = on.database.run(
        lambda session: session.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
        ).scalar_one()
    )
    return bool(waiting)
