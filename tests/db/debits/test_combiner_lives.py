"""The combiner's life in its process: start, dying thread, fork and kill."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from base.outcomes import OutcomeUnknown
from db.busy import DatabaseBusy
from db.debits.combiner import Combiner, Debit
from db.engine import Database
from db.jobs.staging import Staged
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.debits.combining import ask, broken_links, keys_of, waiting_callers
from tests.db.debits.debtor import CALLERS
from tests.db.support import at_once, scalar
from tests.support.cuttable import Way
from tests.support.world import make_organization

FUNDS = 1_000_000

dying = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def org(shared) -> str:
    return make_organization(shared, micros=FUNDS)


@pytest.fixture
def own(shared_urls) -> Iterator[Database]:
    """A new database object for this test, as each process has one."""
    made = Database(shared_urls.app_url, name="own")
    yield made
    made.close()


def combiner_threads() -> int:
    return sum(thread.name == "combiner" for thread in threading.enumerate())


def until_answered(debit: Callable[[], Any]) -> Any:
    """Repeat the debit with the same key until it is answered."""
    for _ in range(100):
        try:
            return debit()
        except (OutcomeUnknown, DatabaseBusy):
            continue
    raise AssertionError("never answered")


def test_combiner_runs_from_the_first_debit_until_the_close(shared, own, org):
    # Given a database object without any debit so far: it has no combiner thread
    before = combiner_threads()
    assert own.now() is not None
    assert combiner_threads() == before
    # When many threads debit at once, Then they share one combiner thread
    answers = at_once([lambda n=n: own.combiner.debit(ask(org, f"k{n}")) for n in range(16)])
    assert {answer[0] for answer in answers} == {"OK"}
    assert combiner_threads() == before + 1
    # And the thread ends with the database object; a later caller gets DatabaseBusy
    own.close()
    assert combiner_threads() == before
    with pytest.raises(DatabaseBusy):
        own.combiner.debit(ask(org, "late"))
    assert combiner_threads() == before
    assert len(keys_of(shared, org)) == 16


def test_database_notifies_of_the_jobs_that_a_commit_staged(shared_urls, org):
    notified: list[Staged] = []
    own = Database(shared_urls.app_url, name="own", after_commit=notified.extend)
    own.combiner.debit(ask(org, "some"))
    assert notified == []
    own.combiner.debit(ask(org, "all", FUNDS - 1))
    own.close()
    assert [(job.name, job.queue) for job in notified] == [("enforce_organization", "safety")]


@dying
def test_dying_thread_answers_every_caller_and_the_next_debit_works(shared, shared_urls, org):
    # Given a combiner whose thread dies right after a commit, while others wait behind it
    def die(_: list[Staged]) -> None:
        raise SystemExit

    combiner = Combiner(shared_urls.app_url, after_commit=die)
    debits = [ask(org, "all", FUNDS), *(ask(org, f"k{n}") for n in range(5))]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        pass
    # Then the sent debit is unknown (it was committed), and the others were not sent
    assert isinstance(callers[0].exception(), OutcomeUnknown)
    assert "interrupted" in str(callers[0].exception()), "answered, and did not give up waiting"
    assert all(isinstance(one.exception(), DatabaseBusy) for one in callers[1:])
    assert keys_of(shared, org) == ["all"]
    # And the next debits are served, and the repeat gets its first result
    assert combiner.debit(debits[0])[:2] == ("OK", True)
    assert combiner.debit(debits[1])[0] == "INSUFFICIENT_FUNDS"
    combiner.stop()


@dying
def test_thread_that_dies_repeatedly_charges_nothing_twice(shared, shared_urls, org):
    # Given many callers and a thread that dies after every commit that empties a wallet
    def die(_: list[Staged]) -> None:
        raise SystemExit

    combiner = Combiner(shared_urls.app_url, after_commit=die)
    poor = [make_organization(shared, micros=1) for _ in range(24)]

    def caller(number: int) -> Callable[[], list[Any]]:
        wanted = [ask(one, "all") for one in poor[number::8]]
        wanted += [ask(org, f"{number}:{n}") for n in range(9)]
        return lambda: [until_answered(lambda one=one: combiner.debit(one)) for one in wanted]

    answered = at_once([caller(number) for number in range(8)])
    combiner.stop()
    # Then every caller is answered OK in the end, and each key has one entry
    assert [answer[0] for answers in answered for answer in answers] == ["OK"] * 96
    assert sorted(keys_of(shared, org)) == sorted(f"{c}:{n}" for c in range(8) for n in range(9))
    assert [keys_of(shared, one) for one in poor] == [["all"]] * 24
    assert broken_links(shared_urls.owner_url, org) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_has_its_own_combiner(shared, own, org):
    # Given a process that has debited and therefore has a thread and a connection
    assert own.combiner.debit(ask(org, "parent"))[0] == "OK"
    reading, writing = os.pipe()
    # When its child debits as well
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, own.combiner.debit(ask(org, "child"))[0].encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answered:
        assert answered.read() == "OK"
    os.waitpid(child, 0)
    # Then the parent still uses the same connection
    pid = "SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'holdfast combiner'"
    before = scalar(own.url, pid)
    assert own.combiner.debit(ask(org, "again"))[0] == "OK"
    assert scalar(own.url, pid) == before
    assert keys_of(shared, org) == ["parent", "child", "again"]


def test_killed_process_has_an_entry_for_every_answer_it_gave(shared, shared_urls, own, org):
    # Given a process with many callers, killed while they receive answers
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.db.debits.debtor", shared_urls.app_url, org],
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(CALLERS * 20)]
        process.kill()
        lines += process.stdout.readlines()
    answered = dict(line.decode().split() for line in lines)
    # Then every answer has its entry
    written = dict(enumerate(["opening", "fund", *keys_of(shared, org)]))
    assert len(answered) >= CALLERS * 20
    assert {int(entry_no): key for key, entry_no in answered.items()}.items() <= written.items()
    # And when every requested or possibly requested debit is repeated by key, nothing is charged
    # twice
    asked = [f"{caller}:{n}" for caller in range(CALLERS) for n in range(highest(written) + 2)]
    again = {key: own.combiner.debit(Debit(org, key, 1, "USD", "messages")) for key in asked}
    assert {key: str(again[key][2]) for key in answered} == answered
    assert sorted(keys_of(shared, org)) == sorted(asked)
    assert broken_links(shared_urls.owner_url, org) == 0


def highest(written: dict[int, str]) -> int:
    """Find the highest number in any caller's key."""
    return max(int(key.split(":")[1]) for key in written.values() if ":" in key)


