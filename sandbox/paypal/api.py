"""PayPal's API: tokens, subscriptions, captures and refunds.

webhooks.py has the operations about webhooks.

Source: PayPal's published specifications (billing_subscriptions_v1, payments_payment_v2,
notifications_webhooks_v1). The status rules and the names of refusals are taken from them.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, Json, iso_seconds, json_answer, same_secret
from sandbox.gate import Handler
from sandbox.paypal.events import EventContent, announce
from sandbox.paypal.problems import invalid, problem, unprocessable
from sandbox.paypal.state import (
    FAILURE_THRESHOLD,
    is_amount,
    money,
    set_subscription_status,
)
from sandbox.paypal.webhooks import give_certificate, verify_signature
from sandbox.store import Shelf

#: Lifetime of a token in seconds, as at PayPal.
_TOKEN_SECONDS = 32_400
#: Maximum length of a reason for a cancellation or suspension, in characters.
_REASON_MAX = 128
_CUSTOM_ID = re.compile(r"[\x20-\x7e]{1,127}")


def _found(shelf: Shelf[Json], request: ApiRequest) -> Json:
    resource = shelf.get(request.params["id"])
    if resource is None:
        raise problem(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "No such resource.")
    return resource


def _request_id(request: ApiRequest, operation: str) -> str:
    """Return PayPal-Request-Id with its operation, or a blank if there is none."""
    given = request.headers.get("paypal-request-id", "")
    return f"{operation} {given}" if given else ""


def _authorized(handler: Handler) -> Handler:
    def checked(sandbox: Sandbox, request: ApiRequest) -> Answer:
        until = sandbox.paypal.tokens.get(request.bearer())
        if until is None or until < datetime.now(UTC):
            body = {"error": "invalid_token", "error_description": "The token is not valid"}
            return json_answer(body, 401)
        return handler(sandbox, request)

    return checked


def _body(request: ApiRequest) -> Json:
    body = request.json()
    if body is None:
        raise problem(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON", "Not a JSON object.")
    return body


def _shown(request: ApiRequest, resource: Json, status: int) -> Answer:
    # The response is minimal unless the client sends `Prefer: return=representation`.
    if "return=representation" in request.headers.get("prefer", ""):
        return json_answer(resource, status)
    return json_answer({key: resource[key] for key in ("id", "status", "links")}, status)


def give_token(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/oauth2/token."""
    user, password = request.basic()
    ours = sandbox.keys.secrets
    known = same_secret(user, ours.paypal_client_id)
    if not (known and same_secret(password, ours.paypal_client_secret)):
        body = {"error": "invalid_client", "error_description": "Client authentication failed"}
        return json_answer(body, 401)
    if request.form().get("grant_type") != "client_credentials":
        body = {"error": "unsupported_grant_type", "error_description": "Unknown grant_type"}
        return json_answer(body, 400)
    token = f"A21AA{secrets.token_urlsafe(60)}"
    sandbox.paypal.tokens[token] = datetime.now(UTC) + timedelta(seconds=_TOKEN_SECONDS)
    given = {
        "scope": "https://uri.paypal.com/services/subscriptions",
        "access_token": token,
        "token_type": "Bearer",
        "app_id": "APP-SANDBOX",
        "expires_in": _TOKEN_SECONDS,
        "nonce": f"{iso_seconds()}{secrets.token_urlsafe(24)}",
    }
    return json_answer(given)


def create_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/billing/subscriptions.

    Replay: a request with a known PayPal-Request-Id returns the subscription of the first request.
    """
    body = _body(request)
    request_id = _request_id(request, "subscription")
    made = sandbox.paypal.made_by_request.get(request_id)
    if made is not None:
        return _shown(request, sandbox.paypal.subscriptions[made], 200)
    plan_id = body.get("plan_id")
    if not isinstance(plan_id, str) or not plan_id:
        raise invalid("/plan_id", "MISSING_REQUIRED_PARAMETER", "A required field is missing.")
    custom_id = body.get("custom_id")
    if custom_id is not None and not _CUSTOM_ID.fullmatch(str(custom_id)):
        raise invalid("/custom_id", "INVALID_PARAMETER_SYNTAX", "Not printable ASCII.")
    subscription = sandbox.paypal.add_subscription(plan_id, custom_id, "APPROVAL_PENDING")
    if request_id:
        sandbox.paypal.made_by_request[request_id] = subscription["id"]
    announce(sandbox, EventContent("BILLING.SUBSCRIPTION.CREATED", "subscription", subscription))
    return _shown(request, subscription, 201)


def list_subscriptions(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/billing/subscriptions, with all of them on one page."""
    found = list(sandbox.paypal.subscriptions.values())
    return json_answer({"subscriptions": found, "links": []})


def get_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/billing/subscriptions/{id}."""
    return json_answer(_found(sandbox.paypal.subscriptions, request))


def cancel_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST .../cancel: only from ACTIVE or SUSPENDED, and irreversible."""
    return _change_status(
        sandbox, request, ("ACTIVE", "SUSPENDED"), "CANCELLED", reason_required=True
    )


