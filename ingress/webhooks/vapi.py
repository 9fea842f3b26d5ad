"""Vapi's messages: proved by its credential; what asks is answered, what tells is stored.

Most of what it sends (words, turns, states of speech) is answered and never stored.
"""

from __future__ import annotations

import time

from base.clock import utc_now
from base.enums import Provider, Queue
from base.settings import Settings
from db.inbox import Received
from ingress.body import read_body
from ingress.calls.answers import CallAnswers
from ingress.delivery import Delivery
from ingress.webhooks.door import Answered
from providers.vapi import messages
from providers.vapi.webhook import VapiWebhookVerifier

#: What is answered to what is not kept.
_NOTHING_KEPT = {"received": True, "verdict": "ignored"}


class VapiProof:
    """Proves a request to be Vapi's, and answers at once what cannot wait."""

    def __init__(self, settings: Settings, answers: CallAnswers) -> None:
        self._bytes_max = settings.webhook_body_bytes_max
        self._verifier = VapiWebhookVerifier.from_settings(settings)
        self._answers = answers

    async def __call__(self, delivery: Delivery, correlation_id: str) -> Received | Answered:
        began = time.monotonic()
        body = await read_body(delivery, media_type="application/json", bytes_max=self._bytes_max)
        self._verifier.prove(delivery.headers, body, now=utc_now())
        message = messages.parse(body)
        if message.type in messages.ANSWERED_TYPES:
            return Answered(await self._answers.answer(message, began))
        if messages.is_ignored(message.type):
            return Answered(_NOTHING_KEPT)
        tells = message.type in (messages.STATUS_UPDATE, messages.END_OF_CALL_REPORT)
        return Received(
            source=Provider.VAPI,
            external_id=messages.external_id_of(message),
            transmission_id=None,
            event_type=message.type,
            body=body,
            correlation_id=correlation_id,
            queue=Queue.SAFETY if tells else Queue.MAINTENANCE,
        )