def test_combiner_leaves_a_read_only_server_and_debits_on_a_new_connection(
    shared, shared_urls, org
):
    # Given a connection to a read-only server, as after a failover. Without the pooler, which would
    # give the changed connection to others
    combiner = Combiner(derive_app_url(shared_urls.owner_url, PASSWORD))
    assert combiner.debit(ask(org, "first"))[0] == "OK"
    combiner._batch_connection._connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseBusy):
        combiner.debit(ask(org, "second"))
    # When the caller repeats, Then the debit succeeds
    assert combiner.debit(ask(org, "second"))[0] == "OK"
    combiner.stop()
    assert keys_of(shared, org) == ["first", "second"]


def test_combiner_leaves_a_silent_server_and_debits_on_a_new_connection(shared, org):
    # Given an open connection over which no answers arrive any more
    way = Way(shared.url)
    combiner = Combiner(way.url, longest_seconds=3)
    assert combiner.debit(ask(org, "first"))[0] == "OK"
    way.deaf.set()
    with pytest.raises(OutcomeUnknown):
        combiner.debit(ask(org, "second"))
    # When the server can be reached again, Then the same debit is charged, once
    way.deaf.clear()
    assert combiner.debit(ask(org, "second"))[0] == "OK"
    assert keys_of(shared, org) == ["first", "second"]
    combiner.stop()
    way.cut()
