"""Reads a request's raw body, bounded in size and time, byte for byte as it was signed."""

from __future__ import annotations

import asyncio

from ingress.answers import Refusal
from ingress.delivery import Delivery

#: Seconds a sender has to deliver its whole body.
_BODY_SECONDS = 10


async def read_body(delivery: Delivery, *, media_type: str | None, bytes_max: int) -> bytes:
    """This function will give the body exactly as received, of any type where none is named.

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
