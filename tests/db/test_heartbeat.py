"""A process's row: written while the process works, deleted when it stops.

Neither an outage nor a silent database stops the process.
"""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from db import processes
from db.engine import Database
from db.heartbeat import Heartbeat
from db.models import ProcessRow
from tests.workers.scenes import eventually


def sql(database, statement, **values):
    database.run(lambda session: session.execute(text(statement), values))


def seen_often(database, count=3):
    """Wait until processes have written their rows so often."""
    seen = set()

    def written():
        seen.update(one.seen_at for one in database.run(lambda s: s.query(ProcessRow).all()))
        return len(seen) >= count

    return eventually(written)


@pytest.fixture
def far(way):
    """The database over a proxy that can cut connections or go silent."""
    made = Database(way.url, name="far", pool_size=2, longest_seconds=30)
    yield made
    made.close()


def beats_now():
    return any(thread.name == "heartbeat" for thread in threading.enumerate())


def test_heartbeat_writes_its_row_again_and_again_and_deletes_it(database):
    checked = []
    beating = Heartbeat(
        database,
        "worker",
        queues=["safety"],
        check=lambda _session, process_id: checked.append(process_id),
        every_seconds=0.02,
    )
    beating.start()
    seen = set()

    def beats():
        seen.update(one.seen_at for one in database.run(lambda s: s.query(ProcessRow).all()))
        return len(seen) > 2

    assert eventually(beats)
    assert set(checked) == {beating.process_id}
    beating.stop()
    assert database.run(processes.list_processes) == []


def test_heartbeat_goes_on_when_its_check_fails(database):
    # Given a check that fails in an unforeseen way
    checked = []

    def check(_session, process_id):
        checked.append(process_id)
        raise RuntimeError("out of memory")

    beating = Heartbeat(database, "worker", check=check, every_seconds=0.01)
    beating.start()
    # Then the process still writes its row
    assert seen_often(database, 4)
    assert len(checked) >= 2
    beating.stop()


def test_heartbeat_checks_nothing_when_another_process_has_just_checked(database, monkeypatch):
    database.run(Heartbeat(database, "relay").beat)
    monkeypatch.setattr(processes, "CHECK_SECONDS", 3_600)
    sql(database, "UPDATE processes SET checked_at = clock_timestamp()")
    checked = []
    beating = Heartbeat(database, "worker", check=lambda *_: checked.append(1), every_seconds=0.01)
    beating.start()
    assert seen_often(database, 5)
    beating.stop()
    assert checked == []


def test_heartbeat_ends_quietly_when_the_database_is_away(database, far, way):
    beating = Heartbeat(far, "worker", every_seconds=0.01)
    beating.start()
    assert seen_often(database)
    # When the database goes away and the process stops, Then the thread ends without an error
    way.cut()
    beating.stop()
    assert eventually(lambda: not beats_now(), limit_seconds=60)
    assert len(database.run(processes.list_processes)) == 1


def test_stopping_process_does_not_wait_for_a_silent_database(database, far, way):
    beating = Heartbeat(far, "worker", every_seconds=0.01)
    beating.start()
    assert seen_often(database)
    way.deaf.set()
    assert eventually(lambda: way.silent_count > 0)
    # When the process stops, Then it leaves the waiting thread behind
    beating.stop()
    assert beats_now()
    way.cut()
    assert eventually(lambda: not beats_now(), limit_seconds=60)


def test_heartbeat_that_never_began_can_be_stopped(database):
    Heartbeat(database, "worker").stop()


def test_heartbeat_is_silent_while_its_process_hangs(database):
    working, asked = [True], []

    def is_working():
        asked.append(1)
        return bool(working)

    beating = Heartbeat(database, "relay", is_working=is_working, every_seconds=0.01)
    beating.start()
    assert eventually(lambda: len(database.run(processes.list_processes)) == 1)
    working.clear()
    # A write under way when the process began to hang is over once the thread checks again.
    asks = len(asked)
    assert eventually(lambda: len(asked) > asks + 1)
    sql(database, "DELETE FROM processes")
    asks = len(asked)
    assert eventually(lambda: len(asked) > asks + 5)
    assert database.run(processes.list_processes) == []
    beating.stop()
