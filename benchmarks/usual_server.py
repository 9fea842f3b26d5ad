"""The ingress's other baseline: the usual webhook handler of an application.

Run as `python -m benchmarks.usual_server PORT` with Holdfast's settings. It verifies each webhook
with Holdfast's verifier, inserts the event in a session and commits, and sends Dramatiq's message
to Redis. Then it answers 200. Libraries have their defaults.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from base.clock import utc_now
from base.ids import new_id
from base.settings import Settings, load_settings
from benchmarks.empty_actors import QUEUE
from benchmarks.empty_server import serve
from db.address import sqlalchemy_url
from db.models import InboxEvent
from providers.paypal.webhook import PayPalWebhookVerifier, Transmission, transmission_of
from providers.registry import build


@contextmanager
def usual_store(settings: Settings) -> Iterator[Callable[[Transmission, bytes], None]]:
    """Yield the function that proves and stores one webhook, and sends its message."""
    engine = create_engine(sqlalchemy_url(settings.database_url))
    broker = RedisBroker(url=settings.redis_url)  # type: ignore[no-untyped-call]
    providers = build(settings)
    verifier = PayPalWebhookVerifier.from_settings(settings, providers.paypal)

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def process(event_id: str) -> None:
        del event_id

    def store(transmission: Transmission, body: bytes) -> None:
        webhook = verifier.verify(transmission, body, now=utc_now())
        event = InboxEvent(
            id=new_id("evt"),
            source="paypal",
            external_id=webhook.external_id,
            transmission_id=webhook.transmission_id,
            event_type=webhook.event_type,
            body=body,
            body_sha256=hashlib.sha256(body).digest(),
            correlation_id=new_id("cor"),
            received_at=utc_now(),
        )
        with Session(engine, expire_on_commit=False) as session:
            session.add(event)
            session.commit()
        process.send(event.id)

    try:
        yield store
    finally:
        broker.close()
        engine.dispose()
        verifier.close()
        providers.close()


def main() -> None:
    """Serve until SIGTERM."""
    with usual_store(load_settings()) as store:

        async def receive(request: Request) -> Response:
            await run_in_threadpool(store, transmission_of(request.headers), await request.body())
            return Response()

        serve([Route("/webhooks/paypal", receive, methods=["POST"])], int(sys.argv[1]))


if __name__ == "__main__":
    main()
