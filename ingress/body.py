"""Reads a request's raw body, bounded in size and time, byte for byte as it was signed."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from ingress.answers import Refusal

#: Seconds a sender has to deliver its whole body.
_BODY_SECONDS = 10


async def read_body(request: Request, *, media_type: str, bytes_max: int) -> bytes:
    """This function will give the body exactly as received.

    Raises: Refusal 415 for another media type, 413 when it is longer than `bytes_max` (the
    declared length is believed, the true one is counted), 400 when it is empty or broken off,
    408 when it takes too long.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media_type:
        raise Refusal(415, "Unknown content", f"Send {media_type}.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise Refusal(413, "Too large", f"At most {bytes_max} bytes.")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > bytes_max:
                    raise Refusal(413, "Too large", f"At most {bytes_max} bytes.")
                chunks.append(chunk)
    except TimeoutError:
        raise Refusal(408, "Too slow", f"The body took over {_BODY_SECONDS} s.") from None
    except ClientDisconnect:
        raise Refusal(400, "Broken off", "The body ended too early.") from None
    if not size:
        raise Refusal(400, "Malformed", "The body is empty.")
    return b"".join(chunks)
