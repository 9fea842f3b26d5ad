"""A copy of entry points and call terms, used while the database does not respond.

It is read again every few seconds. While that fails, the last copy stays in use, however old it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import anyio
from anyio import to_thread
from sqlalchemy import select
from sqlalchemy.orm import Session

from base.facts import AdmissionRequest
from base.log import get_logger
from db.engine import Database
from db.models.calls import CallTerms, EntryPoint
from domain.calls.entry_points import EntryPointKind
from domain.calls.settings import Terms

log = get_logger(__name__)

#: Seconds between two reads. A change of terms takes effect here after at most this time.
REFRESH_SECONDS = 10.0
#: Longest wait for the first read, in seconds. If it fails, the process serves without a copy.
_FIRST_SECONDS = 3.0


@dataclass(frozen=True)
class KnownEntryPoint:
    """An entry point: organization, assistant, and terms without the database."""

    organization_id: str
    assistant_id: str | None
    fail_open_seconds: int | None
    refusal_text: str
    #: Key that signs the ids of calls admitted without the database.
    fail_open_key: str | None = field(default=None, repr=False)


class Snapshot:
    """The entry points by kind and id, as last read."""

    def __init__(self, database: Database, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._database = database
        self._refresh_seconds = refresh_seconds
        self._entry_points: dict[tuple[str, str], KnownEntryPoint] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read once, waiting a few seconds at most, and keep reading in the background."""
        with anyio.move_on_after(_FIRST_SECONDS):
            await self._refresh()
        self._task = asyncio.create_task(self._run(), name="snapshot of entry points")

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def entry_point_of(self, ask: AdmissionRequest) -> KnownEntryPoint | None:
        """Find the entry point of a call in the last copy.

        None if none is known, or if the call's numbers and assistant lead to several organizations.
        """
        # In the same order as the database query (domain/calls/entry_points).
        numbers = sorted(one for one in (ask.phone_number_id, ask.our_number) if one)
        named = [(EntryPointKind.PHONE_NUMBER, one) for one in numbers]
        if ask.assistant_id:
            named.append((EntryPointKind.ASSISTANT, ask.assistant_id))
        found = [self._entry_points.get((str(kind), name)) for kind, name in named]
        known = [entry_point for entry_point in found if entry_point is not None]
        if len({entry_point.organization_id for entry_point in known}) != 1:
            return None
        return known[0]

    def refresh(self) -> None:
        """Read all entry points and their organizations' terms once."""
        self._entry_points = self._database.run(_read)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await to_thread.run_sync(self.refresh, abandon_on_cancel=True)
        except Exception as error:
            log.warning("entry_points_not_read", error=str(error))


def _read(session: Session) -> dict[tuple[str, str], KnownEntryPoint]:
    rows = session.execute(
        select(
            EntryPoint.kind,
            EntryPoint.external_id,
            EntryPoint.organization_id,
            EntryPoint.assistant_id,
            CallTerms.fail_open,
            CallTerms.fail_open_seconds,
            CallTerms.refusal_text,
            CallTerms.fail_open_key,
        ).outerjoin(CallTerms, CallTerms.organization_id == EntryPoint.organization_id)
    )
    return {
        (row.kind, row.external_id): KnownEntryPoint(
            row.organization_id,
            row.assistant_id,
            row.fail_open_seconds if row.fail_open else None,
            row.refusal_text or Terms().refusal_text,
            row.fail_open_key,
        )
        for row in rows
    }
