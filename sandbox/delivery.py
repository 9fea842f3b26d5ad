"""Delivers webhooks to the ingress at least once, in any order.

The real providers deliver in the same way. The courier sends the bytes that it receives and never
alters them, because an alteration would make the signature invalid.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.exchange import Json, iso_ms

#: Seconds to wait before each further attempt, after a refusal or no response. PayPal's own retries
#: take three days.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
#: Time limit of one attempt, in seconds. The longest limit of the four providers is 20 seconds.
TIMEOUT_SECONDS = 20.0
#: Number of delivery results that are kept for the control plane.
_RESULTS_MAX = 1000
#: Number of characters that are kept of a response's body.
_BODY_LENGTH_MAX = 65_536


@dataclass(frozen=True)
class Parcel:
    """One signed webhook and its address."""

    provider: str
    event_id: str
    event_type: str
    transmission_id: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Courier:
    """Sends parcels, records the responses, and retries in the background.

    `before_send` is called before a parcel is sent for the first time.
    """

    def __init__(self, before_send: Callable[[], None]) -> None:
        self._before_send = before_send
        self.recent: deque[Json] = deque(maxlen=_RESULTS_MAX)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._client = httpx.AsyncClient(
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def send(self, parcel: Parcel, *, copies: int = 1, retry: bool = True) -> list[Json]:
        """Deliver the copies concurrently and return the result of each.

        If `retry` is set and the receiver does not answer a copy with 2xx, the courier sends that
        copy again later, in the background.
        """
        self._before_send()
        results = await asyncio.gather(*(self._try(parcel, 1) for _ in range(copies)))
        for result in results:
            if retry and not accepted(result):
                self.spawn(self._retry(parcel))
        return list(results)

    def post(self, parcel: Parcel, *, retry: bool = True) -> None:
        """Deliver in the background and return at once."""
        self.spawn(self.send(parcel, retry=retry))

    async def ask(self, parcel: Parcel, limit_seconds: float) -> Json:
        """Deliver once and return the result, within the limit.

        At the limit the connection is closed, even if part of the response has arrived. The result
        then has the error "TimeoutError".
        """
        self._before_send()
        try:
            async with asyncio.timeout(limit_seconds):
                return await self._try(parcel, 1)
        except TimeoutError as error:
            result = _new_result(parcel, 1) | {"error": type(error).__name__}
            self.recent.append(result)
            return result

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in the background until it ends or is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """Cancel the pending deliveries and forget the recorded ones."""
        for task in self._tasks:
            task.cancel()
        self.recent.clear()

    async def close(self) -> None:
        """Cancel the pending deliveries and close the connections."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _retry(self, parcel: Parcel) -> None:
        for attempt, seconds in enumerate(RETRY_SECONDS, start=2):
            await asyncio.sleep(seconds)
            if accepted(await self._try(parcel, attempt)):
                return

    async def _try(self, parcel: Parcel, attempt: int) -> Json:
        result = _new_result(parcel, attempt)
        try:
            answer = await self._client.post(
                parcel.url, content=parcel.body, headers=dict(parcel.headers)
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            result["error"] = type(error).__name__
        else:
            result["status_code"] = answer.status_code
            result["body"] = answer.text[:_BODY_LENGTH_MAX]
            result["headers"] = dict(answer.headers)
        self.recent.append(result)
        return result


def _new_result(parcel: Parcel, attempt: int) -> Json:
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
    """Return whether a delivery was answered with 2xx."""
    code = result["status_code"]
    return code is not None and 200 <= code < 300
