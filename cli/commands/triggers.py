"""Commands that make the sandbox act like a provider or a caller."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import httpx
import typer
from sqlalchemy.orm import Session

from base.settings import load_settings
from cli.commands.output import show
from cli.commands.shared import in_transaction, micros_of
from cli.errors import Failure, clear_errors
from cli.options import Json
from domain.organization_queries import require_organization
from domain.wallet import queries
from local.sandbox import sandbox_info
from local.stack import state_folder
from providers.paypal.amounts import paypal_from_micros

app = typer.Typer(no_args_is_help=True, help="Make the sandbox send webhooks and place calls.")

_DISPUTE_CREATED = "CUSTOMER.DISPUTE.CREATED"
_DISPUTE_RESOLVED = "CUSTOMER.DISPUTE.RESOLVED"
#: Events that Holdfast acts on and the sandbox can send.
PAYPAL_EVENTS = (
    "BILLING.SUBSCRIPTION.CREATED",
    "BILLING.SUBSCRIPTION.ACTIVATED",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED",
    "BILLING.SUBSCRIPTION.UPDATED",
    "BILLING.SUBSCRIPTION.SUSPENDED",
    "BILLING.SUBSCRIPTION.CANCELLED",
    "BILLING.SUBSCRIPTION.EXPIRED",
    "BILLING.SUBSCRIPTION.PAYMENT.FAILED",
    "PAYMENT.SALE.COMPLETED",
    "PAYMENT.CAPTURE.COMPLETED",
    "PAYMENT.CAPTURE.PENDING",
    "PAYMENT.CAPTURE.DENIED",
    "PAYMENT.CAPTURE.DECLINED",
    "PAYMENT.CAPTURE.REFUNDED",
    "PAYMENT.CAPTURE.REVERSED",
    _DISPUTE_CREATED,
    "CUSTOMER.DISPUTE.UPDATED",
    _DISPUTE_RESOLVED,
)
#: Prefixes of the events that have an amount.
_AMOUNT_EVENT_PREFIXES = ("PAYMENT.", _DISPUTE_CREATED, "BILLING.SUBSCRIPTION.PAYMENT.")
#: The sandbox's error for an unknown number.
_NO_NUMBER_ERROR = "no such number"


class Outcome(StrEnum):
    """Who wins a dispute: the company (won) or the buyer (lost)."""

    WON = "won"
    LOST = "lost"


_OUTCOME_CODES = {Outcome.WON: "RESOLVED_SELLER_FAVOUR", Outcome.LOST: "RESOLVED_BUYER_FAVOUR"}


@app.command()
def paypal(
    event: Annotated[str, typer.Argument(help=f"One of: {', '.join(PAYPAL_EVENTS)}.")],
    organization: Annotated[str, typer.Option("--org", help="The organization's id.")],
    copies: Annotated[int, typer.Option(min=1, max=50, help="Copies to send at once.")] = 1,
    amount: Annotated[
        str,
        typer.Option(
            help="Amount in the wallet's currency, such as 12.50.",
            show_default="49.00 for a payment, and the rest of it for a refund or a dispute",
        ),
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Repeat the newest payment instead of making one.")
    ] = False,
    outcome: Annotated[
        Outcome | None,
        typer.Option(help=f"Who wins the dispute, for {_DISPUTE_RESOLVED}.", show_default="lost"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the sandbox's PayPal send a signed webhook about an organization.

    PAYMENT.CAPTURE.COMPLETED, PENDING, DENIED and DECLINED each make a new payment, unless the
    newest payment is pending: then they end that payment. Refunds and CUSTOMER.DISPUTE.CREATED
    concern the newest payment, CUSTOMER.DISPUTE.RESOLVED the newest open dispute.
    """
    with clear_errors():
        _check_options(event, amount, outcome, again=again)
        _sandbox_info()
    currency = in_transaction(lambda session, now: _currency_of(session, organization, now))
    order: dict[str, Any] = {
        "event_type": event,
        "organization_id": organization,
        "currency": currency,
        "copies": copies,
        "new_payment": not again,
    }
    if amount:
        with clear_errors():
            order["value"] = _paypal_amount(amount, currency)
    if outcome is not None:
        order["outcome_code"] = _OUTCOME_CODES[outcome]
    deliveries = _post_control("/paypal/events", order)
    rows = [
        {
            "event_id": delivery["event_id"],
            "http_status": delivery["status_code"],
            "answer": _shorten_answer(delivery["body"]),
        }
        for delivery in deliveries
    ]
    show(rows, as_json, event)


