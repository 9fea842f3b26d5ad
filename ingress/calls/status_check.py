"""The status check: reports to an authorized client whether a call must end now.

Vapi neither requests this check by itself nor obeys the answer, so our tick ends calls. The
endpoint still answers both Vapi and the company's backend.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from base.clock import utc_now
from base.outcomes import NotYet, OutcomeUnknown, Refused
from base.problems.details import Problem
from base.problems.requests import MALFORMED_REQUEST
from domain.calls.settings import DURATION_SECONDS_MAX
from domain.calls.status_check import StatusAnswer, check_status
from ingress.api.endpoint import (
    ApiEndpoint,
    parse_json_object,
    read_request_body,
    refusal_response,
    unavailable,
)
from ingress.api.fields import Fields
from ingress.calls.deadline import TooLate, UrgentTransactions
from ingress.http.responses import HttpRefusal, problem_response
from ingress.problems import refusal_for
from providers.errors import ForgedWebhook
from providers.vapi.webhook import VapiWebhookVerifier

#: The scope that a token needs for a status check.
SCOPE = "calls:read"


class StatusCheck:
    """Serves POST .../status-check.

    The body is `{"call": {"id": ...}, "message": {"durationSeconds": ...}}`; the message is
    optional.
    """

    def __init__(
        self, verifier: VapiWebhookVerifier, api: ApiEndpoint, urgent: UrgentTransactions
    ) -> None:
        self._verifier = verifier
        self._api = api
        self._urgent = urgent

    async def answer(self, request: Request) -> Response:
        """Answer with endCall and its reason, or with remainingSeconds."""
        began = time.monotonic()
        try:
            body = await read_request_body(request)
            organization_id = self._authenticate(request, body)
            call_id, reported_seconds = _parse_request(parse_json_object(body))

            def check(session: Session, now: datetime) -> StatusAnswer:
                return check_status(
                    session,
                    call_id,
                    organization_id=organization_id,
                    reported_seconds=reported_seconds,
                    now=now,
                )

            answer = await self._urgent.run(check, until=began + self._urgent.answer_seconds)
        except HttpRefusal as refusal:
            return refusal_response(refusal)
        except Refused as error:
            return problem_response(Problem(error.code, error.detail))
        except (TooLate, NotYet, OutcomeUnknown) as error:
            return refusal_response(unavailable(error))
        return JSONResponse(_answer_fields(answer))

    def _authenticate(self, request: Request, body: bytes) -> str | None:
        """Return the organization that the call must belong to; None for Vapi.

        Vapi may check the calls of all organizations. Raises: HttpRefusal 401, 403.
        """
        try:
            self._verifier.verify(request.headers, body, now=utc_now())
        except ForgedWebhook as error:
            if not self._api.is_configured:
                raise refusal_for(error, str(error)) from None
            return self._api.authenticate(request, SCOPE).organization_id
        return None


def _parse_request(body: dict[str, Any]) -> tuple[str, int | None]:
    call, message = body.get("call"), body.get("message")
    if not isinstance(call, dict):
        call = message.get("call") if isinstance(message, dict) else None
    if not isinstance(call, dict):
        raise HttpRefusal(MALFORMED_REQUEST, "call must be an object with an id.")
    call_id = Fields({"call.id": call.get("id")}).text("call.id")
    seconds = message.get("durationSeconds") if isinstance(message, dict) else None
    if seconds is None:
        return call_id, None
    name = "message.durationSeconds"
    number = Fields({name: seconds}).number(name, lowest=0, highest=DURATION_SECONDS_MAX)
    return call_id, int(number)


def _answer_fields(answer: StatusAnswer) -> dict[str, Any]:
    if answer.end_call:
        return {"endCall": True, "reason": answer.reason, "message": answer.message}
    return {"endCall": False, "remainingSeconds": answer.remaining_seconds}
