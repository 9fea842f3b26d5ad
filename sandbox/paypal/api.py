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
from sandbox.paypal.webhooks import serve_certificate, verify_signature
from sandbox.store import Shelf

#: Lifetime of a token in seconds, as at PayPal.
_TOKEN_SECONDS = 32_400
#: Maximum length of a reason for a cancellation or suspension, in characters.
_REASON_LENGTH_MAX = 128
_CUSTOM_ID = re.compile(r"[\x20-\x7e]{1,127}")


def _find_resource(shelf: Shelf[Json], request: ApiRequest) -> Json:
    resource = shelf.get(request.params["id"])
    if resource is None:
        raise problem(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "No such resource.")
    return resource


def _request_id(request: ApiRequest, operation: str) -> str:
    """Return PayPal-Request-Id with its operation; blank if the header is missing."""
    header = request.headers.get("paypal-request-id", "")
    return f"{operation} {header}" if header else ""


def _require_token(handler: Handler) -> Handler:
    def check_and_handle(sandbox: Sandbox, request: ApiRequest) -> Answer:
        expires_at = sandbox.paypal.tokens.get(request.bearer())
        if expires_at is None or expires_at < datetime.now(UTC):
            body = {"error": "invalid_token", "error_description": "The token is not valid"}
            return json_answer(body, 401)
        return handler(sandbox, request)

    return check_and_handle