def suspend_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST .../suspend: only from ACTIVE."""
    return _change_status(sandbox, request, ("ACTIVE",), "SUSPENDED", reason_required=True)


def activate_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST .../activate: only from SUSPENDED.

    A subscription with too many failed payments cannot be activated.
    """
    subscription = _found(sandbox.paypal.subscriptions, request)
    failed = subscription["billing_info"]["failed_payments_count"]
    if subscription["status"] == "SUSPENDED" and failed >= FAILURE_THRESHOLD:
        raise unprocessable("SUBSCRIPTION_CANNOT_BE_ACTIVATED", "Too many payments have failed.")
    return _change_status(sandbox, request, ("SUSPENDED",), "ACTIVE", reason_required=False)


def _change_status(
    sandbox: Sandbox,
    request: ApiRequest,
    allowed: tuple[str, ...],
    status: str,
    *,
    reason_required: bool,
) -> Answer:
    subscription = _found(sandbox.paypal.subscriptions, request)
    reason = (_body(request) if request.body else {}).get("reason")
    if reason_required and not reason:
        raise invalid("/reason", "MISSING_REQUIRED_PARAMETER", "A required field is missing.")
    if reason is not None and (not isinstance(reason, str) or len(reason) > _REASON_MAX):
        raise invalid("/reason", "INVALID_STRING_MAX_LENGTH", "The reason is too long.")
    if subscription["status"] not in allowed:
        raise unprocessable(
            "SUBSCRIPTION_STATUS_INVALID", "Not possible in the subscription's present status."
        )
    set_subscription_status(subscription, status)
    event_type = "ACTIVATED" if status == "ACTIVE" else status
    announce(
        sandbox, EventContent(f"BILLING.SUBSCRIPTION.{event_type}", "subscription", subscription)
    )
    return Answer(204)


def get_capture(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v2/payments/captures/{id}."""
    return json_answer(_found(sandbox.paypal.captures, request))


def get_refund(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v2/payments/refunds/{id}."""
    return json_answer(_found(sandbox.paypal.refunds, request))


def get_dispute(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/customer/disputes/{id}."""
    return json_answer(_found(sandbox.paypal.disputes, request))


def refund_capture(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST .../captures/{id}/refund: refund a given amount or all that is left.

    Replay: a request with a known PayPal-Request-Id returns the refund of the first request.
    """
    capture = _found(sandbox.paypal.captures, request)
    request_id = _request_id(request, f"refund {capture['id']}")
    made = sandbox.paypal.made_by_request.get(request_id)
    if made is not None:
        return _shown(request, sandbox.paypal.refunds[made], 200)
    value = _refundable(sandbox, capture, (_body(request) if request.body else {}).get("amount"))
    refund = sandbox.paypal.add_refund(capture, value)
    if request_id:
        sandbox.paypal.made_by_request[request_id] = refund["id"]
    announce(sandbox, EventContent("PAYMENT.CAPTURE.REFUNDED", "refund", refund))
    return _shown(request, refund, 201)


def _refundable(sandbox: Sandbox, capture: Json, amount: Json | None) -> str:
    if capture["status"] == "PENDING":
        raise unprocessable("PENDING_CAPTURE", "The capture is still pending.")
    if capture["status"] == "DECLINED":
        raise unprocessable("REFUND_IS_RESTRICTED", "The capture was declined.")
    currency = capture["amount"]["currency_code"]
    left = sandbox.paypal.left_of(capture)
    if left <= 0:
        raise unprocessable("CAPTURE_FULLY_REFUNDED", "All of the capture has been refunded.")
    if amount is None:
        return str(money(f"{left:f}", currency)["value"])
    if amount.get("currency_code") != currency:
        raise unprocessable("REFUND_CAPTURE_CURRENCY_MISMATCH", "Not the capture's currency.")
    if not is_amount(amount.get("value"), currency):
        raise invalid("/amount/value", "INVALID_PARAMETER_SYNTAX", "Not an amount.")
    if Decimal(amount["value"]) > left:
        raise unprocessable("REFUND_AMOUNT_EXCEEDED", "More than is left of the capture.")
    return str(amount["value"])


def operations() -> list[tuple[str, str, Handler]]:
    """List PayPal's operations: method, path, handler."""
    subscription = "/v1/billing/subscriptions/{id}"
    capture = "/v2/payments/captures/{id}"
    verify = "/v1/notifications/verify-webhook-signature"
    guarded: list[tuple[str, str, Handler]] = [
        ("POST", verify, verify_signature),
        ("GET", "/v1/billing/subscriptions", list_subscriptions),
        ("POST", "/v1/billing/subscriptions", create_subscription),
        ("GET", subscription, get_subscription),
        ("POST", f"{subscription}/cancel", cancel_subscription),
        ("POST", f"{subscription}/suspend", suspend_subscription),
        ("POST", f"{subscription}/activate", activate_subscription),
        ("GET", capture, get_capture),
        ("POST", f"{capture}/refund", refund_capture),
        ("GET", "/v2/payments/refunds/{id}", get_refund),
        ("GET", "/v1/customer/disputes/{id}", get_dispute),
    ]
    return [
        ("POST", "/v1/oauth2/token", give_token),
        ("GET", "/v1/notifications/certs/{name}", give_certificate),
        *((method, path, _authorized(handler)) for method, path, handler in guarded),
    ]
