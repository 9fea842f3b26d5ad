"""Verify PayPal's webhooks, and name each by its event and transmission id."""

from __future__ import annotations

from anyio import CapacityLimiter, to_thread

from base.clock import utc_now
from base.enums import Provider
from base.log import bound
from db.inbox.batcher import VerifiedEvent
from ingress.http.body import read_body
from ingress.http.delivery import Delivery
from providers.paypal.events import queue_of
from providers.paypal.webhook import PayPalWebhookVerifier, transmission_of

#: Threads that may wait for PayPal at once. Requests with invented certificate addresses must not
#: use up all threads of the process.
_WAITING_THREADS_MAX = 16


class PayPalProof:
    """Verifies that a request is PayPal's, and waits for the network only if needed."""

    def __init__(self, verifier: PayPalWebhookVerifier, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._verifier = verifier
        self._limiter = CapacityLimiter(_WAITING_THREADS_MAX)

    async def __call__(self, delivery: Delivery, correlation_id: str) -> VerifiedEvent:
        body = await read_body(delivery, media_type="application/json", bytes_max=self._bytes_max)
        transmission, now = transmission_of(delivery.headers), utc_now()
        if self._verifier.needs_request(transmission):
            with bound(correlation_id=correlation_id, source=str(Provider.PAYPAL)):
                webhook = await to_thread.run_sync(
                    lambda: self._verifier.verify(transmission, body, now=now),
                    limiter=self._limiter,
                )
        else:
            webhook = self._verifier.verify(transmission, body, now=now)
        return VerifiedEvent(
            source=Provider.PAYPAL,
            external_id=webhook.external_id,
            transmission_id=webhook.transmission_id,
            event_type=webhook.event_type,
            body=body,
            correlation_id=correlation_id,
            queue=queue_of(webhook.event_type),
        )
