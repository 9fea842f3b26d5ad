"""Debits in batches: each is exactly what a single debit would have been."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from base.operators import Operator
from db.engine import clock
from db.models import Wallet
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallet
from domain.wallet.debits import Debit, debit_many, debit_now
from domain.wallet.ledger import WalletOutcome
from tests.db.support import at_once, holding, hurried, one_behind_the_other
from tests.domain.support import (
    ANN,
    T0,
    credit,
    entries,
    figures,
    forget_jobs,
    later,
    money_state,
    staged,
)
from tests.domain.wallet.hold_support import buy, reserve
from tests.domain.wallet.support import bare_organization, freeze, override
from tests.support.world import make_organization


def ask(org: str, key: str, amount: int = 1, currency: str = "USD", counter: str = "messages"):
    return Debit(org, key, amount, currency, counter)


def many(database, debits: list[Debit], now=T0) -> list[WalletOutcome]:
    return database.run(lambda session: debit_many(session, debits, now))


def one_by_one(session: Session, debits: list[Debit]) -> list[WalletOutcome]:
    return [
        wallet.debit(
            session,
            debit.organization_id,
            key=debit.key,
            amount_micros=debit.amount_micros,
            currency=debit.currency,
            counter_account=debit.counter_account,
            now=T0,
        )
        for debit in debits
    ]


def rolled_back(database, work, orgs: list[str]) -> tuple[Any, ...]:
    """Return the result of `work`, the rows and the jobs that it would commit."""
    tables = ("wallets", "wallet_entries", "wallet_operations")
    with Session(database.engine) as session:
        answers = work(session)
        rows = [
            session.execute(
                text(
                    f"SELECT t::text FROM {table} t WHERE organization_id = ANY (:orgs) ORDER BY 1"
                ),
                {"orgs": orgs},
            ).all()
            for table in tables
        ]
        jobs = session.execute(
            text(
                "SELECT name, queue, kwargs::text, organization_id FROM jobs"
                " WHERE organization_id = ANY (:orgs) ORDER BY 4"
            ),
            {"orgs": orgs},
        ).all()
        session.rollback()
    return answers, rows, jobs


def test_batched_debits_are_allowed_until_an_override_ends(shared, org):
    credit(shared, org, 100)
    freeze(shared, org)
    override(shared, org, later(600))
    (before,) = many(shared, [ask(org, "a", 3)], later(599.999999))
    assert (before.outcome, before.balance_micros) == ("OK", 97)
    state = money_state(shared, org)
    (at_end,) = many(shared, [ask(org, "b", 3)], later(600))
    assert at_end.outcome == "FROZEN_WALLET"
    assert money_state(shared, org) == state


def test_batched_debits_leave_held_money_and_stage_enforcement(shared, org):
    # Given 100, of which 40 are held for a call
    credit(shared, org, 100)
    reserve(shared, org, 40)
    forget_jobs(shared, org)
    # When more than available is requested, Then it is refused and nothing is staged
    assert [one.outcome for one in many(shared, [ask(org, "a", 61)])] == ["INSUFFICIENT_FUNDS"]
    assert staged(shared, org, "enforce_organization") == []
    # When exactly the available amount is debited, Then enforcement is staged
    (taken,) = many(shared, [ask(org, "b", 60)])
    assert (taken.outcome, taken.balance_micros, taken.held_micros) == ("OK", 40, 40)
    assert len(staged(shared, org, "enforce_organization")) == 1


def test_debit_now_stages_enforcement_when_only_held_money_is_left(shared, org):
    credit(shared, org, 100)
    reserve(shared, org, 40)
    forget_jobs(shared, org)
    taken = debit_now(shared, ask(org, "a", 60))
    assert (taken.outcome, taken.balance_micros, taken.held_micros) == ("OK", 40, 40)
    assert len(staged(shared, org, "enforce_organization")) == 1


def test_a_key_that_paid_for_an_asset_conflicts_among_debits(shared, org):
    credit(shared, org, 100)
    assert buy(shared, org, 5, "a").ok
    (again,) = many(shared, [ask(org, "a", 5)])
    assert (again.outcome, figures(shared, org)) == ("IDEMPOTENCY_CONFLICT", (95, 0))


def test_one_key_twice_in_one_call_conflicts_in_another_currency(shared, org):
    credit(shared, org, 100)
    answers = many(shared, [ask(org, "a", 5), ask(org, "a", 5, currency="EUR")])
    assert [one.outcome for one in answers] == ["OK", "IDEMPOTENCY_CONFLICT"]
    assert figures(shared, org) == (95, 0)


def test_batch_leaves_the_same_bytes_as_single_debits(shared):
    # Given wallets of every kind: used before, frozen, overridden, with a history, nearly empty
    rich, frozen, allowed, poor, spare = (make_organization(shared) for _ in range(5))
    orgs = [rich, frozen, allowed, poor, spare, bare_organization(shared)]
    for org in orgs[:5]:
        credit(shared, org, 100, key="fund")
    many(shared, [ask(rich, "known", 3)])
    freeze(shared, frozen)
    freeze(shared, allowed)
    override(shared, allowed, later(600))
    for org in orgs:
        forget_jobs(shared, org)
    # When the same debits are made in both ways
    debits = [
        ask(rich, "a", 5),
        ask(poor, "p1", 60),
        ask(rich, "known", 3),
        ask(rich, "known", 4),
        ask(frozen, "f", 1),
        ask(poor, "p2", 60),
        ask(rich, "fund", 100),
        ask(allowed, "o", 2, counter="calls"),
        ask(poor, "p1", 60),
        ask(poor, "p1", 61),
        ask(poor, "p2", 40),
        ask(poor, "p2", 40),
        ask(poor, "p3", 1),
        ask(rich, "money", 1, "EUR"),
        ask(rich, "zero", 0),
        ask(rich, "negative", -1),
        ask(rich, "largest", 10**15),
        ask(rich, "larger", 10**15 + 1),
        ask(rich, "far too large", 2**80),
        ask(orgs[5], "no wallet"),
        ask("org_nobody", "no organization"),
        ask("org_nobody", "neither", 0),
        ask(rich, 'clé "日本" \\ {}, NULL', 7, counter="zähler|x"),
        ask(rich, "NULL", 1),
        ask(spare, "k" * 200, 100),
    ]
    singly = rolled_back(shared, lambda session: one_by_one(session, debits), orgs)
    together = rolled_back(shared, lambda session: debit_many(session, debits, T0), orgs)
    # Then results, entries with their hashes, operations, wallets and jobs are equal
    for debit, one, other in zip(debits, singly[0], together[0], strict=True):
        assert (debit, one) == (debit, other)
    assert singly == together
    assert len({outcome.outcome for outcome in together[0]}) == 7
    assert [job.organization_id for job in together[2]] == sorted([poor, spare])


def test_empty_batch_sends_no_statement(shared):
    assert many(shared, []) == []


def test_repeated_batch_returns_the_first_results(shared, org):
    credit(shared, org, 10)
    debits = [ask(org, f"k{n}", n) for n in range(1, 4)]
    first = many(shared, debits)
    state = money_state(shared, org)
    again = many(shared, debits)
    assert [one.replayed for one in again] == [True] * 3
    assert [one.entry_no for one in again] == [one.entry_no for one in first]
    assert money_state(shared, org) == state
    assert [one.outcome for one in many(shared, [ask(org, "k1", 9)])] == ["IDEMPOTENCY_CONFLICT"]


def test_debits_are_decided_in_the_order_received(shared, org):
    credit(shared, org, 10)
    outcomes = many(shared, [ask(org, "a", 7), ask(org, "b", 4), ask(org, "c", 3)])
    assert [one.outcome for one in outcomes] == ["OK", "INSUFFICIENT_FUNDS", "OK"]
    assert figures(shared, org) == (0, 0)


def test_a_key_that_was_refused_may_be_used_again_in_the_same_request(shared, org):
    credit(shared, org, 10)
    outcomes = many(shared, [ask(org, "k", 11), ask(org, "k", 10), ask(org, "k", 10)])
    assert [(one.outcome, one.replayed) for one in outcomes] == [
        ("INSUFFICIENT_FUNDS", False),
        ("OK", False),
        ("OK", True),
    ]


@pytest.mark.parametrize("key", ["", "k" * 201, None])
def test_a_key_out_of_bounds_is_refused_alone(shared, org, key):
    credit(shared, org, 10)
    outcomes = many(shared, [ask(org, key), ask(org, "good")])
    assert [one.outcome for one in outcomes] == ["INVALID_KEY", "OK"]


def test_debit_with_a_missing_part_never_succeeds(shared, org):
    credit(shared, org, 10)
    outcomes = many(shared, [ask(org, "a", 1, None), ask(org, "b")])
    assert [one.outcome for one in outcomes] == ["CURRENCY_MISMATCH", "OK"]
    state = money_state(shared, org)
    with pytest.raises(DBAPIError):
        many(shared, [ask(org, "d"), ask(org, "e", counter=None)])
    assert money_state(shared, org) == state


def test_emptying_wallets_stages_one_enforcement_for_each(shared):
    emptied, other = make_organization(shared, micros=2), make_organization(shared, micros=2)
    for org in (emptied, other):
        forget_jobs(shared, org)
    many(shared, [ask(emptied, "a"), ask(other, "x"), ask(emptied, "b"), ask(emptied, "b")])
    assert len(staged(shared, emptied, "enforce_organization")) == 1
    assert staged(shared, other, "enforce_organization") == []


def test_rows_that_the_session_read_before_are_read_again(shared, org):
    credit(shared, org, 10)

    def work(session: Session) -> int:
        before = session.get_one(Wallet, org)
        assert before.balance_micros == 10
        debit_many(session, [ask(org, "k", 4)], T0)
        return before.balance_micros

    assert shared.run(work) == 6


def test_a_rolled_back_request_leaves_nothing(shared, org):
    credit(shared, org, 10)
    state = money_state(shared, org)

    def work(session: Session) -> None:
        debit_many(session, [ask(org, "k", 10)], T0)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        shared.run(work)
    assert money_state(shared, org) == state


def test_a_key_committed_while_the_lock_was_waited_for_is_a_replay(shared, shared_urls, org):
    credit(shared, org, 10)
    outcomes = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: one_by_one(session, [ask(org, "k", 4)]),
        lambda: many(shared, [ask(org, "k", 4), ask(org, "l", 7)]),
    )
    assert [(one.outcome, one.replayed) for one in outcomes] == [
        ("OK", True),
        ("INSUFFICIENT_FUNDS", False),
    ]


def test_a_freeze_placed_while_the_lock_was_waited_for_is_seen(shared, shared_urls, org):
    credit(shared, org, 10)
    outcomes = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: wallet_freezes.freeze(
            session, org, "manual", operator=ANN, now=clock(session)
        ),
        lambda: many(shared, [ask(org, "k", 4)]),
    )
    assert [one.outcome for one in outcomes] == ["FROZEN_WALLET"]


def test_wallets_are_locked_in_the_order_of_their_ids(shared):
    # Given a request that names the later wallet first, and a lock on the earlier one
    early, late = sorted(make_organization(shared, micros=10) for _ in range(2))

    def lock(org: str):
        return lambda session: session.execute(text("SELECT wallet_lock(:org)"), {"org": org})

    def later_one_is_free(session: Session) -> None:
        hurried(session)
        lock(late)(session)

    def lock_early(session: Session) -> None:
        lock(early)(session)

    # When it waits for the earlier wallet, Then it holds no lock that another may be waiting for
    with holding(shared, lock_early):
        answered = at_once(
            [
                lambda: shared.run(
                    lambda session: (
                        session.execute(text("SET LOCAL lock_timeout = '600ms'")),
                        debit_many(session, [ask(late, "k"), ask(early, "k")], T0),
                    )
                ),
                lambda: [shared.run(later_one_is_free) for _ in range(40)],
            ]
        )
    assert type(answered[0]).__name__ == "DatabaseBusy"
    assert not isinstance(answered[1], Exception)


def test_threads_with_wallets_in_any_order_debit_exactly_what_they_request(shared):
    orgs = [make_organization(shared, micros=10_000) for _ in range(4)]

    def caller(number: int):
        wanted = orgs[number % 4 :] + orgs[: number % 4]
        if number % 2:
            wanted.reverse()
        return lambda: [
            many(shared, [ask(org, f"{number}:{n}", number + 1) for org in wanted])
            for n in range(10)
        ]

    answered = at_once([caller(number) for number in range(8)])
    assert all(one.ok and not one.replayed for calls in answered for call in calls for one in call)
    for org in orgs:
        assert figures(shared, org) == (10_000 - 10 * sum(range(1, 9)), 0)
        assert [entry.entry_no for entry in entries(shared, org)] == list(range(82))


def test_debit_now_answers_as_a_debit_does(shared, org):
    credit(shared, org, 10)
    first = debit_now(shared, ask(org, "k", 4))
    assert first == WalletOutcome("OK", False, first.entry_no, 6, 0, 0, 10)
    assert debit_now(shared, ask(org, "k", 4)).replayed
    assert debit_now(shared, ask(org, "k", 5)).outcome == "IDEMPOTENCY_CONFLICT"
    assert debit_now(shared, ask(org, "l", 7)).outcome == "INSUFFICIENT_FUNDS"
    assert debit_now(shared, ask(org, "l", 2**80)).outcome == "INVALID_AMOUNT"
    assert debit_now(shared, ask(org, "l", -(2**80))).outcome == "INVALID_AMOUNT"
    assert figures(shared, org) == (6, 0)


def test_debit_now_is_refused_while_frozen_and_allowed_under_an_override(shared, org):
    credit(shared, org, 10)
    freeze(shared, org)
    assert debit_now(shared, ask(org, "k")).outcome == "FROZEN_WALLET"
    shared.run(
        lambda session: wallet_freezes.override(
            session,
            org,
            "manual",
            until=clock(session) + (later(60) - T0),
            operator=Operator("ann", "emergency"),
            now=clock(session),
        )
    )
    assert debit_now(shared, ask(org, "k")).ok


def test_debit_now_stages_the_same_enforcement_as_a_debit(shared):
    # Given two equal wallets, one emptied by a single debit and one through the combiner
    alone, combined = make_organization(shared, micros=5), make_organization(shared, micros=5)
    for org in (alone, combined):
        forget_jobs(shared, org)
    shared.run(lambda session: one_by_one(session, [ask(alone, "k", 5)]))
    debit_now(shared, ask(combined, "k", 5))
    # Then the jobs are alike
    (one,) = staged(shared, alone, "enforce_organization")
    (other,) = staged(shared, combined, "enforce_organization")
    assert (other.queue, other.cause, other.attempt, other.rings) == (
        one.queue,
        one.cause,
        one.attempt,
        one.rings,
    )
    assert (one.kwargs, other.kwargs) == (
        {"organization_id": alone},
        {"organization_id": combined},
    )
    assert other.correlation_id.startswith("cor_")
    assert (other.ring_at - other.staged_at).total_seconds() == pytest.approx(2, abs=0.1)


def test_reserved_key_of_a_call_is_refused_in_a_batch(shared, org):
    debits = [Debit(org, "call:c1:commit", 1, "USD", "messages")]
    answers = shared.run(lambda session: debit_many(session, debits, T0))
    assert [one.outcome for one in answers] == ["RESERVED_KEY"]


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", None])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("key", "INVALID_KEY"),
        ("organization_id", "WALLET_NOT_FOUND"),
        ("currency", "CURRENCY_MISMATCH"),
    ],
)
def test_text_that_cannot_be_stored_is_refused_before_it_joins_a_batch(
    shared, org, name, code, bad
):
    # Given a debit with one text that cannot even be sent to PostgreSQL
    debit = ask(org, "k")._replace(**{name: bad})
    before = money_state(shared, org)
    # When it is made alone, Then it is refused without an error, and nothing has changed
    assert debit_now(shared, debit).outcome == code
    assert money_state(shared, org) == before
