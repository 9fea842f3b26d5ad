"""One tick over five hundred calls of a wallet takes only a few statements.

The tick holds the wallet's lock meanwhile.
"""

from __future__ import annotations

import pytest
from sqlalchemy import event

from base.enums import EndCause
from domain.calls.ending import end_live_calls
from domain.calls.tick import TickResult
from tests.domain.calls.support import execute
from tests.domain.support import T0, forget_jobs, later

#: For any number of calls: locks, reads, the ledger's call, rows and jobs, once each.
STATEMENTS_MAX = 12


@pytest.fixture
def many(customer):
    """Five hundred calls of one wallet, all of which talk since T0."""
    customer.pay(1_000_000)
    execute(
        customer.database,
        "INSERT INTO calls (organization_id, id, provider_call_id, direction, status, currency,"
        " micros_per_minute, increment_seconds, minimum_micros, metered_from, tick_at, created_at)"
        " SELECT :org, 'c' || n, :org || n, 'outbound', 'in_progress', 'USD', 600000, 1, 0, :at,"
        " :at, :at FROM generate_series(1, 500) n",
        org=customer.id,
        at=T0,
    )
    execute(
        customer.database,
        "SELECT reserve_call_credits(:org, 'c' || n, NULL, 600000, 'USD', :until, :at)"
        " FROM generate_series(1, 500) n",
        org=customer.id,
        at=T0,
        until=later(960),
    )
    return customer


@pytest.fixture
def statements(shared):
    """The statements that reach the database, one for each round trip or batch."""
    seen: list[str] = []

    def listen(_connection, _cursor, statement, *_more):
        seen.append(statement)

    event.listen(shared.engine, "before_cursor_execute", listen)
    yield seen
    event.remove(shared.engine, "before_cursor_execute", listen)


def counted(statements, act):
    statements.clear()
    return act(), len(statements)


def make_due(customer):
    execute(
        customer.database,
        "UPDATE calls SET tick_at = :at WHERE organization_id = :org AND tick_at IS NOT NULL",
        org=customer.id,
        at=T0,
    )


def test_five_hundred_calls_of_a_wallet_take_a_few_statements(many, statements):
    # Extended, warned and ended
    done, count = counted(statements, lambda: many.tick(later(53)))
    assert (done, count <= STATEMENTS_MAX) == (TickResult(extended=500), True), count
    many.terms(warn_before_seconds=10)
    many.freeze(later(60))
    make_due(many)
    done, count = counted(statements, lambda: many.tick(later(104)))
    assert (done, count <= STATEMENTS_MAX) == (TickResult(warned=500), True), count
    done, count = counted(statements, lambda: many.tick(later(113)))
    assert (done, count <= STATEMENTS_MAX) == (TickResult(ended=500), True), count
    assert len(many.jobs("end_call")) == len(many.jobs("warn_call")) == 500


def test_five_hundred_calls_that_do_not_talk_are_refreshed_in_a_few(many, statements):
    execute(
        many.database,
        "UPDATE calls SET metered_from = NULL WHERE organization_id = :org",
        org=many.id,
    )
    forget_jobs(many.database, many.id)
    done, count = counted(statements, lambda: many.tick(later(30)))
    assert (done.refreshed, count <= STATEMENTS_MAX) == (500, True), count
    assert len(many.jobs("look_at_call")) == 500


def test_a_suspension_of_five_hundred_calls_takes_a_few(many, statements):
    def suspend(session):
        return end_live_calls(session, many.id, EndCause.SUBSCRIPTION_INACTIVE, later(1))

    done, count = counted(statements, lambda: many.do(suspend))
    assert (done, count <= STATEMENTS_MAX) == (500, True), count
    assert len(many.jobs("end_call")) == 500


def test_tick_without_due_calls_takes_three_statements(many, statements):
    many.tick(T0)
    done, count = counted(statements, lambda: many.tick(later(1)))
    # The wallet's lock and row, and its live calls
    assert (done, count) == (TickResult(), 3)
