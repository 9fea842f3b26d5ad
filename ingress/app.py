"""Builds the ingress: its routes and its long-lived components."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from anyio import move_on_after, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from base.enums import Provider
from base.settings import Settings
from db.engine import Database, clock
from db.heartbeat import Heartbeat
from db.inbox.batcher import InboxBatcher, VerifiedEvent
from db.inbox.refusals import RefusalLog
from db.redis.client import Notifier
from domain.calls.permission import PERMISSION_SECONDS
from domain.events import alert_different_body, alert_too_large
from ingress.api.endpoint import CONCURRENT_REQUESTS_MAX, ApiEndpoint
from ingress.api.routes import routes as api_routes
from ingress.api.tokens import Tokens
from ingress.calls.deadline import ANSWER_SECONDS, UrgentTransactions
from ingress.calls.responses import CallAnswers
from ingress.calls.snapshot import Snapshot
from ingress.calls.status_check import StatusCheck
from ingress.health import Ready, healthz
from ingress.http.front import Front
from ingress.http.protocol import BoundedProtocol
from ingress.http.responses import on_error, on_http_exception
from ingress.webhooks.certificates import StoredCertificates
from ingress.webhooks.endpoint import WebhookEndpoint
from ingress.webhooks.paypal import PayPalProof
from ingress.webhooks.twilio import TwilioProof
from ingress.webhooks.vapi import VapiProof
from providers.paypal.webhook import PayPalWebhookVerifier
from providers.registry import Providers
from providers.vapi.api import CALL_BYTES_MAX
from providers.vapi.webhook import VapiWebhookVerifier

#: Seconds that requests in flight have to finish after SIGTERM.
STOP_SECONDS = 10
#: Longest wait at start for the stored certificates, in seconds.
_CERTIFICATES_WAIT_SECONDS = 3.0
#: Longest transaction of the API and of webhook verification, in seconds. A few statements may
#: reach their own limit within it.
_TRANSACTION_SECONDS_MAX = 15.0


@dataclass(frozen=True)
class IngressLimits:
    """Limits of the ingress. Fault runs and tests use other limits."""

    #: Bytes of the largest webhook body accepted from PayPal or Twilio.
    body_bytes_max: int = 1_048_576
    #: Bytes of the largest message accepted from Vapi. It may contain the record of a call.
    vapi_bytes_max: int = CALL_BYTES_MAX
    #: Seconds for which a campaign's permission to dial holds money.
    permission_seconds: float = PERMISSION_SECONDS
    #: Seconds from the arrival of a live call's question to its answer.
    answer_seconds: float = ANSWER_SECONDS


LIMITS = IngressLimits()


def build_app(settings: Settings, providers: Providers, limits: IngressLimits = LIMITS) -> ASGIApp:
    """Build the application.

    Raises: SettingsError if PayPal's webhook id is missing or malformed.
    """
    notifier = Notifier(settings.redis_url)
    database = Database(
        settings.database_url,
        name="ingress",
        # One connection for each request of the API, two for reads beside them, and one for the
        # heartbeat.
        pool_size=CONCURRENT_REQUESTS_MAX + 3,
        longest_seconds=_TRANSACTION_SECONDS_MAX,
    )
    heartbeat = Heartbeat(database, "ingress")
    inbox = InboxBatcher(settings.database_url, notifier.notify)
    refusals = RefusalLog(settings.database_url)
    verifier = PayPalWebhookVerifier.from_settings(
        settings, providers.paypal, StoredCertificates(database)
    )
    urgent = UrgentTransactions(settings.database_url, limits.answer_seconds)
    snapshot = Snapshot(database)
    api = ApiEndpoint(Tokens(settings), database)
    vapi_verifier = VapiWebhookVerifier.from_settings(settings)
    status_check = StatusCheck(vapi_verifier, api, urgent)
    webhook_endpoints = _webhook_endpoints(
        PayPalProof(verifier, limits.body_bytes_max),
        TwilioProof(settings, providers.twilio, database, limits.body_bytes_max),
        VapiProof(
            vapi_verifier,
            CallAnswers(urgent, snapshot, permission_seconds=limits.permission_seconds),
            _make_large_body_alert(database),
            limits.vapi_bytes_max,
        ),
        inbox=inbox,
        refusals=refusals,
        database=database,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with move_on_after(_CERTIFICATES_WAIT_SECONDS):
            # Without a database the ingress starts anyway and loads the certificates later.
            await to_thread.run_sync(verifier.certificates.load, abandon_on_cancel=True)
        await inbox.start()
        await refusals.start()
        await snapshot.start()
        heartbeat.start()
        yield
        await to_thread.run_sync(heartbeat.stop)
        await snapshot.stop()
        await inbox.stop()
        await refusals.stop()
        notifier.close()
        urgent.close()
        database.close()
        verifier.close()
        providers.close()

    app = Starlette(
        routes=_routes(webhook_endpoints, api, status_check, Ready(database, heartbeat)),
        exception_handlers={HTTPException: on_http_exception, Exception: on_error},
        lifespan=lifespan,
    )
    # A path with an extra slash is an unknown route. A redirect would use the Host header, which
    # the sender controls, and no provider follows redirects.
    app.router.redirect_slashes = False
    return Front(app, webhook_endpoints)


def _make_large_body_alert(database: Database) -> Callable[[str, int], None]:
    def alert_large_body(declared: str, bytes_max: int) -> None:
        database.run(
            lambda session: alert_too_large(
                session, Provider.VAPI, declared, bytes_max, clock(session)
            )
        )

    return alert_large_body


def _webhook_endpoints(
    paypal: PayPalProof,
    twilio: TwilioProof,
    vapi: VapiProof,
    *,
    inbox: InboxBatcher,
    refusals: RefusalLog,
    database: Database,
) -> dict[str, WebhookEndpoint]:
    def alert_forged(event: VerifiedEvent) -> None:
        transmission_id = event.transmission_id or event.external_id
        database.run(
            lambda session: alert_different_body(
                session, event.source, transmission_id, event.external_id, clock(session)
            )
        )

    paypal_endpoint = WebhookEndpoint("paypal", paypal, inbox, refusals, alert_forged=alert_forged)
    # Twilio signs the whole body. A different body under the same id is a repeat with more details.
    twilio_endpoint = WebhookEndpoint("twilio", twilio, inbox, refusals)
    # We derive the ids of Vapi's messages. A different body under one id reports the same status
    # again.
    vapi_endpoint = WebhookEndpoint("vapi", vapi, inbox, refusals)
    return {
        "/webhooks/paypal": paypal_endpoint,
        "/api/webhooks/paypal": paypal_endpoint,
        "/webhooks/twilio": twilio_endpoint,
        "/webhooks/vapi": vapi_endpoint,
        "/api/vapi/webhook": vapi_endpoint,
    }


def _routes(
    webhook_endpoints: dict[str, WebhookEndpoint],
    api: ApiEndpoint,
    status_check: StatusCheck,
    ready: Ready,
) -> list[Route]:
    return [
        # Front serves POST. These routes only answer other methods, with 405 and Allow.
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in webhook_endpoints.items()),
        Route("/webhooks/vapi/status-check", status_check.answer, methods=["POST"]),
        Route("/api/vapi/webhook/status-check", status_check.answer, methods=["POST"]),
        *api_routes(api),
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", ready.answer, methods=["GET"]),
    ]


def serve(settings: Settings, providers: Providers, limits: IngressLimits = LIMITS) -> None:
    """Serve until SIGTERM or SIGINT, then finish requests in flight."""
    uvicorn.run(
        build_app(settings, providers, limits),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        http=BoundedProtocol,
        limit_concurrency=4_000,
    )
