"""The combiner: many threads share few commits and get the correct answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psycopg
import pytest
from sqlalchemy import text

from base.clock import wait_until
from base.outcomes import OutcomeUnknown
from db.address import driver_url
from db.busy import DatabaseBusy
from db.debits.combiner import Answer, Combiner, Debit
from db.jobs.staging import Staged
from db.models import Job
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.debits.combining import (
    ask,
    broken_links,
    entries_of,
    keys_of,
    lock_of,
    waiting_callers,
)
from tests.db.support import at_once, holding, scalar
from tests.support.world import make_organization

BEFORE = 1_000_000


@pytest.fixture
def notified() -> list[Staged]:
    """The jobs that `after_commit` received."""
    return []


@pytest.fixture
def combiner(shared_urls, notified) -> Iterator[Combiner]:
    made = Combiner(shared_urls.app_url, after_commit=notified.extend)
    yield made
    made.stop()


@pytest.fixture
def org(shared) -> str:
    return make_organization(shared, micros=BEFORE)


def jobs_of(database, org: str) -> list[Job]:
    return database.run(lambda session: session.query(Job).filter_by(organization_id=org).all())


def test_threads_debit_exactly_what_they_request(shared, shared_urls, combiner, org):
    # Given 32 threads, each with different keys and amounts
    def caller(number: int) -> Callable[[], list[tuple[Debit, Answer]]]:
        debits = [ask(org, f"{number}:{n}", number * 10 + n + 1) for n in range(15)]
        return lambda: [(debit, combiner.debit(debit)) for debit in debits]

    # When all debit at once
    answered = [pair for answers in at_once([caller(n) for n in range(32)]) for pair in answers]
    # Then each answer names the caller's entry and the balance right after it
    entries = {entry.entry_no: entry for entry in entries_of(shared, org)}
    assert len(entries) == len(answered) == 480
    for debit, (outcome, replayed, entry_no, balance, held, owed, before) in answered:
        entry = entries[entry_no]
        assert (outcome, replayed, held, owed) == ("OK", False, 0, 0)
        assert (entry.operation_key, entry.amount_micros) == (debit.key, debit.amount_micros)
        assert (entry.balance_before_micros, entry.balance_after_micros) == (before, balance)
    spent = sum(debit.amount_micros for debit, _ in answered)
    assert min(entry.balance_after_micros for entry in entries.values()) == BEFORE - spent
    assert broken_links(shared_urls.owner_url, org) == 0


def test_many_debits_share_few_commits(shared, shared_urls, combiner, org):
    debits = [ask(org, f"k{n}") for n in range(40)]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        pass
    assert all(one.result()[0] == "OK" for one in callers)
    # xmin is the transaction that wrote a row.
    commits = scalar(
        shared_urls.owner_url,
        "SELECT count(DISTINCT xmin::text) FROM wallet_entries WHERE organization_id = %s"
        " AND kind = 'debit'",
        org,
    )
    assert commits == 2
    assert keys_of(shared, org) == [debit.key for debit in debits]


def test_refused_debit_does_not_affect_the_others(shared, shared_urls, combiner, org):
    # Given one batch of three wallets with valid debits and every kind of refusal
    poor, other = make_organization(shared, micros=5), make_organization(shared, micros=5)
    debits = [
        ask(org, "first"),
        ask(poor, "too much", 6),
        ask(poor, "all", 5),
        ask(poor, "nothing left"),
        ask("org_nobody", "k"),
        ask(org, "zero", 0),
        ask(org, "other currency", 1, "EUR"),
        ask(org, "k" * 201),
        ask(org, ""),
        ask(other, 'a "quoted" \\ key, {with} braces', 2),
        ask(org, "last"),
    ]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        pass
    # Then each caller has its answer, and only the accepted debits have entries
    assert [one.result()[0] for one in callers] == [
        "OK",
        "INSUFFICIENT_FUNDS",
        "OK",
        "INSUFFICIENT_FUNDS",
        "WALLET_NOT_FOUND",
        "INVALID_AMOUNT",
        "CURRENCY_MISMATCH",
        "INVALID_KEY",
        "INVALID_KEY",
        "OK",
        "OK",
    ]
    assert callers[1].result()[1:] == (False, None, None, None, None, None)
    assert keys_of(shared, org) == ["first", "last"]
    assert keys_of(shared, poor) == ["all"]
    assert keys_of(shared, other) == ['a "quoted" \\ key, {with} braces']


def test_debit_that_raises_does_not_affect_the_others(shared, shared_urls, combiner, org):
    # Given one batch with a key and an amount that PostgreSQL cannot store
    debits = [ask(org, "a"), ask(org, "b\x00c"), ask(org, "d"), ask(org, "e", 2**70), ask(org, "f")]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        pass
    assert isinstance(callers[1].exception(), psycopg.DataError)
    assert isinstance(callers[3].exception(), psycopg.DataError)
    assert keys_of(shared, org) == ["a", "d", "f"]


def test_debit_is_replayed_with_equal_parameters_and_conflicts_otherwise(shared, combiner, org):
    first = combiner.debit(ask(org, "k", 7))
    assert combiner.debit(ask(org, "k", 7)) == ("OK", True, *first[2:6], BEFORE - 7)
    assert combiner.debit(ask(org, "k", 8))[0] == "IDEMPOTENCY_CONFLICT"
    assert combiner.debit(ask(org, "k", 7, "EUR"))[0] == "IDEMPOTENCY_CONFLICT"
    assert keys_of(shared, org) == ["k"]


def test_same_key_waiting_twice_is_one_debit_and_one_replay(shared, shared_urls, combiner, org):
    debits = [ask(org, "first"), ask(org, "k", 2), ask(org, "k", 2), ask(org, "k", 3)]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        pass
    _, one, two, three = (caller.result() for caller in callers)
    assert (one[0], one[1]) == ("OK", False)
    assert two[:6] == ("OK", True, *one[2:6])
    assert three[0] == "IDEMPOTENCY_CONFLICT"
    assert keys_of(shared, org) == ["first", "k"]


def test_same_key_from_two_processes_at_once_is_one_debit(shared, shared_urls, combiner, org):
    other = Combiner(shared_urls.app_url)
    for n in range(20):
        answers = at_once(
            [lambda own=own, n=n: own.debit(ask(org, f"k{n}")) for own in (combiner, other)]
        )
        assert sorted(answer[1] for answer in answers) == [False, True]
        assert answers[0][2] == answers[1][2]
    other.stop()
    assert len(keys_of(shared, org)) == 20


def test_every_debit_is_unknown_when_its_batchs_connection_dies(shared, shared_urls, combiner, org):
    debits = [ask(org, "first"), *(ask(org, f"k{n}") for n in range(10))]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        # Only the first debit is under way; the others have not been sent.
        terminate(shared_urls.owner_url)
        assert isinstance(callers[0].exception(timeout=10), OutcomeUnknown)
    assert all(one.result()[0] == "OK" for one in callers[1:])
    # When the caller repeats the first debit with the same key, Then there is one entry
    assert combiner.debit(debits[0])[:2] == ("OK", False)
    assert sorted(keys_of(shared, org)) == sorted(debit.key for debit in debits)
    assert broken_links(shared_urls.owner_url, org) == 0


def test_debits_are_unknown_when_the_commits_answer_is_lost_and_replayed(
    shared, shared_urls, org, tmp_path
):
    with losing_answers(shared_urls.app_url, tmp_path) as (url, lose):
        own = Combiner(url)
        assert own.debit(ask(org, "before"))[0] == "OK"
        # When the commit happens and its answer does not arrive
        lose.set()
        debits = [ask(org, f"k{n}") for n in range(4)]
        answered = at_once([lambda debit=debit: own.debit(debit) for debit in debits])
        # Then the outcome is unknown to that batch, and the other debits could not be sent
        lost = {
            debit.key
            for debit, one in zip(debits, answered, strict=True)
            if isinstance(one, OutcomeUnknown)
        }
        assert keys_of(shared, org) == ["before", *sorted(lost, key=keys_of(shared, org).index)]
        assert lost
        assert all(isinstance(one, OutcomeUnknown | DatabaseBusy) for one in answered)
        # And when all are repeated with the same keys, nothing is charged twice
        lose.clear()
        for debit in debits:
            assert own.debit(debit)[0] == "OK"
        own.stop()
    assert sorted(keys_of(shared, org)) == ["before", "k0", "k1", "k2", "k3"]


def test_debit_is_busy_while_the_server_is_away_and_works_again(shared, shared_urls, servers, org):
    # Connect without the pooler: it accepts data that it cannot forward, so that the outcome of
    # every debit would be unknown.
    combiner = Combiner(derive_app_url(shared_urls.owner_url, PASSWORD))
    assert combiner.debit(ask(org, "before"))[0] == "OK"
    name = urlsplit(shared_urls.owner_url).path.removeprefix("/")
    with psycopg.connect(driver_url(servers.owner_url), autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            server.execute(TERMINATE.replace("current_database()", f"'{name}'"))
            # A debit sent over the dead connection is unknown. A debit that could not be sent is
            # not.
            with pytest.raises(OutcomeUnknown):
                combiner.debit(ask(org, "k1"))
            with pytest.raises(DatabaseBusy):
                combiner.debit(ask(org, "k2"))
        finally:
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert combiner.debit(ask(org, "k2"))[0] == "OK"
    combiner.stop()
    shared.engine.dispose()
    # The pooler notices the server's return a moment later.
    assert wait_until(lambda: serves(shared), limit_seconds=20)
    assert keys_of(shared, org) == ["before", "k2"]


def serves(database) -> bool:
    try:
        return database.run(lambda _: True)
    except DatabaseBusy:
        return False


def test_locked_wallet_delays_only_its_own_debits(shared, shared_urls, org):
    held = make_organization(shared, micros=BEFORE)
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        name = owner.info.dbname
        owner.execute(f"ALTER ROLE holdfast_app IN DATABASE {name} SET lock_timeout = '300ms'")
        own = Combiner(shared_urls.app_url)
        debits = [ask(org, "first"), ask(held, "a"), ask(org, "b"), ask(held, "c"), ask(org, "d")]
        with (
            holding(shared, lock_of(held)),
            waiting_callers(shared, shared_urls.owner_url, own, org, debits) as callers,
        ):
            pass
        owner.execute(f"ALTER ROLE holdfast_app IN DATABASE {name} RESET lock_timeout")
    own.stop()
    assert [isinstance(one.exception(), DatabaseBusy) for one in callers] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert keys_of(shared, held) == []
    assert keys_of(shared, org) == ["first", "b", "d"]


def test_stop_carries_out_waiting_debits_and_answers_every_caller(
    shared, shared_urls, combiner, org
):
    debits = [ask(org, f"k{n}") for n in range(20)]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        stopping = threading.Thread(target=combiner.stop)
        stopping.start()
        time.sleep(0.05)
    stopping.join(timeout=10)
    assert not stopping.is_alive()
    assert all(one.result()[0] == "OK" for one in callers)
    # And a later caller gets DatabaseBusy: nothing was done
    with pytest.raises(DatabaseBusy):
        combiner.debit(ask(org, "late"))
    assert len(keys_of(shared, org)) == 20


def test_stop_at_any_moment_leaves_no_caller_waiting(shared_urls, org):
    for round_number in range(10):
        own = Combiner(shared_urls.app_url)
        answered: list[Any] = []

        def caller(number: int, own=own, answered=answered, round_number=round_number) -> None:
            for n in range(1000):
                try:
                    answered.append(own.debit(ask(org, f"{round_number}:{number}:{n}")))
                except DatabaseBusy:
                    return

        threads = [threading.Thread(target=caller, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.01 * round_number)
        own.stop()
        for thread in threads:
            thread.join(timeout=10)
        assert not any(thread.is_alive() for thread in threads)
    assert broken_links(shared_urls.owner_url, org) == 0


def test_debit_is_busy_when_too_many_are_waiting(shared, shared_urls, combiner, org, monkeypatch):
    monkeypatch.setattr("db.debits.combiner._WAITING_MAX", 3)
    debits = [ask(org, f"k{n}") for n in range(4)]
    with (
        waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers,
        pytest.raises(DatabaseBusy),
    ):
        combiner.debit(ask(org, "one too many"))
    assert all(one.result()[0] == "OK" for one in callers)
    assert len(keys_of(shared, org)) == 4


def test_caller_that_timed_out_does_not_receive_the_late_answer_next(
    shared, combiner, org, monkeypatch
):
    # Given a thread whose first debit timed out
    monkeypatch.setattr("db.debits.combiner._ANSWER_SECONDS", 0.2)
    with holding(shared, lock_of(org)), pytest.raises(OutcomeUnknown):
        combiner.debit(ask(org, "slow"))
    # Then its next debit gets its own answer, and the first debit was still carried out
    monkeypatch.undo()
    assert combiner.debit(ask(org, "next", 5))[0] == "OK"
    assert combiner.debit(ask(org, "next", 5))[1] is True
    assert keys_of(shared, org) == ["slow", "next"]


def test_caller_that_timed_out_does_not_block_the_callers_behind_it(
    shared, shared_urls, combiner, org, monkeypatch
):
    # Given a batch with a caller that stopped waiting
    debits = [ask(org, "first")]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits):
        monkeypatch.setattr("db.debits.combiner._ANSWER_SECONDS", 0.1)
        with pytest.raises(OutcomeUnknown):
            combiner.debit(ask(org, "impatient"))
        monkeypatch.undo()
        pool = ThreadPoolExecutor(8)
        behind = [pool.submit(combiner.debit, ask(org, f"k{n}")) for n in range(8)]
        assert wait_until(lambda: combiner.waiting_count == 9, limit_seconds=5)
    # Then the callers behind it have their answers at once, and its debit was carried out too
    assert all(one.result(timeout=2)[0] == "OK" for one in behind)
    pool.shutdown()
    assert len(keys_of(shared, org)) == 10


def test_debit_stages_one_enforcement_when_it_empties_the_wallet(
    shared, shared_urls, combiner, notified, org
):
    other = make_organization(shared, micros=2)
    # Crediting the empty wallets staged enforcement jobs of its own.
    shared.run(lambda session: session.execute(text("DELETE FROM jobs")))
    debits = [ask(org, "first"), ask(other, "a"), ask(other, "b"), ask(other, "c"), ask(other, "b")]
    with waiting_callers(shared, shared_urls.owner_url, combiner, org, debits) as callers:
        pass
    assert [one.result()[0] for one in callers] == ["OK", "OK", "OK", "INSUFFICIENT_FUNDS", "OK"]
    # Then the emptied wallet has one job, and `after_commit` received it
    (job,) = jobs_of(shared, other)
    assert jobs_of(shared, org) == []
    assert notified == [Staged(job.id, "enforce_organization", "safety")]
    same_transaction = (
        "SELECT (SELECT xmin::text FROM jobs WHERE id = %s) = (SELECT xmin::text FROM"
        " wallet_entries WHERE organization_id = %s AND operation_key = 'b')"
    )
    assert scalar(shared_urls.owner_url, same_transaction, job.id, other) is True


def test_operation_stores_the_result_that_was_returned(shared_urls, combiner, org):
    answer = combiner.debit(ask(org, "k", 7))
    with psycopg.connect(driver_url(shared_urls.owner_url)) as owner:
        row = owner.execute(
            "SELECT operation, kind, amount_micros, currency, entry_no, balance_micros,"
            " held_micros, owed_micros FROM wallet_operations WHERE organization_id = %s"
            " AND key = 'k'",
            (org,),
        ).fetchone()
    assert row == ("debit", "debit", 7, "USD", *answer[2:6])


TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'holdfast combiner'"
)


def terminate(owner_url: str) -> None:
    assert scalar(owner_url, TERMINATE) is True


@contextmanager
def losing_answers(url: str, folder: Path) -> Iterator[tuple[str, threading.Event]]:
    """Relay connections to the server; if `lose` is set, cut them at the next answer."""
    parts = urlsplit(url)
    server_path = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
    lose = threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / ".s.PGSQL.5432"))
    listener.listen()

    ends: list[socket.socket] = [listener]
    threads: list[threading.Thread] = []

    def carry(source: socket.socket, target: socket.socket, *, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and lose.is_set():
                    break
                target.sendall(data)
        cut(source, target)

    def begin(*args: Any, **more: Any) -> None:
        threads.append(threading.Thread(target=carry, args=args, kwargs=more))
        threads[-1].start()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                ends.append(client)
                server = socket.socket(socket.AF_UNIX)
                ends.append(server)
                server.connect(server_path)
                begin(client, server, answers=False)
                begin(server, client, answers=True)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield parts._replace(query=f"host={quote(str(folder), safe='')}").geturl(), lose
    finally:
        cut(listener)
        accepting.join()
        cut(*ends)
        for thread in threads:
            thread.join()
        for end in ends:
            end.close()


def cut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
