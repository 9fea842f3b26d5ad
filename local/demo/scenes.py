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
from local.demo.system import DemoSystem
from local.stack import SAFETY_WORKERS

CLOSED = ["subscription_inactive", "subscription_inactive", "manual_pause"]
OPEN = ["running", "running", "manual_pause"]
SUSPENDED = "BILLING.SUBSCRIPTION.SUSPENDED"
ACTIVATED = "BILLING.SUBSCRIPTION.ACTIVATED"
CANCELLED = "BILLING.SUBSCRIPTION.CANCELLED"
DOLLAR = 1_000_000
#: Top-ups that are waiting when Redis is emptied.
_WAITING = 20


def allowed_to_spend(system: DemoSystem, report: Report) -> None:
    """Set up an organization that may spend: money, two brands and three campaigns.

    One of the campaigns is paused manually.
    """
    report.scene("An organization pays and may spend")
    system.create()
    report.print_line("two brands with Twilio subaccounts; three campaigns, one paused manually")
    report.check("without a subscription it may not spend", system.refusal(), SUBSCRIPTION_INACTIVE)
    subscription = system.ask(
        "POST", "/paypal/subscriptions", {"organization_id": system.organization_id}
    )
    report.print_line(f"PayPal sends {ACTIVATED} for {subscription['id']}")
    report.eventually(
        "the subscription is read from PayPal and is active",
        lambda: getattr(system.subscription(subscription["id"]), "status", None),
        "active",
    )
    system.ask(
        "POST",
        "/paypal/captures",
        {"organization_id": system.organization_id, "value": "50.00", "currency": "USD"},
    )
    report.print_line("PayPal sends PAYMENT.CAPTURE.COMPLETED over 50.00 USD")
    report.eventually("the wallet holds 50.00 USD", system.balance, 50 * DOLLAR)
    report.eventually("two campaigns run, the third stays paused manually", system.campaigns, OPEN)
    report.eventually("both subaccounts are active at Twilio", system.twilio, ["active", "active"])
    report.eventually("it may spend", system.refusal, None)


def suspension(system: DemoSystem, report: Report) -> str:
    """Suspend the subscription: all spending must stop. Return the event's id."""
    report.scene("PayPal suspends the subscription: all spending stops")
    delivery = system.send(SUSPENDED)[0]
    event_id = str(delivery["event_id"])
    report.check("the signed webhook is answered 200", delivery["status_code"], 200)
    report.check("the inbox has it once", len(system.inbox(event_id)), 1)
    report.eventually("the wallet is frozen", system.freezes, ["subscription_inactive"])
    report.check(
        "the running campaigns are paused; the manually paused one is unchanged",
        system.campaigns(),
        CLOSED,
    )
    report.check(
        "frozen and paused in one and the same transaction",
        len(system.writers("wallet_freezes", "campaigns")),
        1,
    )
    report.check("a debit is refused", system.debit(DOLLAR, "demo:frozen"), FROZEN_WALLET)
    report.eventually(
        "the subscription is read back from PayPal's API",
        lambda: _newest_status(system),
        "suspended",
    )
    report.eventually(
        "both subaccounts are suspended at Twilio", system.twilio, ["suspended", "suspended"]
    )
    report.eventually("and read back from there", system.read_back, ["suspended", "suspended"])
    report.check(
        "one correlation id from the webhook to the last job",
        system.count(
            Job,
            Job.name == "converge_twilio",
            Job.correlation_id == system.inbox(event_id)[0].correlation_id,
        ),
        2,
    )
    return event_id


def same_again(system: DemoSystem, report: Report, event_id: str) -> None:
    """Send the same event again, then forgeries: nothing may change or be stored."""
    report.scene("The same event again, and two forgeries")
    report.eventually("all jobs so far are finished", system.unfinished, 0)
    before = _figures(system)
    deliveries = system.ask("POST", f"/paypal/events/{event_id}/redeliver", {"copies": 3})
    report.check(
        "three copies are answered 200", [one["status_code"] for one in deliveries], [200, 200, 200]
    )
    report.check(
        "nothing has changed: no row, no job, no entry, nothing at Twilio", _figures(system), before
    )
    forged = system.send(ACTIVATED, forge="signature")
    report.check("a forged signature is answered 401", forged[0]["status_code"], 401)
    report.check("and is not in the inbox", len(system.inbox(str(forged[0]["event_id"]))), 0)
    deliveries = system.ask("POST", f"/paypal/events/{event_id}/redeliver", {"forge": "body_crc"})
    report.check(
        "another body with the same CRC under the genuine signature is answered 401",
        deliveries[0]["status_code"],
        401,
    )
    report.check("still nothing has changed", _figures(system), before)


def reactivation(system: DemoSystem, report: Report) -> None:
    """Reactivate the subscription: all but the manual pause must be undone."""
    report.scene("PayPal reactivates: what it closed opens again")
    report.check("answered 200", system.send(ACTIVATED)[0]["status_code"], 200)
    _opens(system, report)
    report.check("a debit goes through", system.debit(DOLLAR, "demo:open"), "OK")


def stale_suspension(system: DemoSystem, report: Report) -> None:
    """Send the suspension again, late and with a new id: it may not last."""
    report.scene("The suspension comes again, late and under a new id")
    report.eventually("all jobs so far are finished", system.unfinished, 0)
    freezes, lifted, requests = (
        system.entries("freeze"),
        system.entries("unfreeze"),
        system.twilio_changes(),
    )
    delivery = system.send(SUSPENDED, keep_state=True, create_time="2026-01-01T00:00:00Z")[0]
    report.check("answered 200", delivery["status_code"], 200)
    report.eventually("spending closed for a moment", lambda: system.entries("freeze"), freezes + 1)
    report.eventually(
        "PayPal's API reports ACTIVE: spending opened again by itself",
        lambda: system.entries("unfreeze"),
        lifted + 1,
    )
    report.eventually("the campaigns run again", system.campaigns, OPEN)
    report.eventually("all jobs are finished", system.unfinished, 0)
    report.check("Twilio was not touched", system.twilio_changes(), requests)


