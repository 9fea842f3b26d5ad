"""Set up an organization's rates, call terms and entry points."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import FaultPolicy
from cli.commands.output import print_result, show, show_page
from cli.commands.shared import acting_operator, in_transaction, micros_of
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, Why
from domain.calls import entry_points as call_entry_points
from domain.calls import rates as call_rates
from domain.calls import settings as call_settings
from domain.calls import setup_queries
from domain.calls.entry_points import EntryPointKind
from domain.calls.rates import DEFAULT_ROUTE, Rate
from domain.wallet import queries as wallet_queries

rates = typer.Typer(no_args_is_help=True, help="Prices per minute, by route.")
terms = typer.Typer(no_args_is_help=True, help="Limits, texts and fault policy of calls.")
entry_points = typer.Typer(
    no_args_is_help=True, help="Entry points that lead calls to organizations."
)

Route = Annotated[
    str, typer.Option(help="default, inbound, outbound, web, or a prefix such as outbound:+44.")
]


@rates.command("list")
def list_rates(organization_id: Org, as_json: Json = False) -> None:
    """List an organization's rates."""
    rows = in_transaction(lambda session, _: setup_queries.list_rates(session, organization_id))
    show([asdict(rate) for rate in rows], as_json, "rates")


@rates.command("set")
def set_rate(
    organization_id: Org,
    per_minute: Annotated[str, typer.Option(help="Price per minute, such as 0.12.")],
    why: Why,
    route: Route = DEFAULT_ROUTE,
    increment: Annotated[int, typer.Option(help="Billing increment: 1, 6, 30 or 60 seconds.")] = 1,
    minimum: Annotated[str, typer.Option(help="Minimum price of a call.")] = "0",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Set a route's price per minute, for calls that begin from now on."""
    operator = acting_operator(by, why)

    def work(session: Session, now: datetime) -> dict[str, Any]:
        currency = wallet_queries.currency_of(session, organization_id)
        rate = Rate(micros_of(per_minute, currency), increment, micros_of(minimum, currency))
        call_rates.set_rate(session, organization_id, rate, route=route, operator=operator, now=now)
        return _rate_fields(rate, currency)

    result = {"organization_id": organization_id, "action": "set_rate", "route": route}
    result |= in_transaction(work)
    print_result(f"{route}: {per_minute} a minute", result, as_json)


@rates.command("remove")
def remove_rate(
    organization_id: Org, route: str, why: Why, by: By = "", as_json: Json = False
) -> None:
    """Remove a route's rate. Its calls use a less specific route, or are refused."""
    operator = acting_operator(by, why)

    def work(session: Session, now: datetime) -> bool:
        return call_rates.remove_rate(session, organization_id, route, operator=operator, now=now)

    result = {
        "organization_id": organization_id,
        "action": "remove_rate",
        "route": route,
        "changed": in_transaction(work),
    }
    _print_removed(route, result, as_json)


@terms.command("show")
def show_terms(organization_id: Org, as_json: Json = False) -> None:
    """Show an organization's call terms, or the defaults if none were set."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        wallet_queries.balance(session, organization_id, now)
        terms = asdict(call_settings.terms_of(session, organization_id))
        return {"organization_id": organization_id, **terms}

    show(in_transaction(read), as_json, "terms")


@terms.command("set")
def set_terms(
    organization_id: Org,
    why: Why,
    step_seconds: Annotated[int | None, typer.Option(help="Seconds of talk per hold step.")] = None,
    margin_seconds: Annotated[
        int | None, typer.Option(help="End a call this many seconds before its hold is used up.")
    ] = None,
    warn_before_seconds: Annotated[
        int | None, typer.Option(help="Warn once, this many seconds before the end; 0: never.")
    ] = None,
    max_duration_seconds: Annotated[
        int | None, typer.Option(help="Longest duration of a call, in seconds.")
    ] = None,
    fail_open: Annotated[
        bool | None,
        typer.Option("--fail-open/--fail-closed", help="Admit calls while our database is away."),
    ] = None,
    fail_open_seconds: Annotated[
        int | None, typer.Option(help="Longest duration of a call admitted by --fail-open.")
    ] = None,
    fault_policy: Annotated[
        FaultPolicy | None, typer.Option(help="Waive or charge calls that Vapi's own fault ended.")
    ] = None,
    fault_waived_minutes: Annotated[
        int | None, typer.Option(help="Waive at most this many minutes of such a call.")
    ] = None,
    refusal_text: Annotated[str | None, typer.Option(help="Spoken to a refused caller.")] = None,
    warning_text: Annotated[str | None, typer.Option(help="Spoken before credit ends.")] = None,
    ending_text: Annotated[str | None, typer.Option(help="Spoken when a call is ended.")] = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Change an organization's call terms. Options that are not given stay unchanged."""
    operator = acting_operator(by, why)
    options = {
        "step_seconds": step_seconds,
        "margin_seconds": margin_seconds,
        "warn_before_seconds": warn_before_seconds,
        "max_duration_seconds": max_duration_seconds,
        "fail_open": fail_open,
        "fail_open_seconds": fail_open_seconds,
        "fault_policy": fault_policy,
        "fault_waived_minutes": fault_waived_minutes,
        "refusal_text": refusal_text,
        "warning_text": warning_text,
        "ending_text": ending_text,
    }
    changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}

    if not changes:
        with clear_errors():
            raise Failure("name at least one term to change")
    in_transaction(
        lambda session, now: call_settings.change_terms(
            session, organization_id, changes, operator=operator, now=now
        )
    )
    result = {"organization_id": organization_id, "action": "set_terms", "terms": changes}
    print_result(f"changed: {', '.join(changes)}", result, as_json)


