"""Receive webhooks: verify each delivery, store its event, log refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from anyio import to_thread
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from structlog.stdlib import BoundLogger

from base.ids import new_id
from base.log import bound, get_logger
from base.outcomes import NotYet, OutcomeUnknown, ProviderUnavailable
from base.problems.requests import UNVERIFIED_WEBHOOK
from db.inbox.batcher import InboxBatcher, InboxUnavailable, Verdict, VerifiedEvent
from db.inbox.refusals import RefusalLog
from ingress.http.delivery import Delivery
from ingress.http.responses import HttpRefusal, accept, problem_response
from ingress.problems import refusal_for
from providers.errors import (
    CertificateUnavailable,
    CredentialsRejected,
    ForgedWebhook,
    MalformedWebhook,
)

log = get_logger(__name__)

#: Seconds that a sender should wait before it sends a webhook again.
_RETRY_AFTER_SECONDS = 5


class ImmediateResponse(NamedTuple):
    """The immediate response to a message that is not stored in the inbox."""

    content: Mapping[str, Any]


#: Verifies a delivery and returns the event to store, or the response to send at once.
Verify = Callable[[Delivery, str], Awaitable[VerifiedEvent | ImmediateResponse]]


class WebhookEndpoint:
    """Verifies each delivery, stores its event, and only then answers 2xx.

    The endpoint is a complete ASGI application: only the server is between it and the socket.
    """

    def __init__(
        self,
        source: str,
        verify: Verify,
        inbox: InboxBatcher,
        refusals: RefusalLog,
        *,
        alert_forged: Callable[[VerifiedEvent], None] | None = None,
    ) -> None:
        self._source = source
        self._verify = verify
        self._inbox = inbox
        self._refusals = refusals
        #: Raises an alert if a known event id arrives with a different body. Without this function,
        #: the delivery counts as a repeat.
        self._alert_forged = alert_forged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one delivery with 2xx only after its event is committed."""
        correlation_id = new_id("cor")
        try:
            result = await self._verify_and_store(Delivery(scope, receive), correlation_id)
        except HttpRefusal as refusal:
            problem = refusal.problem
            with bound(correlation_id=correlation_id):
                self._refusals.add(
                    self._source, problem.code.status, f"{problem.code}: {problem.detail}"
                )
            retry_seconds = refusal.retry_after_seconds
            response = problem_response(
                problem, {"Retry-After": str(retry_seconds)} if retry_seconds else None
            )
            await response(scope, receive, send)
        else:
            if isinstance(result, ImmediateResponse):
                await JSONResponse(result.content)(scope, receive, send)
            else:
                await accept(send, result, correlation_id)

    async def _verify_and_store(
        self, delivery: Delivery, correlation_id: str
    ) -> Verdict | ImmediateResponse:
        try:
            event = await self._verify(delivery, correlation_id)
            if isinstance(event, ImmediateResponse):
                return event
            verdict = await self._inbox.receive(event)
        except (ForgedWebhook, MalformedWebhook) as error:
            raise refusal_for(error, str(error)) from None
        except (CertificateUnavailable, ProviderUnavailable, CredentialsRejected) as error:
            self._log(correlation_id).error("verification_unavailable", error=str(error))
            raise _refusal_with_retry(error, "It cannot be verified now.") from None
        except InboxUnavailable as error:
            raise _refusal_with_retry(error, f"It cannot be stored now ({error}).") from None
        if verdict is Verdict.DIFFERS and self._alert_forged is not None:
            self._log(correlation_id).error("event_differs", external_id=event.external_id)
            try:
                await to_thread.run_sync(self._alert_forged, event)
            except (NotYet, OutcomeUnknown) as error:
                self._log(correlation_id).warning("alert_not_raised", error=str(error))
            raise HttpRefusal(
                UNVERIFIED_WEBHOOK,
                "This event ID was already received with a different body.",
            )
        return verdict

    def _log(self, correlation_id: str) -> BoundLogger:
        return log.bind(correlation_id=correlation_id, source=self._source)


def _refusal_with_retry(error: Exception, detail: str) -> HttpRefusal:
    return refusal_for(error, detail, retry_after_seconds=_RETRY_AFTER_SECONDS)
