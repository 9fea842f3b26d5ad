"""The resource of an event: finds or creates it, and sets the state it implies.

With `keep_state`, an existing resource does not change. The event is then stale, or false. A
missing subscription, capture or dispute is created even then, because the event needs one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sandbox.core import Sandbox
from sandbox.exchange import Json, iso_seconds, random_id
from sandbox.paypal.disputes import (
    newest_dispute_of,
    newest_open,
    open_dispute,
    reopen_dispute,
    resolve_dispute,
)
from sandbox.paypal.events import EventContent
from sandbox.paypal.state import (
    LINKS_URL,
    build_refund,
    capture_of,
    is_amount,
    money,
    set_subscription_status,
)

#: The plan of a subscription that is created without one.
DEFAULT_PLAN = "P-HOLDFASTSANDBOXPLAN00001"
#: The status that each event of a subscription implies.
_IMPLIED = {
    "ACTIVATED": "ACTIVE",
    "RE-ACTIVATED": "ACTIVE",
    "SUSPENDED": "SUSPENDED",
    "CANCELLED": "CANCELLED",
    "EXPIRED": "EXPIRED",
}


#: Amount of a new payment, and of a failed one, that is requested without an amount.
_VALUE_DEFAULT = "49.00"


class UnknownResource(Exception):
    """No resource of that kind has the requested ID."""


class AmountRefused(Exception):
    """PayPal would refuse the amount, or the event concerns a payment that has one."""


@dataclass(frozen=True)
class Subject:
    """The organization or resource of an event, and the amount of a new resource.

    A blank value is the default: 49.00 for a payment, the unrefunded rest of a payment for a
    refund, and the whole payment for a dispute.
    """

    organization_id: str
    resource_id: str
    value: str
    currency: str
    keep_state: bool
    create_time: str
    #: Whether a capture's event creates a payment. If the organization's newest payment is
    #: pending, an event that completes or denies a payment changes that one instead.
    new_payment: bool = False
    #: Outcome of a dispute. If blank, an unresolved dispute is resolved for the buyer.
    outcome_code: str = ""

    def amount(self) -> Json:
        """Return the amount of a payment."""
        return money(self.value or _VALUE_DEFAULT, self.currency)


def event_type_of_subscription(status: str) -> str:
    """Return the type of the event that reports a subscription's status."""
    suffix = {"APPROVAL_PENDING": "CREATED", "APPROVED": "UPDATED", "ACTIVE": "ACTIVATED"}
    return f"BILLING.SUBSCRIPTION.{suffix.get(status, status)}"


def apply_event(sandbox: Sandbox, event_type: str, subject: Subject) -> EventContent:
    """Set the state that the event implies, and return the event's content.

    Raises: UnknownResource if the subject names an ID that no resource has; AmountRefused.
    """
    if subject.value and not is_amount(subject.value, subject.currency):
        raise AmountRefused(f"PayPal takes no amount of {subject.value} {subject.currency}")
    if event_type.startswith("BILLING.SUBSCRIPTION."):
        return _apply_subscription_event(sandbox, event_type, subject)
    if event_type.startswith("PAYMENT.CAPTURE."):
        return _apply_capture_event(sandbox, event_type, subject)
    if event_type.startswith("PAYMENT.SALE."):
        return _apply_sale_event(sandbox, event_type, subject)
    if event_type.startswith("CUSTOMER.DISPUTE."):
        return _apply_dispute_event(sandbox, event_type, subject)
    resource: Json = {"id": subject.resource_id or random_id(17)}
    if subject.organization_id:
        resource["custom_id"] = subject.organization_id
    return EventContent(event_type, event_type.split(".")[-2].lower(), resource)


def _apply_subscription_event(sandbox: Sandbox, event_type: str, subject: Subject) -> EventContent:
    suffix = event_type.removeprefix("BILLING.SUBSCRIPTION.")
    first = "APPROVAL_PENDING" if suffix == "CREATED" else "ACTIVE"
    subscription = find_subscription(sandbox, subject, first)
    if subject.keep_state:
        subscription = copy.deepcopy(subscription)
    if suffix in _IMPLIED:
        set_subscription_status(subscription, _IMPLIED[suffix], subject.create_time or None)
    elif suffix == "PAYMENT.FAILED":
        _fail_payment(subscription, subject)
    return EventContent(event_type, "subscription", subscription)


