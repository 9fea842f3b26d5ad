"""Choose the code that answers an error, and describe each code to callers."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from base.outcomes import NotYet, OutcomeUnknown, ProviderUnavailable
from base.problems.code import Code
from base.problems.registry import CODES
from base.problems.requests import (
    API_NOT_CONFIGURED,
    MALFORMED_REQUEST,
    OUTCOME_UNKNOWN,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
    UNVERIFIED_WEBHOOK,
)
from db.inbox.batcher import InboxUnavailable
from ingress.api.tokens import BadToken, NotConfigured
from ingress.calls.deadline import TooLate
from ingress.http.responses import HttpRefusal
from providers.errors import (
    CertificateUnavailable,
    CredentialsRejected,
    ForgedWebhook,
    MalformedWebhook,
)

#: The code of each error class that carries no code itself. A refusal of the domain carries its own
#: code.
ERROR_CODES: Mapping[type[Exception], Code] = {
    NotConfigured: API_NOT_CONFIGURED,
    BadToken: UNAUTHENTICATED,
    ForgedWebhook: UNVERIFIED_WEBHOOK,
    MalformedWebhook: MALFORMED_REQUEST,
    CertificateUnavailable: TEMPORARILY_UNAVAILABLE,
    CredentialsRejected: TEMPORARILY_UNAVAILABLE,
    ProviderUnavailable: TEMPORARILY_UNAVAILABLE,
    InboxUnavailable: TEMPORARILY_UNAVAILABLE,
    NotYet: TEMPORARILY_UNAVAILABLE,
    TooLate: TEMPORARILY_UNAVAILABLE,
    OutcomeUnknown: OUTCOME_UNKNOWN,
}


def refusal_for(
    error: Exception, detail: str, *, retry_after_seconds: int | None = None
) -> HttpRefusal:
    """Make the refusal that answers an error of ERROR_CODES or of a subclass."""
    code = next(ERROR_CODES[cls] for cls in type(error).__mro__ if cls in ERROR_CODES)
    return HttpRefusal(code, detail, retry_after_seconds=retry_after_seconds)


async def describe_problem(request: Request) -> Response:
    """Describe a code: what happened, what it means for money, what to do next."""
    name = request.path_params["code"].upper().replace("-", "_")
    code = CODES.get(name)
    if code is None or code.path != request.url.path:
        raise HTTPException(404)
    return JSONResponse(
        {
            "type": code.path,
            "code": code,
            "status": code.status,
            "title": code.title,
            "money": code.money,
            "action": code.action,
        }
    )
