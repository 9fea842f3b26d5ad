"""Delivers webhooks to the ingress, as the providers do: at least once, in no promised order.

It sends the bytes it was given and never alters them, so that a signature made before stays true.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.exchange import Json, iso_ms

#: Waits before each further try after a refusal or no answer; PayPal's own take three days.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
#: How long one try may take, in seconds; the longest that any of the four gives is 20.
TIMEOUT_SECONDS = 20.0
#: Deliveries remembered for the control plane.
_RECENT_MAX = 1000
#: Characters of an answer's body that are remembered.
_ANSWER_MAX = 65_536


@dataclass(frozen=True)
class Parcel:
    """One signed webhook and where it goes."""

    provider: str
    event_id: str
    event_type: str
    transmission_id: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Courier:
    """Sends parcels, remembers what became of them, and tries again in the background."""

    def __init__(self) -> None:
        self.recent: deque[Json] = deque(maxlen=_RECENT_MAX)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._client = httpx.AsyncClient(
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def send(self, parcel: Parcel, *, copies: int = 1, retry: bool = True) -> list[Json]:
        """This function will deliver the copies at once and tell what each was answered.

        A copy that was not answered with 2xx is tried again later, in the background, on request.
        """
        results = await asyncio.gather(*(self._try(parcel, 1) for _ in range(copies)))
        for result in results:
            if retry and not accepted(result):
                self.spawn(self._retry(parcel))
        return list(results)

    def post(self, parcel: Parcel, *, retry: bool = True) -> None:
        """This function will deliver in the background and return at once."""
        self.spawn(self.send(parcel, retry=retry))

    async def ask(self, parcel: Parcel, limit_seconds: float) -> Json:
        """This function will deliver once and tell what was answered, within the limit in all.

        The connection is cut at the limit, however far the answer had come by then.
        """
        try:
            async with asyncio.timeout(limit_seconds):
                return await self._try(parcel, 1)
        except TimeoutError as late:
            result = _attempted(parcel, 1) | {"error": type(late).__name__}
            self.recent.append(result)
            return result

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """This function will run work in the background until it ends or is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """This function will give up what is still to be delivered and forget what was."""
        for task in self._tasks:
            task.cancel()
        self.recent.clear()

    async def close(self) -> None:
        """This function will give up the rest and close the connections."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _retry(self, parcel: Parcel) -> None:
        for attempt, seconds in enumerate(RETRY_SECONDS, start=2):
            await asyncio.sleep(seconds)
            if accepted(await self._try(parcel, attempt)):
                return

    async def _try(self, parcel: Parcel, attempt: int) -> Json:
        result = _attempted(parcel, attempt)
        try:
            answer = await self._client.post(
                parcel.url, content=parcel.body, headers=dict(parcel.headers)
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            result["error"] = type(error).__name__
        else:
            result["status_code"] = answer.status_code
            result["body"] = answer.text[:_ANSWER_MAX]
            result["headers"] = dict(answer.headers)
        self.recent.append(result)
        return result


def _attempted(parcel: Parcel, attempt: int) -> Json:
    return {
        "at": iso_ms(),
        "provider": parcel.provider,
        "event_id": parcel.event_id,
        "event_type": parcel.event_type,
        "transmission_id": parcel.transmission_id,
        "url": parcel.url,
        "attempt": attempt,
        "status_code": None,
        "body": "",
        "headers": {},
        "error": None,
    }


def accepted(result: Json) -> bool:
    """This function will tell whether a delivery was answered with 2xx."""
    code = result["status_code"]
    return code is not None and 200 <= code < 300