def _fail_payment(subscription: Json, subject: Subject) -> None:
    billing = subscription["billing_info"]
    amount = subject.amount()
    owed = Decimal(billing["outstanding_balance"]["value"]) + Decimal(amount["value"])
    billing["failed_payments_count"] += 1
    billing["outstanding_balance"] = money(f"{owed:f}", subject.currency)
    billing["last_failed_payment"] = {
        "amount": amount,
        "time": iso_seconds(),
        "reason_code": "PAYMENT_DENIED",
        "next_payment_retry_time": iso_seconds(datetime.now(UTC) + timedelta(days=5)),
    }


def _apply_capture_event(sandbox: Sandbox, event_type: str, subject: Subject) -> EventContent:
    suffix = event_type.removeprefix("PAYMENT.CAPTURE.")
    if suffix in ("REFUNDED", "REVERSED"):
        return EventContent(event_type, "refund", _find_refund(sandbox, subject))
    status = "DECLINED" if suffix in ("DECLINED", "DENIED") else suffix
    if subject.new_payment and not _is_known(sandbox, subject, status):
        capture = _add_capture(sandbox, subject, status)
    else:
        capture = _find_capture(sandbox, subject, status)
        if subject.new_payment and subject.value:
            raise AmountRefused("the event ends the pending payment, which has an amount")
    if subject.keep_state:
        capture = copy.deepcopy(capture)
    # A refunded capture keeps its status. A late event about the payment must not undo the refund.
    if capture["status"] in ("PENDING", "DECLINED", "COMPLETED") or subject.keep_state:
        sandbox.paypal.set_capture_status(capture, status)
    return EventContent(event_type, "capture", capture)


def _is_known(sandbox: Sandbox, subject: Subject, status: str) -> bool:
    """Return whether the event is about an existing payment.

    It is if the subject names an ID, or if the newest payment is pending and the event ends that.
    """
    if subject.resource_id:
        return True
    newest = sandbox.paypal.newest(sandbox.paypal.captures, subject.organization_id)
    return status != "PENDING" and newest is not None and newest["status"] == "PENDING"


def _find_refund(sandbox: Sandbox, subject: Subject) -> Json:
    state = sandbox.paypal
    if subject.resource_id in state.refunds:
        return state.refunds[subject.resource_id]
    capture = _find_capture(sandbox, subject, "COMPLETED")
    ours = [one for one in state.refunds.values() if capture_of(one) == capture["id"]]
    left = state.unrefunded_of(capture)
    if ours and (subject.keep_state or left <= 0):
        return ours[-1]
    value = subject.value or f"{left:f}"
    if subject.value and Decimal(value) > left and not subject.keep_state:
        raise AmountRefused(f"{value} cannot be refunded: {left:f} is left of the payment")
    if subject.keep_state:
        return build_refund(capture, value, value)
    return state.add_refund(capture, value)


def _apply_sale_event(sandbox: Sandbox, event_type: str, subject: Subject) -> EventContent:
    """Report a subscription's payment as a version 1 sale, PayPal's only format."""
    suffix = event_type.removeprefix("PAYMENT.SALE.")
    subscription = find_subscription(sandbox, subject, "ACTIVE")
    sale_id = random_id(17)
    now = iso_seconds()
    sign = "-" if suffix in ("REFUNDED", "REVERSED") else ""
    amount = subject.amount()
    sale: Json = {
        "id": sale_id,
        "billing_agreement_id": subscription["id"],
        "amount": {
            "total": f"{sign}{amount['value']}",
            "currency": amount["currency_code"],
            "details": {},
        },
        "payment_mode": "INSTANT_TRANSFER",
        "state": {"PENDING": "pending", "DENIED": "denied"}.get(suffix, "completed"),
        "create_time": now,
        "update_time": now,
        "links": [
            {
                "href": f"{LINKS_URL}/v1/payments/sale/{sale_id}",
                "rel": "self",
                "method": "GET",
            }
        ],
    }
    if suffix == "REFUNDED":
        sale["sale_id"] = random_id(17)
    if suffix == "COMPLETED" and not subject.keep_state:
        billing = subscription["billing_info"]
        billing["failed_payments_count"] = 0
        billing["outstanding_balance"] = money("0.00", subject.currency)
        billing["last_payment"] = {"amount": amount, "time": now}
        billing.pop("last_failed_payment", None)
        # PayPal's payments share their IDs, so the API shows a sale as a capture too.
        sandbox.paypal.add_capture(subscription.get("custom_id"), amount, "COMPLETED", sale_id)
    return EventContent(event_type, "sale", sale, resource_version="")


