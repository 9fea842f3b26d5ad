"""The inbox leaves a server that does not respond or is read-only."""

from __future__ import annotations

import asyncio

import pytest

from db.inbox.batcher import InboxBatcher, InboxUnavailable, Verdict
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.inbox.test_batcher import event, in_inbox, stored


def test_inbox_leaves_a_read_only_server_and_stores_on_a_new_connection(urls):
    # Given a connection to a read-only server, as after a failover. Without the pooler, which would
    # give the changed connection to others
    async def work(batcher):
        assert await batcher.receive(event("WH-1")) is Verdict.NEW
        await batcher._connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(InboxUnavailable):
            await batcher.receive(event("WH-2"))
        # When the sender repeats, Then the event is stored
        return await batcher.receive(event("WH-2"))

    assert in_inbox(derive_app_url(urls.owner_url, PASSWORD), work) is Verdict.NEW


def test_inbox_leaves_a_silent_server_and_stores_on_a_new_connection(urls, database, way):
    async def work():
        batcher = InboxBatcher(way.url, lambda _: None, longest_seconds=1)
        await batcher.start()
        # Given an open connection over which no answers arrive any more
        assert await batcher.receive(event("WH-1")) is Verdict.NEW
        way.deaf.set()
        # When an event arrives, Then its sender must repeat
        with pytest.raises(InboxUnavailable):
            await asyncio.wait_for(batcher.receive(event("WH-2")), timeout=20)
        # And when the server can be reached again, the repeat finds the stored event
        way.deaf.clear()
        verdict = await batcher.receive(event("WH-2"))
        await batcher.stop()
        return verdict

    assert asyncio.run(work()) is Verdict.DUPLICATE
    assert len(stored(database)) == 2
