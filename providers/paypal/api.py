"""PayPal's REST API: subscriptions, payments, disputes, webhook verification.

Only the answers of this API may open an account or credit money. The client never follows a URL
from an answer, and it changes nothing at PayPal.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from base.facts import DisputeFacts, PaymentFacts, SubscriptionFacts
from base.outcomes import ProviderUnavailable, Refused
from base.problems.payments import UNKNOWN_KIND
from base.problems.providers import INVALID_ID
from providers.errors import CredentialsRejected, ProviderSilent
from providers.http.client import (
    RETRY_WINDOW_SECONDS,
    Answer,
    Deadline,
    build_client,
    exchange,
    send_with_retries,
)
from providers.http.limits import ChannelLimits
from providers.http.probe import SilenceLimit
from providers.paypal.disputes import dispute_facts
from providers.paypal.fields import is_resource_id
from providers.paypal.mapping import capture_id_of, payment_facts, subscription_facts

#: A token is renewed this many seconds before it expires. PayPal's tokens live about nine hours.
_TOKEN_MARGIN_SECONDS = 60.0
#: A token without a stated lifetime is used for this many seconds.
_TOKEN_SECONDS_DEFAULT = 300.0
#: Retry delay in seconds while another thread waits for the provider. That wait lasts as long.
_SILENT_RETRY_SECONDS = 12.0


@dataclass(frozen=True)
class _Token:
    text: str
    renew_at: float


class PayPalApi:
    """PayPal's API for one REST app. Threads may share it."""

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        window_seconds: float = RETRY_WINDOW_SECONDS,
        limits: ChannelLimits | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._client_id = client_id
        self._client_secret = client_secret
        self._window_seconds = window_seconds
        self._limits = limits
        self._client = build_client(base_url)
        self._silence_limit = SilenceLimit(limits, _SILENT_RETRY_SECONDS)
        self._lock = threading.RLock()
        self._token: _Token | None = None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get_subscription(self, external_id: str) -> SubscriptionFacts:
        """Read a subscription's current state.

        Raises: Refused (INVALID_ID, UNKNOWN_STATUS), ProviderUnavailable (also for a subscription
        that PayPal does not know), CredentialsRejected, HeldBack. Source: billing_subscriptions_v1.
        """
        deadline = Deadline.after(self._window_seconds)
        return subscription_facts(self._get("/v1/billing/subscriptions/", external_id, deadline))

    def get_payment(self, kind: str, external_id: str) -> PaymentFacts:
        """Read a payment's current state, by the ID of a "capture" or of a "refund".

        Units: micros of the capture's currency. A capture in status PARTIALLY_REFUNDED does not
        contain the refunded amount or the refunds, so its refunded_micros is 0. Read each refund by
        its own ID. Its answer has its state and the total that was refunded up to then.
        Raises: Refused (INVALID_ID, UNKNOWN_STATUS, UNKNOWN_KIND, CURRENCY_MISMATCH, NO_CAPTURE),
        InvalidAmount, ProviderUnavailable, CredentialsRejected, HeldBack.
        Source: payments_payment_v2.
        """
        deadline = Deadline.after(self._window_seconds)
        if kind == "capture":
            return payment_facts(self._get_capture(external_id, deadline), refund=None)
        if kind != "refund":
            raise Refused(UNKNOWN_KIND, "neither a capture nor a refund")
        refund = self._get("/v2/payments/refunds/", external_id, deadline)
        return payment_facts(self._get_capture(capture_id_of(refund), deadline), refund=refund)

    def get_dispute(self, external_id: str) -> DisputeFacts:
        """Read a dispute's current state.

        Units: micros of the disputed currency. Raises: Refused (INVALID_ID, UNKNOWN_STATUS,
        UNKNOWN_OUTCOME, UNKNOWN_MOVEMENT, SEVERAL_PAYMENTS, NO_CAPTURE, NO_AMOUNT,
        CURRENCY_MISMATCH), InvalidAmount, ProviderUnavailable, CredentialsRejected, HeldBack.
        Source: customer_disputes_v1.
        """
        deadline = Deadline.after(self._window_seconds)
        dispute = self._get("/v1/customer/disputes/", external_id, deadline, id_field="dispute_id")
        return dispute_facts(dispute)

    def verify_webhook(self, transmission: dict[str, str], body: bytes, *, webhook_id: str) -> bool:
        """Ask PayPal whether a webhook is genuine.

        `transmission` has auth_algo, cert_url and the transmission_ fields. The caller must have
        checked that `body` is one whole JSON object. It is inserted into the request byte for byte,
        because serializing it again would change what was signed. Raises: ProviderUnavailable for
        any answer except SUCCESS or FAILURE, CredentialsRejected, HeldBack.
        Source: notifications_webhooks_v1, verify-webhook-signature.
        """
        fields_json = json.dumps({**transmission, "webhook_id": webhook_id}).encode("ascii")
        request_body = fields_json[:-1] + b', "webhook_event": ' + body + b"}"
        deadline = Deadline.after(self._window_seconds)
        answer = self._with_token(
            lambda token: self._send(
                "POST",
                "/v1/notifications/verify-webhook-signature",
                deadline,
                content=request_body,
                headers={**_bearer(token), "Content-Type": "application/json"},
            ),
            deadline,
        )
        if answer.status == 200:
            status = answer.json_object().get("verification_status")
            if status in ("SUCCESS", "FAILURE"):
                return bool(status == "SUCCESS")
        # An error shows nothing about the signature. If it counted as FAILURE, a genuine webhook
        # would be refused.
        raise ProviderUnavailable(f"HTTP {answer.status} is no verdict on a signature")

    def _get_capture(self, external_id: str, deadline: Deadline) -> dict[str, Any]:
        return self._get("/v2/payments/captures/", external_id, deadline)

    def _get(
        self, path: str, external_id: str, deadline: Deadline, *, id_field: str = "id"
    ) -> dict[str, Any]:
        if not is_resource_id(external_id):
            raise Refused(INVALID_ID, "not an id of PayPal")

        def read_resource() -> dict[str, Any]:
            answer = self._with_token(
                lambda token: self._send(
                    "GET", f"{path}{external_id}", deadline, headers=_bearer(token)
                ),
                deadline,
            )
            return _parse_resource(answer, external_id, id_field)

        with self._silence_limit.request():
            return send_with_retries(read_resource, deadline)

    def _send(self, method: str, path: str, deadline: Deadline, **request: Any) -> Answer:
        # Every request of this client changes nothing at PayPal, so it may be repeated.
        return exchange(
            self._client,
            method,
            f"{self._base_url}{path}",
            limits=self._limits,
            repeatable=True,
            deadline=deadline,
            **request,
        )

    def _with_token(self, send: Callable[[str], Answer], deadline: Deadline) -> Answer:
        token = self._current_token(None, deadline)
        answer = send(token)
        if answer.status == 401:
            answer = send(self._current_token(token, deadline))
        if answer.status in (401, 403):
            raise CredentialsRejected(f"PayPal answered {answer.status}")
        return answer

    def _current_token(self, rejected: str | None, deadline: Deadline) -> str:
        # Threads that wait for the lock find the token that the first of them fetched.
        try:
            if not self._lock.acquire(timeout=deadline.remaining_seconds()):
                raise ProviderSilent("no token in time")
            token = self._token
            if token and token.text != rejected and time.monotonic() < token.renew_at:
                return token.text
            self._token = None
            self._token = self._fetch_token(deadline)
            return self._token.text
        finally:
            # An actor's time limit may interrupt between acquiring the lock and the next line. A
            # lock that stays locked would block all calls of this process. Only its owner can
            # release it.
            with contextlib.suppress(RuntimeError):
                self._lock.release()

    def _fetch_token(self, deadline: Deadline) -> _Token:
        if not self._client_id or not self._client_secret:
            raise CredentialsRejected("PAYPAL_CLIENT_ID or PAYPAL_CLIENT_SECRET is not set")
        requested_at = time.monotonic()
        answer = self._send(
            "POST",
            "/v1/oauth2/token",
            deadline,
            data={"grant_type": "client_credentials"},
            auth=(self._client_id, self._client_secret),
        )
        if 400 <= answer.status < 500:
            raise CredentialsRejected(f"PayPal answered {answer.status} for a token")
        content = answer.json_object()
        text, seconds = content.get("access_token"), content.get("expires_in")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text:
            raise ProviderUnavailable("the answer has no access_token")
        lifetime_seconds = float(seconds) if isinstance(seconds, int) else _TOKEN_SECONDS_DEFAULT
        return _Token(text, requested_at + max(0.0, lifetime_seconds - _TOKEN_MARGIN_SECONDS))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _parse_resource(answer: Answer, external_id: str, id_field: str) -> dict[str, Any]:
    if answer.status == 404:
        # PayPal's own event named this resource, so PayPal may only be late. Try again.
        raise ProviderUnavailable(f"PayPal does not know {external_id} now")
    if answer.status != 200:
        raise ProviderUnavailable(f"PayPal answered {answer.status} about {external_id}")
    resource = answer.json_object()
    if resource.get(id_field) != external_id:
        raise ProviderUnavailable("the answer is about another resource")
    return resource