def _apply_dispute_event(sandbox: Sandbox, event_type: str, subject: Subject) -> EventContent:
    """Change a dispute as the event implies, and return the event's content.

    CREATED disputes the newest capture, unless that capture has an open dispute. UPDATED reopens
    the capture's resolved dispute. RESOLVED resolves the organization's newest open dispute.
    Without an outcome in the subject, a dispute is resolved for the buyer, and only once.
    """
    suffix = event_type.removeprefix("CUSTOMER.DISPUTE.")
    dispute = _find_dispute(sandbox, subject, suffix)
    if subject.keep_state:
        dispute = copy.deepcopy(dispute)
    if suffix == "RESOLVED" and (subject.outcome_code or dispute["status"] != "RESOLVED"):
        resolve_dispute(dispute, subject.outcome_code or "RESOLVED_BUYER_FAVOUR", None)
    elif suffix == "UPDATED" and dispute["status"] == "RESOLVED":
        reopen_dispute(dispute)
    return dispute_event(suffix, dispute)


def dispute_event(suffix: str, dispute: Json) -> EventContent:
    """Return the content of a dispute's event, which has a version 1 resource."""
    return EventContent(f"CUSTOMER.DISPUTE.{suffix}", "dispute", dispute, resource_version="")


def _find_dispute(sandbox: Sandbox, subject: Subject, suffix: str) -> Json:
    state = sandbox.paypal
    if subject.resource_id in state.disputes:
        return state.disputes[subject.resource_id]
    if suffix == "RESOLVED" and (found := newest_open(state, subject.organization_id)):
        return found
    capture = _find_capture(sandbox, subject, "COMPLETED")
    known = newest_dispute_of(state, capture["id"])
    anew = suffix == "CREATED" and not subject.keep_state
    if known is None or (anew and known["status"] == "RESOLVED"):
        return open_dispute(state, [capture["id"]], _disputed(subject, capture))
    return known


def _disputed(subject: Subject, capture: Json) -> Json:
    amount: Json = capture["amount"]
    if not subject.value:
        return amount
    if Decimal(subject.value) > Decimal(amount["value"]):
        raise AmountRefused(f"{subject.value} cannot be disputed: {amount['value']} was paid")
    return subject.amount()


def find_subscription(sandbox: Sandbox, subject: Subject, first_status: str) -> Json:
    """Return the subject's subscription, or create one for its organization.

    Raises: UnknownResource if the subject names an ID that no subscription has.
    """
    state = sandbox.paypal
    if subject.resource_id:
        found = state.subscriptions.get(subject.resource_id)
        if found is None:
            raise UnknownResource(subject.resource_id)
        return found
    return state.newest(state.subscriptions, subject.organization_id) or state.add_subscription(
        DEFAULT_PLAN, subject.organization_id, first_status
    )


def _find_capture(sandbox: Sandbox, subject: Subject, first_status: str) -> Json:
    state = sandbox.paypal
    if subject.resource_id:
        found = state.captures.get(subject.resource_id)
        if found is None:
            raise UnknownResource(subject.resource_id)
        return found
    newest = state.newest(state.captures, subject.organization_id)
    return newest or _add_capture(sandbox, subject, first_status)


def _add_capture(sandbox: Sandbox, subject: Subject, status: str) -> Json:
    return sandbox.paypal.add_capture(subject.organization_id, subject.amount(), status)
