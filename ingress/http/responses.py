"""Responses: RFC 9457 problems for refused requests, and 200 for stored events."""

from __future__ import annotations

import json

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from base.log import get_logger
from base.problems.code import Code
from base.problems.details import MEDIA_TYPE, Problem
from base.problems.requests import INTERNAL_ERROR, METHOD_NOT_ALLOWED, NOT_FOUND

log = get_logger(__name__)

#: The codes of the errors that Starlette's routing raises, by HTTP status.
_ROUTING_CODES = {code.status: code for code in (NOT_FOUND, METHOD_NOT_ALLOWED)}
_JSON_HEADER = (b"content-type", b"application/json")


class HttpRefusal(Exception):
    """The request is refused. `problem` is the response."""

    def __init__(
        self, code: Code, detail: str = "", *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.problem = Problem(code, detail)
        self.retry_after_seconds = retry_after_seconds


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """Write a problem as application/problem+json."""
    return Response(
        json.dumps(problem.to_dict()), problem.code.status, headers=headers, media_type=MEDIA_TYPE
    )


async def accept(send: Send, verdict: str, correlation_id: str) -> None:
    """Answer 200 for a stored event, so that the provider does not send it again.

    Verdict and correlation id are our own identifiers, so that the JSON needs no escaping.
    """
    body = (
        f'{{"received":true,"verdict":"{verdict}","correlation_id":"{correlation_id}"}}'
    ).encode()
    headers = [_JSON_HEADER, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Answer an unknown route or method with a problem."""
    if not isinstance(error, HTTPException) or error.status_code not in _ROUTING_CODES:
        return await on_error(_request, error)
    return problem_response(Problem(_ROUTING_CODES[error.status_code]), dict(error.headers or {}))


async def on_error(_request: Request, error: Exception) -> Response:
    """Answer a bug with 500, and log its cause instead of showing it to the caller."""
    log.error("unexpected_error", exc_info=error)
    return problem_response(Problem(INTERNAL_ERROR))