def cancellation(system: DemoSystem, report: Report) -> None:
    """Cancel the subscription for good, then subscribe again and spend."""
    report.scene("Cancelled for good, then a new subscription")
    system.send(CANCELLED)
    report.eventually("PayPal confirms the end", lambda: _newest_status(system), "cancelled")
    report.eventually("both subaccounts are suspended", system.twilio, ["suspended", "suspended"])
    report.check("the campaigns are paused", system.campaigns(), CLOSED)
    system.ask("POST", "/paypal/subscriptions", {"organization_id": system.organization_id})
    report.print_line("the customer subscribes anew")
    _opens(system, report)


def manual_freeze(system: DemoSystem, report: Report) -> None:
    """Freeze the wallet manually: only a person may lift this freeze."""
    report.scene("A manual freeze survives the reactivation")
    system.do(
        lambda session, now: operator_actions.freeze_manually(
            session, system.organization_id, operator=Operator("demo", "fraud check"), now=now
        )
    )
    system.send(SUSPENDED)
    report.eventually("two freezes are active", system.freezes, ["manual", "subscription_inactive"])
    report.eventually("PayPal confirms", lambda: _newest_status(system), "suspended")
    system.send(ACTIVATED)
    report.eventually(
        "the subscription's freeze is lifted, the manual one stays", system.freezes, ["manual"]
    )
    report.check("spending stays closed", system.refusal(), FROZEN_WALLET)
    report.eventually(
        "the campaigns wait for the wallet",
        system.campaigns,
        ["wallet_frozen", "wallet_frozen", "manual_pause"],
    )
    system.do(
        lambda session, now: operator_actions.lift_manually(
            session,
            system.organization_id,
            FreezeReason.MANUAL,
            operator=Operator("demo", "cleared"),
            now=now,
        )
    )
    _opens(system, report)


def emptied_redis(system: DemoSystem, report: Report) -> None:
    """Empty Redis while jobs wait: notifications are lost, but no job may be lost."""
    report.scene(f"Valkey is emptied while {_WAITING} top-ups wait")
    before = system.balance()
    system.stack.supervisor.stop("worker-billing")
    report.print_line("the billing worker is stopped")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(_WAITING):
            pool.submit(
                system.ask,
                "POST",
                "/paypal/captures",
                {"organization_id": system.organization_id, "value": "0.50", "currency": "USD"},
            )
    report.eventually(
        "they wait in Valkey", lambda: system.waiting_in_redis("billing") >= _WAITING, True
    )
    system.redis.flushall()
    report.print_line("FLUSHALL")
    system.stack.start_worker("worker-billing")
    report.eventually(
        "every one of them is credited, once", system.balance, before + _WAITING * DOLLAR // 2
    )


def killed_worker(system: DemoSystem, report: Report) -> None:
    """Kill the workers inside a job: the job must run again, with one effect."""
    report.scene("A worker is killed with SIGKILL inside a job")
    report.eventually("all jobs so far are finished", system.unfinished, 0)
    freezes = system.entries("freeze")
    with system.database.engine.begin() as connection:
        # The suspension's job needs this row, so that it waits halfway through.
        connection.execute(
            text("SELECT 1 FROM organizations WHERE id = :id FOR NO KEY UPDATE"),
            {"id": system.organization_id},
        )
        event_id = str(system.send(SUSPENDED)[0]["event_id"])
        report.eventually(
            "the job is at work and waits for a row", lambda: _waits_for_a_lock(system)
        )
        # Any of the safety workers may run the job.
        for name in SAFETY_WORKERS:
            system.stack.supervisor.kill(name, signal.SIGKILL)
        report.print_line("SIGKILL")
    report.eventually("the job runs again: frozen", system.freezes, ["subscription_inactive"])
    report.eventually(
        "the event is handled",
        lambda: system.count(
            InboxEvent, InboxEvent.external_id == event_id, InboxEvent.handled_at.is_not(None)
        ),
        1,
    )
    report.eventually("both subaccounts are suspended", system.twilio, ["suspended", "suspended"])
    report.check("its effect is there once", system.entries("freeze"), freezes + 1)
    system.send(ACTIVATED)
    _opens(system, report)


def _opens(system: DemoSystem, report: Report) -> None:
    report.eventually("unfrozen", system.freezes, [])
    report.eventually(
        "the two run again; the third is still paused manually", system.campaigns, OPEN
    )
    report.eventually("both subaccounts are active again", system.twilio, ["active", "active"])
    report.eventually("and read back", system.read_back, ["active", "active"])


def _newest_status(system: DemoSystem) -> str | None:
    theirs = system.ask("GET", f"/paypal/subscriptions?organization_id={system.organization_id}")[
        -1
    ]
    ours = system.subscription(theirs["id"])
    return ours.status if ours is not None and ours.closing_reported_at is None else None


def _figures(system: DemoSystem) -> tuple[int, int, int, int]:
    """Count what an event could add: inbox rows, jobs, entries, Twilio changes."""
    return (
        system.count(InboxEvent),
        system.event_jobs(),
        system.count(WalletEntry),
        system.twilio_changes(),
    )


def _waits_for_a_lock(system: DemoSystem) -> bool:
    waiting = system.database.run(
        lambda session: session.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
        ).scalar_one()
    )
    return bool(waiting)