@app.command()
def vapi(
    number: Annotated[str, typer.Argument(help="A number's id, as vapi-number prints it.")],
    talk: Annotated[float | None, typer.Option(help="Talk seconds; default: until ended.")] = None,
    deaf: Annotated[bool, typer.Option(help="The call ignores orders to end.")] = False,
    as_json: Json = False,
) -> None:
    """Place a call to a number at the sandbox's Vapi (vapi-number makes a number)."""
    order = {
        "direction": "inbound",
        "number_id": number,
        "talk_seconds": talk,
        "behaviour": {"deaf": deaf},
    }
    call = _post_control("/vapi/calls", order)
    show({"provider_call_id": call["id"], "status": call["status"]}, as_json)


@app.command("vapi-number")
def vapi_number(
    number: Annotated[str, typer.Argument(help="Such as +15005550123.")],
    subaccount: Annotated[str, typer.Option(help="Subaccount that carries its calls.")] = "",
    as_json: Json = False,
) -> None:
    """Add a number and an assistant to the sandbox's Vapi, for `call entry-point add`."""
    assistant = _post_control("/vapi/assistants", {"name": number})
    phone_number = _post_control("/vapi/numbers", {"number": number, "twilio_sid": subaccount})
    show({"phone_number_id": phone_number["id"], "assistant_id": assistant["id"]}, as_json)


def _check_options(event: str, amount: str, outcome: Outcome | None, *, again: bool) -> None:
    if event not in PAYPAL_EVENTS:
        raise Failure(f"unknown event {event!r}; there are {', '.join(PAYPAL_EVENTS)}")
    if outcome is not None and event != _DISPUTE_RESOLVED:
        raise Failure(f"--outcome is for {_DISPUTE_RESOLVED} only")
    if amount and not event.startswith(_AMOUNT_EVENT_PREFIXES):
        raise Failure("--amount is for payments, refunds and new disputes only")
    if amount and again:
        raise Failure("--again repeats a payment with its amount; leave out --amount")


def _currency_of(session: Session, organization_id: str, now: datetime) -> str:
    """Return the wallet's currency. Raises: OrganizationNotFound."""
    require_organization(session, organization_id)
    return queries.balance(session, organization_id, now).currency


def _paypal_amount(amount: str, currency: str) -> str:
    """Return the amount as PayPal writes it. Raises: InvalidAmount; Failure."""
    micros = micros_of(amount, currency)
    if micros <= 0:
        raise Failure(f"--amount must be more than zero, and is {amount}")
    return paypal_from_micros(micros, currency)


def _sandbox_info() -> dict[str, Any]:
    return sandbox_info(state_folder(load_settings()))


def _post_control(path: str, order: dict[str, Any]) -> Any:
    with clear_errors():
        answer = httpx.post(
            f"{_sandbox_info()['base_url']}/_control{path}", json=order, timeout=30, trust_env=False
        )
        if answer.status_code >= 400:
            raise Failure(f"the sandbox refuses: {_refusal_reason(answer)}")
        return answer.json()


def _refusal_reason(answer: httpx.Response) -> str:
    """Describe in one line why the sandbox refused, and what to do if that is known."""
    try:
        problem = answer.json()
        fields = [f"{field['field']}: {field['why']}" for field in problem.get("fields", [])]
        reason = "; ".join([problem["error"], *fields])
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer.text
    if reason == _NO_NUMBER_ERROR:
        return f"{reason}; `trigger vapi-number +15005550123` makes one and prints its id"
    return str(reason)


def _shorten_answer(body: str) -> str:
    """Shorten the ingress's answer to its verdict or title; keep other answers."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body
    return str(answer.get("verdict") or answer.get("title") or body)
