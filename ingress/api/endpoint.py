"""Turn plain functions into API endpoints: authentication, the body and problems.

An endpoint is a plain function of a session, the request and `now`. It runs in a transaction on
one of the API's own threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from base.outcomes import NotYet, OutcomeUnknown, Refused
from base.problems.details import Problem
from base.problems.requests import (
    FORBIDDEN,
    MALFORMED_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
)
from db.engine import Database, clock
from domain.wallet.ledger import log_refusal
from ingress.api.fields import Fields
from ingress.api.tokens import BadToken, Bearer, NotConfigured, Tokens
from ingress.http.body import media_type_of, read_body
from ingress.http.delivery import Delivery
from ingress.http.responses import HttpRefusal, problem_response
from ingress.problems import refusal_for

#: Largest request body of the API, in bytes.
BODY_BYTES_MAX = 65_536
#: How many API requests this process works on at the same time.
CONCURRENT_REQUESTS_MAX = 16
#: Seconds that a caller should wait after a 503 before it repeats its request.
_RETRY_AFTER_SECONDS = 2
#: Accepted media types of a body: `curl -d` sends a form type, and some clients send none.
_ACCEPTED_MEDIA_TYPES = ("application/json", "application/x-www-form-urlencoded", "")


@dataclass(frozen=True)
class AuthorizedRequest:
    """A request whose token was verified: its bearer, fields and path parameters."""

    bearer: Bearer
    fields: Fields
    path: Mapping[str, Any]


#: An endpoint's function. A refusal that it raises rolls the transaction back. A refusal that it
#: returns lets the transaction commit, so that changes such as a pairing or an alert are kept.
EndpointFunction = Callable[[Session, AuthorizedRequest, datetime], dict[str, Any] | Refused]


class ApiEndpoint:
    """Turns plain functions into API endpoints."""

    def __init__(self, tokens: Tokens, database: Database) -> None:
        self._tokens = tokens
        self._database = database
        self._limiter = CapacityLimiter(CONCURRENT_REQUESTS_MAX)

    def endpoint(self, scope: str, function: EndpointFunction) -> Callable[[Request], Any]:
        """Turn a function into an endpoint that requires a scope."""

        async def answer(request: Request) -> Response:
            try:
                bearer = self.authenticate(request, scope)
            except HttpRefusal as refusal:
                return refusal_response(refusal)
            try:
                authorized = AuthorizedRequest(
                    bearer, await read_fields(request), request.path_params
                )
                content = await to_thread.run_sync(
                    lambda: self._database.run(
                        lambda session: function(session, authorized, clock(session))
                    ),
                    limiter=self._limiter,
                )
            except HttpRefusal as refusal:
                return refusal_response(refusal)
            except Refused as error:
                return _domain_refusal_response(bearer, error)
            except (NotYet, OutcomeUnknown) as error:
                return refusal_response(unavailable(error))
            if isinstance(content, Refused):
                return _domain_refusal_response(bearer, content)
            return JSONResponse(content)

        return answer

    @property
    def is_configured(self) -> bool:
        """Whether a key file for verifying tokens is configured."""
        return self._tokens.is_configured

    def authenticate(self, request: Request, scope: str) -> Bearer:
        """Authenticate the request and check its scope. Raises: HttpRefusal 401, 403, 503."""
        try:
            bearer = self._tokens.verify(request.headers.get("authorization"))
        except (BadToken, NotConfigured) as error:
            raise refusal_for(error, str(error)) from None
        if scope not in bearer.scopes:
            raise HttpRefusal(FORBIDDEN, f"The token has no scope {scope}.")
        header_organization = request.headers.get("x-org-id")
        if header_organization is not None and header_organization != bearer.organization_id:
            # The header is never trusted. A different value means that the caller is mistaken.
            raise HttpRefusal(FORBIDDEN, "X-Org-Id names another organization than the token.")
        return bearer


def _domain_refusal_response(bearer: Bearer, error: Refused) -> Response:
    log_refusal(bearer.organization_id, error.code, what="request")
    return problem_response(Problem(error.code, error.detail))


def refusal_response(refusal: HttpRefusal) -> Response:
    """Write a refusal as a problem, with WWW-Authenticate or Retry-After."""
    headers: dict[str, str] = {}
    if refusal.problem.code.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="holdfast"'
    if refusal.retry_after_seconds:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    return problem_response(refusal.problem, headers)


def unavailable(error: Exception) -> HttpRefusal:
    """Make a 503 refusal: the caller may soon repeat the request with the same key."""
    cause = f"Cause: {type(error).__name__}."
    return refusal_for(error, cause, retry_after_seconds=_RETRY_AFTER_SECONDS)


async def read_fields(request: Request) -> Fields:
    """Read a request's fields: a GET's or HEAD's query, otherwise the JSON body.

    Raises: HttpRefusal 400, 408, 413, 415.
    """
    if request.method in ("GET", "HEAD"):
        return Fields(dict(request.query_params), is_text=True)
    if media_type_of(request.headers.get("content-type", "")) not in _ACCEPTED_MEDIA_TYPES:
        raise HttpRefusal(UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
    return Fields(parse_json_object(await read_request_body(request)))


async def read_request_body(request: Request) -> bytes:
    """Read a request's body. Raises: HttpRefusal 400, 408, 413."""
    delivery = Delivery(request.scope, request.receive)
    return await read_body(delivery, media_type=None, bytes_max=BODY_BYTES_MAX)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object. Numbers with a decimal point become Decimals.

    Raises: HttpRefusal 400.
    """
    try:
        value = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, InvalidOperation):
        # InvalidOperation: the exponent is too large even for a Decimal.
        raise HttpRefusal(MALFORMED_REQUEST, "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise HttpRefusal(MALFORMED_REQUEST, "The body is not a JSON object.")
    return value


def _refuse_constant(literal: str) -> None:
    raise ValueError(f"{literal} is not a number")
