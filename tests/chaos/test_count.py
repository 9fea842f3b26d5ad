"""The count: clean at rest; then one thing is wrong and the count finds it."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from base.clock import wait_until
from base.operators import Operator
from chaos.count import count_problems
from chaos.customers import CALL_RATE
from chaos.facts import Customer, read_facts
from chaos.journal import Journal, read_journal
from chaos.report import Report, refusals
from db.address import driver_url
from domain import operator_actions
from domain.calls import reservations
from domain.calls.rates import set_rate
from domain.wallet import holds
from domain.wallet import operations as wallet
from tests.chaos.accepting_server import accepting_server


class AtRest:
    """One customer with a payment, a debit, a call and a webhook, all journalled."""

    def __init__(self, world, urls, path):
        self.world, self.urls, self.path = world, urls, path
        self.journal = Journal(path)
        made = world.customer(micros=0)
        self.org = made.id
        self.customer = Customer(
            made.id,
            False,
            made.sids[0],
            [made.campaign_ids[0], made.campaign_ids[2]],
            made.subscription_id,
        )
        self.capture_id = self.pay("10.00")
        self.debit("d1", 700)
        self.journal_answer("debit", "d1", 700, "OK")
        self.hold("c1", 5_000)
        self.commit("c1", 3_000)
        self.journal_answer("commit", "c1", 3_000, "OK")
        world.receive("e1", "CHECKOUT.ORDER.APPROVED", b"{}")
        world.run_due()
        self.sql("UPDATE inbox SET outcome = 'handled'")
        self.journal_answer("webhook", "e1", 0, "OK")

    def pay(self, value: str) -> str:
        capture = self.world.sandbox.control(
            "POST",
            "/paypal/captures",
            {"organization_id": self.org, "value": value, "deliver": False},
        )
        self.refresh("capture", capture["id"])
        return capture["id"]

    def refresh(self, kind: str, external_id: str) -> None:
        self.world.stage("look_at_payment", provider="paypal", kind=kind, external_id=external_id)
        self.world.run_due()

    def debit(self, key: str, micros: int) -> None:
        outcome = self.world.do(
            lambda session, now: wallet.debit(
                session, self.org, key=key, amount_micros=micros, currency="USD", now=now
            )
        )
        assert outcome.ok

    def hold(self, call_id: str, micros: int) -> None:
        outcome = self.world.do(
            lambda session, now: holds.reserve(
                session,
                self.org,
                call_id=call_id,
                amount_micros=micros,
                currency="USD",
                expires_at=now + timedelta(hours=1),
                now=now,
            )
        )
        assert outcome.ok

    def commit(self, call_id: str, micros: int) -> None:
        outcome = self.world.do(
            lambda session, now: holds.commit(
                session, self.org, call_id=call_id, amount_micros=micros, currency="USD", now=now
            )
        )
        assert outcome.ok

    def journal_answer(self, what: str, key: str, micros: int, outcome: str | None) -> None:
        self.journal.record_request(what, self.org, key, micros)
        if outcome is not None:
            self.journal.record_answer(what, self.org, key, outcome)

    def sql(self, *statements: str) -> None:
        """Change rows without any constraint or trigger, which only a superuser can do."""
        with psycopg.connect(driver_url(self.urls.owner_url), autocommit=True) as owner:
            owner.execute("SET session_replication_role = replica")
            for statement in statements:
                owner.execute(statement)

    def problems(self) -> list[str]:
        """Return the kind and the subject of each problem."""
        reading = read_facts(
            self.urls.owner_url,
            self.world.database,
            self.world.sandbox.control,
            [self.customer],
            read_journal(self.path),
        )
        with reading as facts:
            return [f"{one.kind} {one.text.split()[0]}" for one in count_problems(facts)]


@pytest.fixture
def at_rest(world, urls, tmp_path):
    system = AtRest(world, urls, tmp_path / "journal")
    assert system.problems() == []
    return system


def test_answered_debit_without_an_entry_is_lost(at_rest):
    at_rest.journal_answer("debit", "d2", 10, "OK")
    assert at_rest.problems() == ["lost debit", "drift wallet"]


def test_unanswered_debit_is_lost(at_rest):
    at_rest.journal_answer("debit", "d2", 10, None)
    assert at_rest.problems() == ["lost debit"]


def test_refused_debit_with_an_entry_is_doubled(at_rest):
    at_rest.debit("d2", 10)
    at_rest.journal_answer("debit", "d2", 10, "INSUFFICIENT_FUNDS")
    assert at_rest.problems() == ["doubled debit", "drift wallet"]


def test_debit_without_a_request_is_doubled(at_rest):
    at_rest.debit("d2", 10)
    assert at_rest.problems() == ["doubled debit", "drift wallet"]


def test_debit_of_another_amount_is_drift(at_rest):
    at_rest.debit("d2", 10)
    at_rest.journal_answer("debit", "d2", 11, "OK")
    assert at_rest.problems() == ["drift debit", "drift wallet"]


def test_debit_written_twice_is_doubled_and_breaks_the_chain(at_rest):
    at_rest.sql(
        "INSERT INTO wallet_entries SELECT organization_id, 9, kind, direction, amount_micros,"
        " balance_before_micros, balance_after_micros, owed_after_micros, counter_account,"
        " operation_key, note, created_at, previous_hash, hash FROM wallet_entries"
        " WHERE operation_key = 'd1'"
    )
    found = at_rest.problems()
    assert found[:2] == ["doubled debit", "drift wallet"]
    assert "drift chain:" in found


def test_payment_without_a_row_is_lost(at_rest):
    at_rest.world.sandbox.control(
        "POST",
        "/paypal/captures",
        {"organization_id": at_rest.org, "value": "3.00", "deliver": False},
    )
    assert at_rest.problems() == ["lost payment", "drift wallet"]


def test_refund_is_lost_until_it_is_refreshed(at_rest):
    # Given a payment with a partial refund
    refund = at_rest.world.sandbox.control(
        "POST", f"/paypal/captures/{at_rest.capture_id}/refund", {"value": "4.00", "deliver": False}
    )
    assert at_rest.problems() == ["lost payment", "drift wallet"]

    # When the refund is read from PayPal, no problem remains
    at_rest.refresh("refund", refund["id"])
    assert at_rest.problems() == []


def test_refund_beyond_the_balance_is_right_when_outstanding(at_rest):
    # Given a customer who has spent the money that is then refunded
    at_rest.debit("d2", 9_000_000)
    at_rest.journal_answer("debit", "d2", 9_000_000, "OK")
    refund = at_rest.world.sandbox.control(
        "POST", f"/paypal/captures/{at_rest.capture_id}/refund", {"deliver": False}
    )

    # When the refund is read, then it is no problem that the wallet has an outstanding amount
    at_rest.refresh("refund", refund["id"])
    assert at_rest.problems() == []
    assert at_rest.world.wallet(at_rest.org).owed_micros > 0


def test_payment_that_moved_more_than_captured_is_doubled(at_rest):
    at_rest.sql(
        "UPDATE wallet_entries SET amount_micros = amount_micros + 1,"
        " balance_after_micros = balance_after_micros + 1 WHERE kind = 'topup'"
    )
    assert "doubled payment" in at_rest.problems()


def test_hold_is_lost_when_open_or_charged_differently(at_rest):
    at_rest.hold("c2", 100)
    at_rest.hold("c3", 100)
    at_rest.commit("c3", 50)
    at_rest.journal_answer("commit", "c3", 60, "OK")
    assert at_rest.problems() == ["lost call", "lost call", "drift wallet"]


def test_charged_call_without_a_request_is_doubled(at_rest):
    at_rest.commit("c2", 50)
    assert at_rest.problems() == ["doubled call", "drift wallet"]


def test_released_hold_that_is_still_open_is_lost(at_rest):
    at_rest.hold("c2", 100)
    at_rest.journal_answer("release", "c2", 0, "OK")
    assert at_rest.problems() == ["lost call", "lost call", "drift wallet"]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM inbox",
        "UPDATE inbox SET handled_at = NULL, outcome = NULL",
        "UPDATE inbox SET outcome = 'ignored'",
    ],
)
def test_accepted_webhook_is_lost_when_not_stored_or_not_handled(at_rest, change):
    at_rest.sql(change)
    assert at_rest.problems() == ["lost webhook"]


def test_provider_event_is_lost_when_no_worker_handled_it(at_rest):
    # Given a message from Vapi whose job is done although the message was not handled
    at_rest.world.receive("call:status-update:ended", "status-update", b"{}")
    at_rest.sql("UPDATE jobs SET done_at = now(), outcome = 'done', ring_at = NULL")
    assert at_rest.problems() == ["lost webhook"]
    # When the message is handled, or concerns no organization, no problem remains
    for outcome in ("handled", "ignored"):
        at_rest.sql(
            f"UPDATE inbox SET handled_at = now(), outcome = '{outcome}'"
            " WHERE external_id LIKE 'call:%'"
        )
        assert at_rest.problems() == []


def test_accepted_message_without_a_row_is_lost(at_rest):
    # Given a call whose messages were only answered 200 and not stored
    call_id, sandbox = phone(at_rest), at_rest.world.sandbox
    take_phone(at_rest, call_id)
    with accepting_server() as port:
        sandbox.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})
        for kind in ("status-update", "end-of-call-report", "conversation-update"):
            sandbox.control("POST", "/vapi/messages", {"type": kind, "call_id": call_id})
    # Then the messages that must be stored are missing
    assert at_rest.problems() == ["lost webhook", "lost webhook"]
    # When they are stored and handled, no problem remains
    for kind in ("status-update:ended", "end-of-call-report:customer-ended-call"):
        at_rest.world.receive(f"{call_id}:{kind}", kind.partition(":")[0], b"{}")
    at_rest.sql(
        "UPDATE jobs SET done_at = now(), outcome = 'done', ring_at = NULL",
        "UPDATE inbox SET handled_at = now(), outcome = 'handled'",
    )
    assert at_rest.problems() == []


def test_webhook_that_was_never_accepted_is_lost(at_rest):
    at_rest.journal_answer("webhook", "e2", 0, None)
    assert at_rest.problems() == ["lost webhook"]


@pytest.mark.parametrize(
    "change",
    [
        "done_at = NULL, outcome = NULL, dead_at = now()",
        "done_at = NULL, outcome = NULL, ring_at = now()",
        "outcome = 'refused'",
        "outcome = 'discarded'",
    ],
)
def test_job_that_is_not_done_is_lost(at_rest, change):
    at_rest.sql(
        f"UPDATE jobs SET {change} WHERE id = (SELECT max(id) FROM jobs WHERE done_at IS NOT NULL)"
    )
    assert at_rest.problems() == ["lost job"]


def test_wallet_that_differs_from_its_entries_is_drift(at_rest):
    at_rest.sql("UPDATE wallets SET balance_micros = balance_micros + 1")
    found = at_rest.problems()
    assert found[:2] == ["drift wallet", "drift wallet"]
    assert "drift chain:" in found


def test_wallet_with_held_money_at_the_end_is_drift(at_rest):
    at_rest.sql("UPDATE wallets SET held_micros = 1")
    assert at_rest.problems() == ["drift wallet", "drift chain:"]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE subscriptions SET status = 'suspended'", "lost subscription"),
        ("UPDATE campaigns SET status = 'running', pause_reason = NULL,"
         " manually_paused = false WHERE manually_paused", "lost campaign"),
        ("UPDATE campaigns SET status = 'paused', pause_reason = 'wallet_frozen'"
         " WHERE NOT manually_paused", "lost campaign"),
        ("INSERT INTO wallet_freezes (organization_id, reason, placed_by, placed_why, placed_at)"
         " SELECT id, 'manual', 'x', 'y', now() FROM organizations", "lost freeze"),
        ("INSERT INTO wallet_freezes (organization_id, reason, placed_by, placed_why, placed_at)"
         " SELECT id, 'call_shortfall', 'x', 'y', now() FROM organizations", "lost freeze"),
    ],
)  # fmt: skip
def test_organization_is_lost_when_its_state_is_not_the_expected_one(at_rest, statement, problem):
    at_rest.sql(statement)
    assert at_rest.problems() == [problem]


def test_new_subscription_is_right_once_read_after_a_cancellation(at_rest):
    # Given a customer with a cancelled subscription at PayPal, and a new one
    world, old = at_rest.world, at_rest.customer.subscription_id
    cancelled = {"status": "CANCELLED", "deliver": False}
    world.sandbox.control("POST", f"/paypal/subscriptions/{old}/status", cancelled)
    body = {"organization_id": at_rest.org, "deliver": False}
    new = world.sandbox.control("POST", "/paypal/subscriptions", body)["id"]

    # Then both are missing
    assert at_rest.problems() == ["lost subscription", "lost subscription"]

    # And when both are read from PayPal, the new one counts and the old one blocks nothing
    for external_id in (new, old):
        world.stage("look_at_subscription", provider="paypal", external_id=external_id)
    world.run_due()
    world.due_now()
    world.run_due()
    assert at_rest.problems() == []


def test_organization_without_an_open_subscription_must_be_blocked(at_rest):
    old = at_rest.customer.subscription_id
    cancelled = {"status": "CANCELLED", "deliver": False}
    at_rest.world.sandbox.control("POST", f"/paypal/subscriptions/{old}/status", cancelled)
    assert at_rest.problems() == [
        "lost subscription",
        "lost Twilio",
        "lost freeze",
        "lost campaign",
    ]


def test_subscription_that_the_provider_does_not_know_is_doubled(at_rest):
    at_rest.sql(
        "INSERT INTO subscriptions SELECT (jsonb_populate_record(s, jsonb_build_object("
        "'id', 'sub_more', 'external_id', 'I-MORE'))).* FROM subscriptions s"
    )
    assert at_rest.problems() == ["doubled subscription"]


def test_subaccount_is_lost_when_it_differs_from_its_subscription(at_rest):
    at_rest.world.sandbox.control(
        "POST", f"/twilio/subaccounts/{at_rest.customer.subaccount_sid}", {"status": "suspended"}
    )
    assert at_rest.problems() == ["lost Twilio"]


def phone(at_rest) -> str:
    """Make a call at the sandbox that talks for under a second and ends there."""
    made = at_rest.world.sandbox.control(
        "POST",
        "/vapi/calls",
        {"deliver": False, "queued_seconds": 0, "ring_seconds": 0, "talk_seconds": 0.1},
    )
    assert wait_until(
        lambda: (
            at_rest.world.sandbox.control("GET", f"/vapi/calls/{made['id']}")["ended"] is not None
        ),
        limit_seconds=10,
    )
    at_rest.journal_answer("phone", made["id"], 0, None)
    return made["id"]


def take_phone(at_rest, provider_call_id: str) -> None:
    """Admit the call and settle it by its provider's record."""

    def reserve(session, now):
        set_rate(session, at_rest.org, CALL_RATE, operator=Operator("x", "y"), now=now)
        return reservations.reserve_for_call(
            session,
            at_rest.org,
            call_id="p1",
            provider_call_id=provider_call_id,
            estimated_seconds=10,
            now=now,
        )

    assert at_rest.world.do(reserve).outcome.ok
    at_rest.world.stage("look_at_call", organization_id=at_rest.org, call_id="p1")
    at_rest.world.run_due()


