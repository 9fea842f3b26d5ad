"""Reads a request's raw body, bounded in size and time, byte for byte as it was signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingress.http.delivery import Delivery
from ingress.http.responses import Refusal

#: Seconds a sender has to deliver its whole body.
_BODY_SECONDS = 10
#: A body of more bytes than this is large.
LARGE_BYTES = 1_048_576


class LargeBodies:
    """Lets few large bodies into memory at once; one that waits too long is refused with 503.

    Until a body has its place it stays with its sender: the server stops reading its connection.
    """

    def __init__(self, *, at_once: int = 2, wait_seconds: float = 5.0) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def place(self, delivery: Delivery) -> AsyncIterator[bool]:
        """Hold a place while a large body is read and parsed; give whether it is large.

        A body without a declared length counts as large, unless it has come whole already.
        Raises: Refusal 503.
        """
        declared = delivery.headers.get("content-length", "")
        is_small = declared.isdigit() and int(declared) <= LARGE_BYTES
        if delivery.is_whole or is_small:
            yield False
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            detail = "Too many large bodies at once."
            raise Refusal(503, "Send it again", detail, retry_after_seconds=5) from None
        try:
            yield True
        finally:
            self._places.release()


async def read_body(delivery: Delivery, *, media_type: str | None, bytes_max: int) -> bytes:
    """Read the body exactly as received, of any media type if none is named.

    Raises: Refusal 415 for another media type, 413 when it is longer than `bytes_max` (the
    declared length is believed, the true one is counted), 400 when it is empty or broken off,
    408 when it takes too long.
    """
    given = delivery.headers.get("content-type", "")
    if media_type is not None and given != media_type and media_type_of(given) != media_type:
        raise Refusal(415, "Unknown content", f"Send {media_type}.")
    declared = delivery.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise Refusal(413, "Too large", f"At most {bytes_max} bytes.")
    if delivery.is_whole:
        body = await _read_all(delivery, bytes_max)
    else:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _read_all(delivery, bytes_max)
        except TimeoutError:
            raise Refusal(408, "Too slow", f"The body took over {_BODY_SECONDS} s.") from None
    if not body:
        raise Refusal(400, "Malformed", "The body is empty.")
    return body


def media_type_of(content_type: str) -> str:
    """This function will give a Content-Type's bare type, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


async def _read_all(delivery: Delivery, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await delivery.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "Broken off", "The body ended too early.")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise Refusal(413, "Too large", f"At most {bytes_max} bytes.")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
