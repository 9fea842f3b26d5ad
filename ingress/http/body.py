"""Reads a request's raw body, byte for byte, with limits on its size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from base.problems.requests import (
    BODY_TOO_LARGE,
    MALFORMED_REQUEST,
    REQUEST_TIMEOUT,
    TEMPORARILY_UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
)
from ingress.http.delivery import Delivery
from ingress.http.responses import HttpRefusal

#: Seconds that a sender has to deliver its whole body.
_BODY_SECONDS_MAX = 10
#: A body of more bytes than this is large.
LARGE_BYTES = 1_048_576


class LargeBodies:
    """Limits how many large bodies are in memory at the same time.

    A body that waits too long for a place is refused with 503. While the body waits, the server
    does not read the connection, so that the body stays with its sender.
    """

    def __init__(self, *, at_once: int = 2, wait_seconds: float = 5.0) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def place(self, delivery: Delivery) -> AsyncIterator[bool]:
        """Hold a place while a large body is read and parsed; yield whether it is large.

        A body without a declared length counts as large, unless it has already arrived whole.
        Raises: HttpRefusal 503.
        """
        declared_length = delivery.headers.get("content-length", "")
        is_small = declared_length.isdigit() and int(declared_length) <= LARGE_BYTES
        if delivery.is_whole or is_small:
            yield False
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            detail = "Too many large bodies at once."
            raise HttpRefusal(TEMPORARILY_UNAVAILABLE, detail, retry_after_seconds=5) from None
        try:
            yield True
        finally:
            self._places.release()


async def read_body(delivery: Delivery, *, media_type: str | None, bytes_max: int) -> bytes:
    """Read the body exactly as received. Without `media_type`, any type is accepted.

    Raises: HttpRefusal 415 for another media type; 413 if the declared or the actual length is more
    than `bytes_max`; 400 if the body is empty or breaks off; 408 if it takes too long.
    """
    content_type = delivery.headers.get("content-type", "")
    if (
        media_type is not None
        and content_type != media_type
        and media_type_of(content_type) != media_type
    ):
        raise HttpRefusal(UNSUPPORTED_MEDIA_TYPE, f"Send {media_type}.")
    declared_length = delivery.headers.get("content-length", "")
    if declared_length.isdigit() and int(declared_length) > bytes_max:
        raise HttpRefusal(BODY_TOO_LARGE, f"At most {bytes_max} bytes.")
    if delivery.is_whole:
        body = await _read_all(delivery, bytes_max)
    else:
        try:
            async with asyncio.timeout(_BODY_SECONDS_MAX):
                body = await _read_all(delivery, bytes_max)
        except TimeoutError:
            raise HttpRefusal(
                REQUEST_TIMEOUT, f"The body took over {_BODY_SECONDS_MAX} s."
            ) from None
    if not body:
        raise HttpRefusal(MALFORMED_REQUEST, "The body is empty.")
    return body


def media_type_of(content_type: str) -> str:
    """Extract the media type of a Content-Type header, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


async def _read_all(delivery: Delivery, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await delivery.receive()
        if message["type"] == "http.disconnect":
            raise HttpRefusal(MALFORMED_REQUEST, "The body ended too early.")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise HttpRefusal(BODY_TOO_LARGE, f"At most {bytes_max} bytes.")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