def test_connected_call_is_right_when_charged(at_rest):
    take_phone(at_rest, phone(at_rest))
    assert at_rest.problems() == []


def test_connected_call_without_a_row_is_lost(at_rest):
    phone(at_rest)
    assert at_rest.problems() == ["lost phone", "drift wallet"]


def test_call_that_is_not_settled_is_lost(at_rest):
    take_phone(at_rest, phone(at_rest))
    at_rest.sql("UPDATE calls SET settled_at = NULL, settled_by = NULL, cost_micros = NULL")
    assert at_rest.problems() == ["lost phone"]


def test_call_that_is_charged_twice_is_doubled(at_rest):
    take_phone(at_rest, phone(at_rest))
    at_rest.sql(
        "UPDATE wallet_entries SET kind = 'call', operation_key = 'call:p1:commit'"
        " WHERE operation_key = 'd1'"
    )
    assert "doubled phone" in at_rest.problems()


def test_call_without_a_request_is_doubled(at_rest):
    take_phone(at_rest, phone(at_rest))
    at_rest.sql("UPDATE calls SET provider_call_id = 'another'")
    assert {"lost phone", "doubled phone"} <= set(at_rest.problems())


def test_manual_freeze_is_right_until_it_is_lifted(at_rest):
    # Given a freeze that an operator placed
    at_rest.world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, at_rest.org, operator=Operator("x", "y"), now=now
        )
    )
    assert "lost freeze" in at_rest.problems()
    at_rest.journal_answer("freeze", "f1", 0, "OK")
    assert at_rest.problems() == []

    # When the journal reports that it was lifted, but the freeze is still active
    at_rest.journal_answer("lift", "f1", 0, "OK")

    # Then the lift was lost
    assert at_rest.problems() == ["lost freeze", "lost campaign"]


def test_refusals_of_database_guards_are_counted_from_its_log(tmp_path):
    # Given a server log with a refusal of each kind, and an error that is none
    log = tmp_path / "postgres.log"
    log.write_text(
        "2026 [1] ERROR:  duplicate key value violates unique constraint \"wallet_entries_pkey\"\n"
        "2026 [1] DETAIL:  Key violates nothing\n"
        "2026 [1] ERROR:  insert or update on table \"wallets\" violates foreign key constraint\n"
        "2026 [1] ERROR:  new row for \"wallets\" violates check constraint \"wallets_check\"\n"
        "2026 [1] ERROR:  the ledger is append-only: UPDATE of wallet_entries refused\n"
        "2026 [1] ERROR:  canceling statement due to lock timeout\n"
    )  # fmt: skip

    # When it is counted
    report = Report(1, 1.0, "", guards=refusals(log))

    # Then the last line shows the four refusals, and the run is otherwise clean
    assert report.is_clean
    assert report.last_line() == (
        "chaos: faults=0 events=0 lost=0 doubled=0 drift=0 refused_by_database=4 seed=1"
    )
