"""The inbox batcher: it loses no acknowledged event and stores none twice.

A bad row does not affect the other events of its batch.
"""

from __future__ import annotations

import asyncio
import hashlib

import psycopg
import pytest

from base.enums import Queue
from db.address import driver_url
from db.inbox.batcher import InboxBatcher, InboxUnavailable, Verdict, VerifiedEvent
from db.models import InboxEvent, Job
from tests.db.support import scalar


@pytest.fixture
def urls(shared_urls, emptied):
    return shared_urls


@pytest.fixture
def database(emptied):
    return emptied


def event(external_id, *, transmission=None, body=b"{}", queue=Queue.SAFETY, **more):
    return VerifiedEvent(
        source=more.get("source", "paypal"),
        external_id=external_id,
        transmission_id=transmission,
        event_type=more.get("event_type", "TYPE"),
        body=body,
        correlation_id=f"cor_{external_id[:20]}",
        queue=queue,
    )


def in_inbox(url, work, *, notified=None):
    """Run `work(batcher)` with a batcher, from its start to its stop."""

    async def main():
        batcher = InboxBatcher(url, notified.extend if notified is not None else lambda _: None)
        await batcher.start()
        try:
            return await work(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(main())


def receive_all(url, events, *, notified=None):
    """Receive the events at once and return verdicts or exceptions."""

    async def work(batcher):
        return await asyncio.gather(*map(batcher.receive, events), return_exceptions=True)

    return in_inbox(url, work, notified=notified)


def stored(database):
    return database.run(lambda session: session.query(InboxEvent).all())


def staged(database):
    return database.run(lambda session: session.query(Job).all())


def count_commits(urls):
    # Rows written in one transaction carry its ID in `xmin`.
    return scalar(urls.owner_url, "SELECT count(DISTINCT xmin::text) FROM inbox")


def test_event_is_stored_byte_for_byte_with_its_job_in_one_commit(urls, database):
    notified = []
    body = b'{"odd": "\xff\x00"}'
    given = event("WH-1", transmission="T-1", body=body, queue=Queue.BILLING)
    assert receive_all(urls.app_url, [given], notified=notified) == [Verdict.NEW]
    (row,) = stored(database)
    assert (row.source, row.external_id, row.transmission_id) == ("paypal", "WH-1", "T-1")
    assert (row.body, row.body_sha256) == (body, hashlib.sha256(body).digest())
    assert (row.event_type, row.correlation_id, row.handled_at) == ("TYPE", "cor_WH-1", None)
    (job,) = staged(database)
    assert (job.name, job.kwargs, job.queue) == ("process_event", {"event_id": row.id}, "billing")
    assert (job.cause, job.correlation_id) == (row.id, "cor_WH-1")
    assert [(one.job_id, one.name, one.queue) for one in notified] == [
        (job.id, "process_event", "billing")
    ]
    one_commit = "SELECT (SELECT xmin::text FROM inbox) = (SELECT xmin::text FROM jobs)"
    assert scalar(urls.owner_url, one_commit) is True


def test_event_without_a_queue_is_stored_as_ignored_without_a_job(urls, database):
    # Given an event that concerns nothing, between two that do
    notified = []
    given = [event("WH-1"), event("WH-2", queue=None), event("WH-3")]
    # When they are stored together, and sent again
    assert receive_all(urls.app_url, given, notified=notified) == [Verdict.NEW] * 3
    assert receive_all(urls.app_url, given, notified=notified) == [Verdict.DUPLICATE] * 3
    # Then it is handled already, and only the others have a job and a notification
    rows = {one.external_id: one for one in stored(database)}
    ignored = rows["WH-2"]
    assert (ignored.outcome, ignored.handled_at >= ignored.received_at) == ("ignored", True)
    assert [(rows[name].outcome, rows[name].handled_at) for name in ("WH-1", "WH-3")] == [
        (None, None)
    ] * 2
    jobs = staged(database)
    assert {job.cause for job in jobs} == {rows["WH-1"].id, rows["WH-3"].id}
    assert {one.job_id for one in notified} == {job.id for job in jobs}


def test_concurrent_events_share_few_commits_with_one_job_each(urls, database):
    notified = []
    events = [event(f"WH-{n}", transmission=f"T-{n}") for n in range(300)]
    assert receive_all(urls.app_url, events, notified=notified) == [Verdict.NEW] * 300
    assert count_commits(urls) <= 10
    causes = [job.cause for job in staged(database)]
    assert sorted(causes) == sorted(row.id for row in stored(database))
    assert len(set(causes)) == 300
    assert len(notified) == 300


def test_repeat_is_a_duplicate_in_the_same_and_a_later_batch(urls, database):
    notified = []
    again = [event("WH-1", transmission=f"T-{n}", body=b"same") for n in range(20)]
    verdicts = receive_all(urls.app_url, again, notified=notified)
    assert sorted(verdicts) == [Verdict.DUPLICATE] * 19 + [Verdict.NEW]
    later = event("WH-1", transmission="T-other", body=b"same")
    assert receive_all(urls.app_url, [later], notified=notified) == [Verdict.DUPLICATE]
    assert len(stored(database)) == len(staged(database)) == len(notified) == 1


def test_same_id_from_another_source_is_another_event(urls):
    events = [event("1", source="paypal"), event("1", source="stripe")]
    assert receive_all(urls.app_url, events) == [Verdict.NEW, Verdict.NEW]


def test_same_id_with_another_body_differs_and_stages_nothing(urls, database):
    assert receive_all(urls.app_url, [event("WH-1", body=b"first")]) == [Verdict.NEW]
    forged = [event("WH-1", body=b"forged"), event("WH-1", body=b"first")]
    assert receive_all(urls.app_url, forged) == [Verdict.DIFFERS, Verdict.DUPLICATE]
    assert [row.body for row in stored(database)] == [b"first"]
    assert len(staged(database)) == 1


def test_same_id_with_another_body_differs_within_one_batch(urls, database):
    verdicts = receive_all(urls.app_url, [event("WH-1", body=b"a"), event("WH-1", body=b"b")])
    assert sorted(verdicts) == [Verdict.DIFFERS, Verdict.NEW]
    assert len(stored(database)) == len(staged(database)) == 1


def test_one_transmission_cannot_carry_two_events(urls, database):
    # PayPal's signature covers only a CRC32 of the body, which can be forged. It does cover the
    # transmission ID.
    first = event("WH-1", transmission="T-1", body=b"first")
    forged = event("WH-2", transmission="T-1", body=b"forged")
    assert receive_all(urls.app_url, [first]) == [Verdict.NEW]
    assert receive_all(urls.app_url, [forged]) == [Verdict.DIFFERS]
    assert [row.external_id for row in stored(database)] == ["WH-1"]
    assert len(staged(database)) == 1


def test_batchers_with_opposite_orders_store_everything_once(urls, database):
    # Given the same events in two processes, in opposite orders
    events = [event(f"WH-{n:03}", transmission=f"T-{n}") for n in range(120)]
    notified = []

    async def main():
        batchers = [InboxBatcher(urls.app_url, notified.extend) for _ in range(2)]
        for batcher in batchers:
            await batcher.start()
        # When both receive them at the same time
        results = await asyncio.gather(
            *(batchers[0].receive(one) for one in events),
            *(batchers[1].receive(one) for one in reversed(events)),
            return_exceptions=True,
        )
        for batcher in batchers:
            await batcher.stop()
        return results

    results = asyncio.run(main())
    # Then there was no deadlock, and of each pair one event is new
    assert sorted(results) == [Verdict.DUPLICATE] * 120 + [Verdict.NEW] * 120
    assert len(stored(database)) == len(staged(database)) == len(notified) == 120


def test_batch_inserts_its_keys_in_one_order_whatever_order_was_given(urls):
    # Given a batch that waits for "b", which another transaction is inserting
    insert = (
        "INSERT INTO inbox (id, source, external_id, event_type, body, body_sha256,"
        " correlation_id, received_at) VALUES (%s, 'paypal', %s, 'T', '', sha256(''), '', now())"
    )
    receive = (
        "SELECT inbox_receive(ARRAY['c','a','b'], ARRAY['paypal','paypal','paypal'],"
        " ARRAY['c','a','b'], ARRAY[NULL,NULL,NULL]::text[], ARRAY['T','T','T'],"
        " ARRAY['','','']::bytea[], ARRAY['','',''], ARRAY['jc','ja','jb'],"
        " ARRAY['safety','safety','safety'])"
    )
    url = driver_url(urls.app_url)

    async def main():
        other = await psycopg.AsyncConnection.connect(url)
        batch = await psycopg.AsyncConnection.connect(url, autocommit=True)
        await other.execute(insert, ("other", "b"))
        waiting = asyncio.create_task(batch.execute(receive))
        for _ in range(500):
            if scalar(urls.owner_url, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                break
            await asyncio.sleep(0.01)
        # When the other transaction continues with a later key
        await other.execute(insert, ("other-c", "c"))
        await other.commit()
        # Then the batch had not inserted that key before its turn
        verdicts = (await (await waiting).fetchone())[0]
        await other.close()
        await batch.close()
        return verdicts

    assert asyncio.run(main()) == ["duplicate", "new", "duplicate"]


@pytest.mark.parametrize(
    "bad",
    [
        event("x" * 201),
        event("nul\x00"),
        event("half a pair \ud800"),
        event("no-source", source="nobody"),
        event("no-type", event_type=""),
        event("long-transmission", transmission="t" * 101),
    ],
    ids=lambda bad: bad.external_id[:12].encode("ascii", "replace").decode(),
)
def test_unstorable_row_does_not_affect_others(urls, database, bad):
    good = [event(f"WH-{n}") for n in range(10)]
    results = receive_all(urls.app_url, [*good[:5], bad, *good[5:]])
    assert isinstance(results[5], InboxUnavailable)
    assert results[:5] + results[6:] == [Verdict.NEW] * 10
    assert len(stored(database)) == len(staged(database)) == 10


def test_unstorable_row_of_a_cancelled_sender_does_not_affect_others(urls):
    async def work(batcher):
        gone = asyncio.create_task(batcher.receive(event("x" * 201)))
        others = [asyncio.create_task(batcher.receive(event(f"WH-{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        gone.cancel()
        return await asyncio.gather(*others, return_exceptions=True)

    assert in_inbox(urls.app_url, work) == [Verdict.NEW] * 3


def test_events_are_refused_without_postgresql_and_stored_once_it_is_back(urls, database):
    name = database.engine.url.database
    owner = driver_url(urls.owner_url).replace(f"/{name}", "/postgres")

    async def away(batcher):
        # Given a batcher that has a connection
        assert await batcher.receive(event("WH-0")) is Verdict.NEW
        # When the database refuses all connections
        execute(owner, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        execute(
            owner,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = '{name}'",
        )
        lost = [
            await asyncio.gather(
                *(batcher.receive(event(f"WH-{n}")) for n in (1, 2)), return_exceptions=True
            )
            for _ in range(2)
        ]
        # Then every sender must repeat, and once the database is back all events are stored
        execute(owner, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        back = await asyncio.gather(*(repeated(batcher, event(f"WH-{n}")) for n in range(3)))
        return lost, back

    lost, back = in_inbox(urls.app_url, away)
    database.engine.dispose()  # its connections were terminated, too
    assert [type(one) for batch in lost for one in batch] == [InboxUnavailable] * 4
    assert back == [Verdict.DUPLICATE, Verdict.NEW, Verdict.NEW]


async def repeated(batcher, given):
    """Send again until the event is stored, as providers do.

    The pooler notices the server's return a moment later.
    """
    for _ in range(400):
        try:
            return await batcher.receive(given)
        except InboxUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("not taken within 20 s")


def execute(url, statement):
    with psycopg.connect(driver_url(url), autocommit=True) as connection:
        connection.execute(statement)


def test_stopped_inbox_answers_every_waiting_sender(urls):
    # Given a locked inbox table, so that a batch is under way
    with psycopg.connect(driver_url(urls.owner_url)) as owner:
        owner.execute("LOCK TABLE inbox")

        async def main():
            batcher = InboxBatcher(urls.app_url, lambda _: None)
            await batcher.start()
            senders = [asyncio.create_task(batcher.receive(event(f"WH-{n}"))) for n in range(100)]
            for _ in range(500):
                if scalar(urls.owner_url, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    break
                await asyncio.sleep(0.01)
            # When the batcher stops
            await batcher.stop()
            results = await asyncio.wait_for(
                asyncio.gather(*senders, return_exceptions=True), timeout=10
            )
            with pytest.raises(InboxUnavailable):
                await batcher.receive(event("WH-late"))
            return results

        results = asyncio.run(main())
    # Then each sender gets InboxUnavailable and must repeat
    assert {type(one) for one in results} == {InboxUnavailable}


def test_events_beyond_the_queue_limit_are_refused(urls, database):
    async def work(batcher):
        events = [event(f"WH-{n}") for n in range(2_010)]
        return await asyncio.gather(*map(batcher.receive, events), return_exceptions=True)

    results = in_inbox(urls.app_url, work)
    refused = [one for one in results if isinstance(one, InboxUnavailable)]
    assert len(refused) == 10
    assert len(stored(database)) == 2_000
