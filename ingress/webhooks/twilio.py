"""Twilio's callbacks, verified with the auth token of the account that they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, Semaphore, fail_after, to_thread
from sqlalchemy import select

from base.enums import Provider
from base.outcomes import NotYet, OutcomeUnknown, ProviderUnavailable, Refused
from base.settings import Settings
from db.engine import Database
from db.inbox.batcher import InboxUnavailable, VerifiedEvent
from db.models import Brand
from ingress.http.body import read_body
from ingress.http.delivery import Delivery
from providers.errors import ForgedWebhook
from providers.twilio import events, webhook
from providers.twilio.api import TwilioApi

#: Threads that look up tokens at once. Requests that wait for Twilio are not authenticated yet, so
#: they must not use up the threads of authenticated ones.
_FETCH_THREADS_MAX = 4
#: Seconds that a request waits for one of these threads before it is answered with 503.
_THREAD_WAIT_SECONDS = 2.0

T = TypeVar("T")


class TwilioProof:
    """Verifies that a request is Twilio's, with our public URL as the signed address.

    Until the signature is checked, any sender may have written the account into the request. A
    token is therefore fetched only for our own subaccounts.

    If no remembered token fits the signature, the token may have been changed at Twilio, so it is
    fetched again. A callback that fits a remembered token waits for no thread. A callback that
    cannot be verified now is answered with 503, never 401, so that it is sent again.
    """

    def __init__(
        self,
        settings: Settings,
        twilio: TwilioApi,
        database: Database,
        bytes_max: int,
        *,
        wait_seconds: float = _THREAD_WAIT_SECONDS,
    ) -> None:
        self._bytes_max = bytes_max
        self._public_url = settings.public_url or f"http://{settings.host}:{settings.port}"
        self._twilio = twilio
        self._database = database
        self._wait_seconds = wait_seconds
        self._fetches = Semaphore(_FETCH_THREADS_MAX)
        self._threads = CapacityLimiter(_FETCH_THREADS_MAX)

    async def __call__(self, delivery: Delivery, correlation_id: str) -> VerifiedEvent:
        body = await read_body(
            delivery,
            media_type="application/x-www-form-urlencoded",
            bytes_max=self._bytes_max,
        )
        sid = webhook.account_sid_of(body)
        if not webhook.is_plausible(delivery.headers.get("x-twilio-signature")):
            # The request is refused before a token is looked up for it.
            raise ForgedWebhook("the signature is missing or malformed")
        tokens = self._twilio.proof_tokens(sid)
        if not tokens:
            tokens = (await self._fetch(lambda: self._token_of(sid)),)
        params = await self._verify_with_tokens(delivery, body, sid, tokens)
        event_type = events.event_type_of(params)
        return VerifiedEvent(
            source=Provider.TWILIO,
            external_id=webhook.external_id_of(params),
            transmission_id=None,
            event_type=event_type,
            body=body,
            correlation_id=correlation_id,
            queue=events.queue_of(event_type),
        )

    async def _verify_with_tokens(
        self, delivery: Delivery, body: bytes, sid: str, tokens: tuple[str, ...]
    ) -> dict[str, list[str]]:
        """Verify with the remembered tokens; if none fits, fetch a newer one and retry."""
        signature = delivery.headers.get("x-twilio-signature")

        def verify(token: str) -> dict[str, list[str]]:
            return webhook.verify(
                public_url=self._public_url,
                path_and_query=delivery.path_and_query,
                body=body,
                signature=signature,
                token=token,
            )

        last_error: ForgedWebhook | None = None
        for token in tokens:
            try:
                return verify(token)
            except ForgedWebhook as error:
                last_error = error
        newer = await self._fetch(lambda: self._newer_token(sid, tokens[-1]))
        if newer is not None:
            return verify(newer)
        raise last_error or ForgedWebhook("no token to verify with")

    async def _fetch(self, work: Callable[[], T]) -> T:
        """Run a function in one of a few threads.

        Raises: ProviderUnavailable if no thread is free in time.
        """
        try:
            with fail_after(self._wait_seconds):
                await self._fetches.acquire()
        except TimeoutError:
            raise ProviderUnavailable("other tokens are being looked up") from None
        try:
            return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._fetches.release()

    def _newer_token(self, sid: str, old_token: str) -> str | None:
        try:
            return self._twilio.newer_token(sid, old_token)
        except Refused as error:
            raise ForgedWebhook(f"the account it names cannot sign: {error.code}") from None

    def _token_of(self, sid: str) -> str:
        try:
            brand_id = self._database.run(
                lambda session: session.scalar(
                    select(Brand.id).where(Brand.twilio_subaccount_sid == sid)
                )
            )
        except (NotYet, OutcomeUnknown) as error:
            raise InboxUnavailable(str(error)) from None
        if brand_id is None:
            raise ForgedWebhook("the account it names is not ours")
        try:
            return self._twilio.subaccount_token(sid)
        except Refused as error:
            raise ForgedWebhook(f"the account it names cannot sign: {error.code}") from None
