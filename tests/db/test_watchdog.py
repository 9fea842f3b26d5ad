"""A server that goes silent: no caller waits forever, and the pool recovers after."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from base.clock import wait_until
from base.operators import Operator
from base.outcomes import NotYet, OutcomeUnknown
from db.engine import Database, clock
from db.watchdog import Watchdog
from domain.operator_actions import freeze_manually
from domain.wallet import queries as wallet_queries
from tests.support.cuttable import Way
from tests.support.world import make_organization

LONGEST_SECONDS = 0.5
#: Extra time after which a thread is free, at the latest, on a busy machine.
LIMIT_SECONDS = 5.0


@pytest.fixture
def way(shared):
    made = Way(shared.url)
    yield made
    made.cut()


@pytest.fixture
def database(way):
    made = Database(way.url, name="patient", pool_size=4, longest_seconds=LONGEST_SECONDS)
    yield made
    made.close()


def one(database: Database) -> int:
    return database.run(lambda session: session.execute(text("SELECT 1")).scalar_one())


def test_caller_of_a_silent_server_gets_an_error_and_the_next_is_served(database, way):
    # Given a full pool of connections to a server that goes silent
    together = threading.Barrier(4)

    def first(session):
        together.wait(LIMIT_SECONDS)
        return session.execute(text("SELECT 1")).scalar_one()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: database.run(first), range(4))) == [1] * 4
        way.deaf.set()
        began = time.monotonic()
        # When a caller waits for each of them
        pending = [pool.submit(one, database) for _ in range(4)]
        errors = [each.exception(LONGEST_SECONDS + LIMIT_SECONDS) for each in pending]
    # Then every caller gets an error, not before the limit
    assert [isinstance(error, NotYet | OutcomeUnknown) for error in errors] == [True] * 4
    assert time.monotonic() - began >= LONGEST_SECONDS
    # And once the server answers again, it is used again
    way.deaf.clear()
    assert [one(database) for _ in range(4)] == [1] * 4


def test_too_long_transaction_is_rolled_back(database, shared):
    organization = make_organization(shared)

    def slow(session):
        freeze_manually(session, organization, operator=Operator("me", "test"), now=clock(session))
        session.execute(text("SELECT pg_sleep(3)"))

    with pytest.raises(NotYet):
        database.run(slow)
    balance = shared.run(lambda s: wallet_queries.balance(s, organization, clock(s)))
    assert not balance.frozen


def test_connection_in_the_pool_is_not_cut(database):
    # Given a connection that is in the pool for longer than a transaction may last
    def pid() -> int:
        return database.run(lambda s: s.execute(text("SELECT pg_backend_pid()")).scalar_one())

    first = pid()
    time.sleep(LONGEST_SECONDS * 2)
    # Then it is still used
    assert pid() == first


def test_connection_without_a_limit_is_not_cut(shared):
    slow = text(f"SELECT pg_sleep({LONGEST_SECONDS * 2}), 1 AS one")
    assert shared.run(lambda s: s.execute(slow).one()).one == 1


def test_connection_outside_a_pool_is_cut_again_after_a_pause():
    watchdog = Watchdog(LONGEST_SECONDS)
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ours.settimeout(LONGEST_SECONDS + LIMIT_SECONDS)
        # Given a server that says nothing, When a caller waits for it, Then the wait ends
        with ours, theirs:
            with watchdog.watching(ours):
                assert ours.recv(1) == b""
            # And between two uses no thread is left
            assert wait_until(lambda: not watchdog._is_running, limit_seconds=LIMIT_SECONDS)


def test_connection_outside_a_pool_is_left_alone_after_its_use():
    watchdog = Watchdog(LONGEST_SECONDS)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with watchdog.watching(ours):
            pass
        assert wait_until(lambda: not watchdog._is_running, limit_seconds=LIMIT_SECONDS)
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
