"""What every webhook's route has in common: a correlation id, the inbox, and how it is refused."""

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
from db.inbox.batcher import InboxBatcher, InboxUnavailable, Received, Verdict
from db.inbox.refusals import RefusalLog
from ingress.http.delivery import Delivery
from ingress.http.responses import Refusal, accept, problem_response
from providers.errors import (
    CertificateUnavailable,
    CredentialsRejected,
    ForgedWebhook,
    MalformedWebhook,
)

log = get_logger(__name__)

#: What a sender is asked to wait before it sends again, in seconds.
_RETRY_AFTER_SECONDS = 5


class Answered(NamedTuple):
    """What a message is answered at once, where it is not for the inbox."""

    content: Mapping[str, Any]


#: Proves a delivery and gives what is to be stored, or what it is answered.
Prove = Callable[[Delivery, str], Awaitable[Received | Answered]]


class Door:
    """Takes a provider's message in: proved by `prove`, stored, and only then answered with 2xx.

    An ASGI application of its own: nothing but the server stands between it and the socket.
    """

    def __init__(
        self,
        source: str,
        prove: Prove,
        inbox: InboxBatcher,
        refusals: RefusalLog,
        *,
        tell_forged: Callable[[Received], None] | None = None,
    ) -> None:
        self._source = source
        self._prove = prove
        self._inbox = inbox
        self._refusals = refusals
        #: Tells a person of another body under an id seen before; without it, that is a repeat.
        self._tell_forged = tell_forged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """This function will answer one delivery: 2xx only once its event is committed."""
        correlation_id = new_id("cor")
        try:
            taken = await self._take_in(Delivery(scope, receive), correlation_id)
        except Refusal as refusal:
            problem = refusal.problem
            with bound(correlation_id=correlation_id):
                self._refusals.add(
                    self._source, problem.status, f"{problem.title}. {problem.detail}"
                )
            wait = refusal.retry_after_seconds
            response = problem_response(problem, {"Retry-After": str(wait)} if wait else None)
            await response(scope, receive, send)
        else:
            if isinstance(taken, Answered):
                await JSONResponse(taken.content)(scope, receive, send)
            else:
                await accept(send, taken, correlation_id)

    async def _take_in(self, delivery: Delivery, correlation_id: str) -> Verdict | Answered:
        try:
            event = await self._prove(delivery, correlation_id)
            if isinstance(event, Answered):
                return event
            verdict = await self._inbox.receive(event)
        except ForgedWebhook as error:
            raise Refusal(401, "Not proved to be the provider's", str(error)) from None
        except MalformedWebhook as error:
            raise Refusal(400, "Malformed", str(error)) from None
        except (CertificateUnavailable, ProviderUnavailable, CredentialsRejected) as error:
            self._log(correlation_id).error("cannot verify now", error=str(error))
            raise _later("It cannot be verified now.") from None
        except InboxUnavailable as error:
            raise _later(f"It cannot be stored now ({error}).") from None
        if verdict is Verdict.DIFFERS and self._tell_forged is not None:
            self._log(correlation_id).error(
                "another body under an id seen before", external_id=event.external_id
            )
            try:
                await to_thread.run_sync(self._tell_forged, event)
            except (NotYet, OutcomeUnknown) as error:
                self._log(correlation_id).warning("no alert", error=str(error))
            raise Refusal(401, "Not proved to be the provider's", "Its id came with another body.")
        return verdict

    def _log(self, correlation_id: str) -> BoundLogger:
        return log.bind(correlation_id=correlation_id, source=self._source)


def _later(detail: str) -> Refusal:
    return Refusal(503, "Send it again", detail, retry_after_seconds=_RETRY_AFTER_SECONDS)
