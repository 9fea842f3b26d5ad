"""Calls that are admitted without the database (fail-open).

They use the same entry point as with the database. If the database decides late, there is still one
call with one hold.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from base.clock import wait_until
from base.operators import Operator
from db.engine import Database
from domain.calls.entry_points import EntryPointKind, add_entry_point
from ingress.calls.snapshot import Snapshot
from providers.vapi.events import call_ask_of, parse
from tests.ingress.calls.callers import Caller, send

LIMIT_SECONDS = 15.0
BLIND_SECONDS = 30


@pytest.fixture
def caller(world):
    made = Caller(world)
    made.terms(fail_open=True, fail_open_seconds=BLIND_SECONDS)
    return made


def test_late_decision_is_kept_when_the_call_was_admitted_without_it(caller, start_far, way):
    # Given a database whose answers arrive late
    far = start_far()
    assert "assistantId" in send(far, caller.message("assistant-request")).json()
    way.late_seconds = 0.5
    # When a call arrives, Then it is admitted without the database
    message = caller.message("assistant-request")
    answer = send(far, message).json()
    way.late_seconds = 0.0
    assert answer["assistantOverrides"]["maxDurationSeconds"] == BLIND_SECONDS
    # And what the database decided late is the same call, with its hold
    assert wait_until(lambda: len(caller.calls()) == 2, limit_seconds=LIMIT_SECONDS)
    message |= {"type": "status-update", "status": "in-progress"}
    message["call"]["assistantOverrides"] = answer["assistantOverrides"]
    assert send(far, message).status_code == 200
    caller.world.run_due()
    second = max(caller.calls(), key=lambda call: call.created_at)
    assert (second.provider_call_id, second.status) == (message["call"]["id"], "in_progress")
    assert [call.settled_at for call in caller.calls()] == [None, None]
    assert sorted(hold.status for hold in caller.holds()) == ["open", "open"]


@pytest.mark.parametrize("by_number", [False, True])
def test_same_assistant_answers_with_the_database_and_without(caller, start_far, way, by_number):
    # Given an entry point for the number's id, and in one case another for the number itself
    if by_number:
        caller.world.do(
            lambda session, now: add_entry_point(
                session,
                caller.id,
                EntryPointKind.PHONE_NUMBER,
                "+15005550099",
                assistant_id="by-number",
                operator=Operator("me", "test"),
                now=now,
            )
        )
    far = start_far()
    known = send(far, caller.message("assistant-request")).json()
    way.cut()
    blind = send(far, caller.message("assistant-request")).json()
    assert blind["assistantOverrides"]["maxDurationSeconds"] == BLIND_SECONDS
    assert blind["assistantId"] == known["assistantId"]
    assert known["assistantId"] == ("by-number" if by_number else caller.assistant_id)


def test_call_with_two_organizations_is_refused_without_the_database_too(
    caller, world, start_far, way
):
    other = Caller(world)
    other.world.do(
        lambda session, now: add_entry_point(
            session,
            other.id,
            EntryPointKind.ASSISTANT,
            "others",
            assistant_id="others",
            operator=Operator("me", "test"),
            now=now,
        )
    )
    far = start_far()
    message = caller.message("assistant-request")
    message["call"]["assistantId"] = "others"
    assert set(send(far, message).json()) == {"error"}
    way.cut()
    assert set(send(far, message).json()) == {"error"}


def test_terms_are_kept_while_they_cannot_be_read_again(caller, way):
    # Given a snapshot that is read every tenth of a second
    ask = call_ask_of(parse(json.dumps({"message": caller.message("assistant-request")}).encode()))
    database = Database(way.url, name="snapshot", pool_size=1)

    async def read_terms() -> None:
        snapshot = Snapshot(database, refresh_seconds=0.1)

        def seconds() -> int | None:
            entry_point = snapshot.entry_point_of(ask)
            return entry_point.fail_open_seconds if entry_point is not None else None

        await snapshot.start()
        assert seconds() == BLIND_SECONDS
        # When the database goes away and the terms change, Then the last snapshot is used
        way.cut()
        caller.terms(fail_open=True, fail_open_seconds=40)
        await asyncio.sleep(0.5)
        assert seconds() == BLIND_SECONDS
        # And once the database is back, the new terms are used
        way.mend()
        async with asyncio.timeout(LIMIT_SECONDS):
            while seconds() != 40:
                await asyncio.sleep(0.05)
        caller.terms(fail_open=False)
        async with asyncio.timeout(LIMIT_SECONDS):
            while seconds() is not None:
                await asyncio.sleep(0.05)
        await snapshot.stop()

    asyncio.run(read_terms())
    database.close()
