"""Vapi's messages, verified by credential: questions are answered, reports stored.

Most messages (transcripts, conversation turns, speech states) are acknowledged and never stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio import to_thread

from base.clock import utc_now
from base.enums import Provider
from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from base.problems.requests import BODY_TOO_LARGE
from db.inbox.batcher import VerifiedEvent
from ingress.calls.responses import CallAnswers
from ingress.http.body import LargeBodies, read_body
from ingress.http.delivery import Delivery
from ingress.http.responses import HttpRefusal
from ingress.webhooks.endpoint import ImmediateResponse
from providers.vapi import events as messages
from providers.vapi.webhook import VapiWebhookVerifier

log = get_logger(__name__)

#: Response to a message that is not stored.
_NOTHING_KEPT = {"received": True, "verdict": "ignored"}


class VapiProof:
    """Verifies that a request is Vapi's, and answers urgent questions at once.

    A secret is checked before the body is read, so that a stranger's large body costs nothing. With
    an HMAC alone, the body must be read before it can be verified.
    """

    def __init__(
        self,
        verifier: VapiWebhookVerifier,
        answers: CallAnswers,
        alert_too_large: Callable[[str, int], None],
        bytes_max: int,
    ) -> None:
        self._bytes_max = bytes_max
        self._verifier = verifier
        self._answers = answers
        self._large = LargeBodies()
        #: Raises an alert when an authenticated sender's message was refused for its size.
        self._alert_too_large = alert_too_large

    async def __call__(
        self, delivery: Delivery, correlation_id: str
    ) -> VerifiedEvent | ImmediateResponse:
        began = time.monotonic()
        sender_is_verified = self._verifier.verify_sender(delivery.headers, now=utc_now())
        async with self._large.place(delivery) as is_large:
            try:
                body = await self._read(delivery)
            except HttpRefusal as refusal:
                if refusal.problem.code is BODY_TOO_LARGE and sender_is_verified:
                    await self._alert_large_body(delivery)
                raise
            if is_large:
                # In a thread: parsing a large body here would delay answers to live calls.
                message = await to_thread.run_sync(self._prove, delivery, body)
            else:
                message = self._prove(delivery, body)
            stored = messages.stored_body(message)
            external_id = messages.external_id_of(message)
        if message.type in messages.ANSWERED_TYPES:
            return ImmediateResponse(await self._answers.answer(message, began))
        if messages.is_ignored(message.type):
            return ImmediateResponse(_NOTHING_KEPT)
        return VerifiedEvent(
            source=Provider.VAPI,
            external_id=external_id,
            transmission_id=None,
            event_type=message.type,
            body=stored,
            correlation_id=correlation_id,
            queue=messages.queue_of(message.type),
        )

    async def _read(self, delivery: Delivery) -> bytes:
        return await read_body(delivery, media_type="application/json", bytes_max=self._bytes_max)

    def _prove(self, delivery: Delivery, body: bytes) -> messages.VapiMessage:
        self._verifier.verify(delivery.headers, body, now=utc_now())
        return messages.parse(body)

    async def _alert_large_body(self, delivery: Delivery) -> None:
        declared = delivery.headers.get("content-length", "unknown")
        try:
            await to_thread.run_sync(self._alert_too_large, declared, self._bytes_max)
        except (NotYet, OutcomeUnknown) as error:
            log.warning("large_body_alert_not_raised", error=str(error))
