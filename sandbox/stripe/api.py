"""Stripe's API: subscriptions, Checkout sessions, events and idempotency keys.

Source: Stripe's published specification and its page on idempotent requests.
"""

from __future__ import annotations

import re

from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, Json, Rejected, json_answer, same_secret
from sandbox.gate import Handler
from sandbox.store import Shelf
from sandbox.stripe.events import announce
from sandbox.stripe.state import set_subscription_status

_METADATA = re.compile(r"metadata\[([^\]]{1,40})\]")


def _error(status: int, kind: str, message: str, code: str = "") -> Rejected:
    error = {"type": kind, "message": message} | ({"code": code} if code else {})
    return Rejected(json_answer({"error": error}, status))


def _missing_error(kind: str) -> Rejected:
    return _error(404, "invalid_request_error", f"No such {kind}", "resource_missing")


def _check_key_and_replay(handler: Handler) -> Handler:
    """Check the API key, and answer a replay with the first response.

    The same idempotency key with another path or form is refused with 400.
    """

    def check_and_handle(sandbox: Sandbox, request: ApiRequest) -> Answer:
        api_key = request.bearer() or request.basic()[0]
        if not same_secret(api_key, sandbox.keys.secrets.stripe_api_key):
            raise _error(401, "invalid_request_error", "Invalid API Key provided")
        key = request.headers.get("idempotency-key", "")
        if request.method != "POST" or not key:
            return handler(sandbox, request)
        first_request = sandbox.stripe.answers.get(key)
        if first_request is None:
            answer = handler(sandbox, request)
            sandbox.stripe.answers[key] = (request.path, request.form(), answer)
            return answer
        if first_request[:2] != (request.path, request.form()):
            raise _error(400, "idempotency_error", "The key was used with other parameters.")
        return first_request[2]

    return check_and_handle


def _find_resource(shelf: Shelf[Json], request: ApiRequest, kind: str) -> Json:
    resource = shelf.get(request.params["id"])
    if resource is None:
        raise _missing_error(kind)
    return resource


def _metadata(form: dict[str, str]) -> dict[str, str]:
    pairs = ((_METADATA.fullmatch(name), value) for name, value in form.items())
    return {match[1]: value for match, value in pairs if match}


def create_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/subscriptions."""
    form = request.form()
    if not form.get("customer"):
        raise _error(400, "invalid_request_error", "Missing required param: customer.")
    if not form.get("items[0][price]"):
        raise _error(400, "invalid_request_error", "Missing required param: items.")
    subscription = sandbox.stripe.add_subscription(
        form["customer"], form["items[0][price]"], _metadata(form), "active"
    )
    announce(sandbox, "customer.subscription.created", subscription)
    return json_answer(subscription)


def get_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/subscriptions/{id}."""
    return json_answer(_find_resource(sandbox.stripe.subscriptions, request, "subscription"))


def update_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/subscriptions/{id}.

    `pause_collection` does not change the status. Like Stripe, the stand-in still reports the
    subscription's previous status, usually active.
    """
    subscription = _find_resource(sandbox.stripe.subscriptions, request, "subscription")
    if subscription["status"] == "canceled":
        raise _missing_error("subscription")
    form = request.form()
    if "cancel_at_period_end" in form:
        subscription["cancel_at_period_end"] = form["cancel_at_period_end"] == "true"
    if "pause_collection[behavior]" in form:
        subscription["pause_collection"] = {"behavior": form["pause_collection[behavior]"]}
    if form.get("pause_collection") == "":
        subscription["pause_collection"] = None
    subscription["metadata"] |= _metadata(form)
    announce(sandbox, "customer.subscription.updated", subscription)
    return json_answer(subscription)


def cancel_subscription(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer DELETE /v1/subscriptions/{id}: immediate and irreversible."""
    subscription = _find_resource(sandbox.stripe.subscriptions, request, "subscription")
    if subscription["status"] == "canceled":
        raise _missing_error("subscription")
    set_subscription_status(subscription, "canceled")
    announce(sandbox, "customer.subscription.deleted", subscription)
    return json_answer(subscription)


def create_session(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/checkout/sessions, for one payment of one price."""
    form = request.form()
    item = "line_items[0][price_data]"
    amount = form.get(f"{item}[unit_amount]", "")
    if not amount.isdigit() or int(amount) == 0:
        raise _error(400, "invalid_request_error", "Invalid positive integer")
    currency = form.get(f"{item}[currency]", "usd")
    session = sandbox.stripe.add_session(_metadata(form), int(amount), currency)
    session["client_reference_id"] = form.get("client_reference_id")
    return json_answer(session)


def get_session(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/checkout/sessions/{id}."""
    return json_answer(_find_resource(sandbox.stripe.sessions, request, "checkout session"))


def list_events(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/events, newest first, optionally of one type."""
    event_type = request.query.get("type")
    events = [
        event for event in sandbox.stripe.events.values() if event_type in (None, event["type"])
    ]
    body = {"object": "list", "url": "/v1/events", "has_more": False, "data": events[::-1]}
    return json_answer(body)


def get_event(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/events/{id}."""
    return json_answer(_find_resource(sandbox.stripe.events, request, "event"))


def operations() -> list[tuple[str, str, Handler]]:
    """List Stripe's operations: method, path, handler."""
    handlers: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/subscriptions", create_subscription),
        ("GET", "/v1/subscriptions/{id}", get_subscription),
        ("POST", "/v1/subscriptions/{id}", update_subscription),
        ("DELETE", "/v1/subscriptions/{id}", cancel_subscription),
        ("POST", "/v1/checkout/sessions", create_session),
        ("GET", "/v1/checkout/sessions/{id}", get_session),
        ("GET", "/v1/events", list_events),
        ("GET", "/v1/events/{id}", get_event),
    ]
    return [(method, path, _check_key_and_replay(handler)) for method, path, handler in handlers]