def _json_body(request: ApiRequest) -> Json:
    body = request.json()
    if body is None:
        raise problem(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON", "Not a JSON object.")
    return body


def _resource_answer(request: ApiRequest, resource: Json, status: int) -> Answer:
    # The response is minimal unless the client sends `Prefer: return=representation`.
    if "return=representation" in request.headers.get("prefer", ""):
        return json_answer(resource, status)
    return json_answer({key: resource[key] for key in ("id", "status", "links")}, status)


def issue_token(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/oauth2/token."""
    user, password = request.basic()
    our_secrets = sandbox.keys.secrets
    is_our_id = same_secret(user, our_secrets.paypal_client_id)
    if not (is_our_id and same_secret(password, our_secrets.paypal_client_secret)):
        body = {"error": "invalid_client", "error_description": "Client authentication failed"}
        return json_answer(body, 401)
    if request.form().get("grant_type") != "client_credentials":
        body = {"error": "unsupported_grant_type", "error_description": "Unknown grant_type"}
        return json_answer(body, 400)
    token = f"A21AA{secrets.token_urlsafe(60)}"
    sandbox.paypal.tokens[token] = datetime.now(UTC) + timedelta(seconds=_TOKEN_SECONDS)
    token_response = {
        "scope": "https://uri.paypal.com/services/subscriptions",
        "access_token": token,
        "token_type": "Bearer",
        "app_id": "APP-SANDBOX",
        "expires_in": _TOKEN_SECONDS,
        "nonce": f"{iso_seconds()}{secrets.token_urlsafe(24)}",
    }
    return json_answer(token_response)


def create_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/billing/subscriptions.

    Replay: a request with a known PayPal-Request-Id returns the subscription of the first request.
    """
    body = _json_body(request)
    request_id = _request_id(request, "subscription")
    known_id = sandbox.paypal.made_by_request.get(request_id)
    if known_id is not None:
        return _resource_answer(request, sandbox.paypal.subscriptions[known_id], 200)
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
    return _resource_answer(request, subscription, 201)


def list_subscriptions(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/billing/subscriptions, with all subscriptions on one page."""
    subscriptions = list(sandbox.paypal.subscriptions.values())
    return json_answer({"subscriptions": subscriptions, "links": []})


def get_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/billing/subscriptions/{id}."""
    return json_answer(_find_resource(sandbox.paypal.subscriptions, request))


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
    subscription = _find_resource(sandbox.paypal.subscriptions, request)
    failed_payments = subscription["billing_info"]["failed_payments_count"]
    if subscription["status"] == "SUSPENDED" and failed_payments >= FAILURE_THRESHOLD:
        raise unprocessable("SUBSCRIPTION_CANNOT_BE_ACTIVATED", "Too many payments have failed.")
    return _change_status(sandbox, request, ("SUSPENDED",), "ACTIVE", reason_required=False)


def _change_status(
    sandbox: Sandbox,
    request: ApiRequest,
    allowed_statuses: tuple[str, ...],
    status: str,
    *,
    reason_required: bool,
) -> Answer:
    subscription = _find_resource(sandbox.paypal.subscriptions, request)
    reason = (_json_body(request) if request.body else {}).get("reason")
    if reason_required and not reason:
        raise invalid("/reason", "MISSING_REQUIRED_PARAMETER", "A required field is missing.")
    if reason is not None and (not isinstance(reason, str) or len(reason) > _REASON_LENGTH_MAX):
        raise invalid("/reason", "INVALID_STRING_MAX_LENGTH", "The reason is too long.")
    if subscription["status"] not in allowed_statuses:
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
    return json_answer(_find_resource(sandbox.paypal.captures, request))


def get_refund(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v2/payments/refunds/{id}."""
    return json_answer(_find_resource(sandbox.paypal.refunds, request))


def get_dispute(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/customer/disputes/{id}."""
    return json_answer(_find_resource(sandbox.paypal.disputes, request))


def refund_capture(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST .../captures/{id}/refund: refund a given amount or all that is left.

    Replay: a request with a known PayPal-Request-Id returns the refund of the first request.
    """
    capture = _find_resource(sandbox.paypal.captures, request)
    request_id = _request_id(request, f"refund {capture['id']}")
    known_id = sandbox.paypal.made_by_request.get(request_id)
    if known_id is not None:
        return _resource_answer(request, sandbox.paypal.refunds[known_id], 200)
    value = _refund_value(
        sandbox, capture, (_json_body(request) if request.body else {}).get("amount")
    )
    refund = sandbox.paypal.add_refund(capture, value)
    if request_id:
        sandbox.paypal.made_by_request[request_id] = refund["id"]
    announce(sandbox, EventContent("PAYMENT.CAPTURE.REFUNDED", "refund", refund))
    return _resource_answer(request, refund, 201)


def _refund_value(sandbox: Sandbox, capture: Json, amount: Json | None) -> str:
    if capture["status"] == "PENDING":
        raise unprocessable("PENDING_CAPTURE", "The capture is still pending.")
    if capture["status"] == "DECLINED":
        raise unprocessable("REFUND_IS_RESTRICTED", "The capture was declined.")
    currency = capture["amount"]["currency_code"]
    unrefunded = sandbox.paypal.unrefunded_of(capture)
    if unrefunded <= 0:
        raise unprocessable("CAPTURE_FULLY_REFUNDED", "All of the capture has been refunded.")
    if amount is None:
        return str(money(f"{unrefunded:f}", currency)["value"])
    if amount.get("currency_code") != currency:
        raise unprocessable("REFUND_CAPTURE_CURRENCY_MISMATCH", "Not the capture's currency.")
    if not is_amount(amount.get("value"), currency):
        raise invalid("/amount/value", "INVALID_PARAMETER_SYNTAX", "Not an amount.")
    if Decimal(amount["value"]) > unrefunded:
        raise unprocessable("REFUND_AMOUNT_EXCEEDED", "More than is left of the capture.")
    return str(amount["value"])


def operations() -> list[tuple[str, str, Handler]]:
    """List PayPal's operations: method, path, handler."""
    subscription = "/v1/billing/subscriptions/{id}"
    capture = "/v2/payments/captures/{id}"
    verify = "/v1/notifications/verify-webhook-signature"
    authorized_operations: list[tuple[str, str, Handler]] = [
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
        ("POST", "/v1/oauth2/token", issue_token),
        ("GET", "/v1/notifications/certs/{name}", serve_certificate),
        *(
            (method, path, _require_token(handler))
            for method, path, handler in authorized_operations
        ),
    ]
