"""Refused deliveries are counted, and listed without their body in a capped list."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
from sqlalchemy import text

from base.clock import wait_until
from db.inbox import refusals
from tests.ingress.support import paypal_event


def rows(world, statement):
    with world.database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def counts(world):
    return rows(world, "SELECT source, status, count FROM refusal_counts ORDER BY 1, 2")


def listed(world):
    return rows(world, "SELECT source, status, reason FROM refused_deliveries ORDER BY id")


def refuse(ingress, times, path="/webhooks/paypal", content_type="application/json"):
    for _ in range(times):
        ingress.client.post(
            path, content=b'{"secret-words":1}', headers={"Content-Type": content_type}
        )


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(refusals, "_FLUSH_SECONDS", 0.05)


def test_refusals_are_counted_by_source_and_status_and_listed_with_reason(world, ingress):
    # When deliveries are refused for several reasons
    refuse(ingress, 3)
    refuse(ingress, 1, content_type="text/plain")
    refuse(ingress, 2, "/webhooks/twilio")

    # Then they are counted and listed
    assert wait_until(
        lambda: counts(world) == [("paypal", 401, 3), ("paypal", 415, 1), ("twilio", 415, 2)],
        limit_seconds=10,
    ), counts(world)
    assert len(listed(world)) == 6
    assert {reason for _, status, reason in listed(world) if status == 415} == {
        "UNSUPPORTED_MEDIA_TYPE: Send application/json.",
        "UNSUPPORTED_MEDIA_TYPE: Send application/x-www-form-urlencoded.",
    }

    # And nothing of their content is kept
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = "
    names = [row[0] for row in rows(world, columns + "'refused_deliveries'")]
    assert sorted(names) == ["id", "reason", "refused_at", "source", "status"]
    assert "secret-words" not in json.dumps(listed(world))


def test_accepted_deliveries_are_not_counted(world, ingress):
    assert ingress.send(ingress.signed(paypal_event())).status_code == 200
    refuse(ingress, 1)

    assert wait_until(lambda: counts(world) == [("paypal", 401, 1)], limit_seconds=10)


def test_list_of_refusals_is_capped_and_the_count_is_not(world, ingress, monkeypatch):
    # Given a list of at most five
    monkeypatch.setattr(refusals, "LIST_MAX", 5)

    # When many more are refused, in several flushes
    refuse(ingress, 8)
    assert wait_until(lambda: counts(world) == [("paypal", 401, 8)], limit_seconds=10)
    refuse(ingress, 8)
    assert wait_until(lambda: counts(world) == [("paypal", 401, 16)], limit_seconds=10)

    # Then the newest are listed
    ids = [row[0] for row in rows(world, "SELECT id FROM refused_deliveries ORDER BY id")]
    assert ids == [12, 13, 14, 15, 16]


def test_flood_is_listed_in_part_and_counted_whole(world, settings):
    # Given more refusals in one flush than are listed
    async def flood():
        log = refusals.RefusalLog(settings.database_url)
        for _ in range(250):
            log.add("paypal", 401, "forged " + "x" * 500)
        await log.stop()

    asyncio.run(flood())

    assert counts(world) == [("paypal", 401, 250)]
    assert len(listed(world)) == 100
    assert max(len(reason) for _, _, reason in listed(world)) == 200


def test_refusals_are_counted_when_the_database_is_back(world, far, way):
    # Given a database that is away
    way.cut()
    refuse(far, 4)
    assert far.client.get("/readyz").status_code == 503

    # When it is back
    way.mend()

    # Then they are counted
    assert wait_until(lambda: counts(world) == [("paypal", 401, 4)], limit_seconds=15)
    refuse(far, 1)
    assert wait_until(lambda: counts(world) == [("paypal", 401, 5)], limit_seconds=15)


def test_last_refusals_are_written_at_the_stop(world, settings, monkeypatch):
    # Given an ingress that is stopped while it is writing
    monkeypatch.setattr(refusals, "_FLUSH_SECONDS", 0.0)

    async def refuse_and_stop():
        log = refusals.RefusalLog(settings.database_url)
        await log.start()
        await asyncio.sleep(0)
        log.add("paypal", 401, "forged")
        while log._counts:
            await asyncio.sleep(0)
        await log.stop()

    # When it has stopped, Then the count is stored
    asyncio.run(refuse_and_stop())
    assert counts(world) == [("paypal", 401, 1)]


def test_stop_waits_for_a_connection_that_is_being_made(world, settings, monkeypatch):
    # Given an ingress that is connecting to the database in order to write its refusals
    monkeypatch.setattr(refusals, "_FLUSH_SECONDS", 0.0)
    connect, cut_off = psycopg.AsyncConnection.connect, []

    async def refuse_and_stop():
        connecting, goes_on = asyncio.Event(), asyncio.Event()

        async def slow(*arguments, **options):
            connecting.set()
            try:
                await goes_on.wait()
            except asyncio.CancelledError:
                cut_off.append(True)
                raise
            return await connect(*arguments, **options)

        monkeypatch.setattr(psycopg.AsyncConnection, "connect", slow)
        log = refusals.RefusalLog(settings.database_url)
        log.add("paypal", 401, "forged")
        await log.start()
        await connecting.wait()
        # When it is stopped before the connection is made
        stopping = asyncio.create_task(log.stop())
        asyncio.get_running_loop().call_soon(goes_on.set)
        await stopping

    asyncio.run(refuse_and_stop())
    # Then the connection attempt is not cancelled: psycopg would leave the connection open
    assert cut_off == []
    assert counts(world) == [("paypal", 401, 1)]


def test_silent_database_does_not_prevent_a_stop(world, way, monkeypatch):
    # Given a server that stops answering once it is asked to write
    connect = psycopg.AsyncConnection.connect

    async def then_silent(*arguments, **options):
        made = await connect(*arguments, **options)
        way.deaf.set()
        return made

    async def refuse_and_stop():
        log = refusals.RefusalLog(way.url, longest_seconds=0.5)
        log.add("paypal", 401, "forged")
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.AsyncConnection, "connect", then_silent)
            await log.stop()
        # When it answers again, Then the refusals are counted
        way.deaf.clear()
        await log.stop()

    asyncio.run(refuse_and_stop())
    assert counts(world) == [("paypal", 401, 1)]
