"""Work with a time limit: closing waits for transactions that still run."""

from __future__ import annotations

import asyncio
import threading
import time

from sqlalchemy import text

from ingress.calls.deadline import UrgentTransactions
from tests.support.world import Urls


def test_closing_waits_for_a_running_transaction(urls: Urls) -> None:
    # Given a transaction whose thread has not used its connection yet
    urgent = UrgentTransactions(urls.app_url)
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work(session, now):
        began.set()
        go_on.wait(10)
        session.execute(text("SELECT 1"))
        ended.set()

    async def ask() -> None:
        waiting = asyncio.ensure_future(urgent.run(work, until=time.monotonic() + 30))
        await asyncio.to_thread(began.wait, 10)
        # When the process stops
        closing = asyncio.ensure_future(asyncio.to_thread(urgent.close))
        go_on.set()
        await closing
        # Then the work has ended before the connections are closed
        assert ended.is_set()
        await waiting

    asyncio.run(ask())