@entry_points.command("list")
def list_entry_points(
    organization_id: Org,
    after: Annotated[str | None, typer.Option(help="KIND/ID of a page's last entry point.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=setup_queries.PAGE_MAX, help="Rows a page.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List an organization's entry points: numbers, assistants and campaigns."""
    kind, _, external_id = (after or "").partition("/")
    page = in_transaction(
        lambda session, _: setup_queries.list_entry_points(
            session,
            organization_id,
            after=(kind, external_id) if after else None,
            limit=limit,
        )
    )
    cursor = f"{page[-1].kind}/{page[-1].external_id}" if len(page) == limit else None
    show_page([asdict(entry_point) for entry_point in page], cursor, as_json, "entry points")


@entry_points.command("add")
def add_entry_point(
    organization_id: Org,
    kind: EntryPointKind,
    external_id: Annotated[str, typer.Argument(help="Vapi's id, or a number as +15005550001.")],
    why: Why,
    assistant: Annotated[str | None, typer.Option(help="Assistant for inbound calls.")] = None,
    brand: Annotated[str | None, typer.Option(help="Brand whose subaccount carries calls.")] = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Assign a number, assistant or campaign to an organization as its entry point."""
    operator = acting_operator(by, why)
    in_transaction(
        lambda session, now: call_entry_points.add_entry_point(
            session,
            organization_id,
            kind,
            external_id,
            assistant_id=assistant,
            brand_id=brand,
            operator=operator,
            now=now,
        )
    )
    print_result(
        f"{kind} {external_id} leads to {organization_id}",
        {
            "kind": kind,
            "external_id": external_id,
            "organization_id": organization_id,
            "assistant_id": assistant,
            "brand_id": brand,
            "action": "add_entry_point",
        },
        as_json,
    )


@entry_points.command("remove")
def remove_entry_point(
    kind: EntryPointKind, external_id: str, why: Why, by: By = "", as_json: Json = False
) -> None:
    """Remove an entry point. Its calls belong to no organization and are refused."""
    operator = acting_operator(by, why)

    def work(session: Session, now: datetime) -> bool:
        return call_entry_points.remove_entry_point(
            session, kind, external_id, operator=operator, now=now
        )

    result = {
        "kind": kind,
        "external_id": external_id,
        "action": "remove_entry_point",
        "changed": in_transaction(work),
    }
    _print_removed(f"{kind} {external_id}", result, as_json)


def _rate_fields(rate: Rate, currency: str) -> dict[str, Any]:
    return {
        "per_minute_micros": rate.micros_per_minute,
        "increment_seconds": rate.increment_seconds,
        "minimum_micros": rate.minimum_micros,
        "currency": currency,
    }


def _print_removed(subject: str, result: dict[str, Any], as_json: bool) -> None:
    print_result(
        f"{subject}: {'removed' if result['changed'] else 'not found; nothing changed'}",
        result,
        as_json,
    )
