"""What calls cost, how they are led, and whose they are: rates, terms and doors."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import FaultPolicy
from base.money import text_from_micros
from cli.commands.shared import (
    By,
    Failure,
    Json,
    Org,
    Why,
    act,
    clear_errors,
    me,
    micros_of,
    show,
    tell,
)
from domain import books
from domain.calls import doors as call_doors
from domain.calls import rates as call_rates
from domain.calls import terms as call_terms
from domain.calls.doors import DoorKind
from domain.calls.rates import DEFAULT_ROUTE, Rate

rates = typer.Typer(no_args_is_help=True, help="What a minute costs, by route.")
terms = typer.Typer(no_args_is_help=True, help="How an organization's calls are led.")
doors = typer.Typer(no_args_is_help=True, help="Whose a call is, by what it comes through.")

Route = Annotated[
    str, typer.Option(help="default, inbound, outbound, web, or such as outbound:+44.")
]


@rates.command("list")
def list_rates(organization_id: Org, as_json: Json = False) -> None:
    """List an organization's rates."""

    def read(session: Session, now: datetime) -> list[dict[str, Any]]:
        currency = books.balance(session, organization_id, now).currency
        return [
            {
                "route": row.route,
                "a minute": f"{text_from_micros(row.micros_per_minute, currency)} {currency}",
                "counted by": f"{row.increment_seconds} s",
                "at least": text_from_micros(row.minimum_micros, currency),
                "set by": row.set_by,
                "why": row.set_why,
                "at": row.set_at,
            }
            for row in call_rates.list_rates(session, organization_id)
        ]

    show(act(read), as_json, "rates")


@rates.command("set")
def set_rate(
    organization_id: Org,
    per_minute: Annotated[str, typer.Option(help="What a minute costs, as 0.12.")],
    why: Why,
    route: Route = DEFAULT_ROUTE,
    increment: Annotated[int, typer.Option(help="Seconds it is counted by.")] = 1,
    minimum: Annotated[str, typer.Option(help="The least that a call costs.")] = "0",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Set what a route's minute costs, for calls that begin from now on."""

    def work(session: Session, now: datetime) -> Rate:
        currency = books.balance(session, organization_id, now).currency
        rate = Rate(micros_of(per_minute, currency), increment, micros_of(minimum, currency))
        call_rates.set_rate(
            session, organization_id, rate, route=route, by=by or me(), why=why, now=now
        )
        return rate

    made = asdict(act(work))
    tell(f"{route}: {per_minute} a minute", {"route": route, **made}, as_json)


@rates.command("remove")
def remove_rate(
    organization_id: Org, route: str, why: Why, by: By = "", as_json: Json = False
) -> None:
    """Take a route's rate away; calls on it go by a shorter one, or are refused."""

    def work(session: Session, now: datetime) -> bool:
        return call_rates.remove_rate(
            session, organization_id, route, by=by or me(), why=why, now=now
        )

    _tell_removed(route, {"route": route, "removed": act(work)}, as_json)


@terms.command("show")
def show_terms(organization_id: Org, as_json: Json = False) -> None:
    """Show how an organization's calls are led; the house's defaults where nothing was set."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        books.balance(session, organization_id, now)
        return asdict(call_terms.terms_of(session, organization_id))

    show(act(read), as_json, "terms")


@terms.command("set")
def set_terms(
    organization_id: Org,
    why: Why,
    step_seconds: Annotated[int | None, typer.Option(help="What a hold covers at a time.")] = None,
    margin_seconds: Annotated[int | None, typer.Option(help="How early a call is ended.")] = None,
    warn_before_seconds: Annotated[
        int | None, typer.Option(help="How early it is told so once; 0 tells nobody.")
    ] = None,
    max_duration_seconds: Annotated[int | None, typer.Option(help="A call's longest time.")] = None,
    fail_open: Annotated[
        bool | None,
        typer.Option("--fail-open/--fail-closed", help="Let calls in without our database?"),
    ] = None,
    fail_open_seconds: Annotated[int | None, typer.Option(help="For how long then.")] = None,
    fault_policy: Annotated[
        FaultPolicy | None, typer.Option(help="What a call costs that Vapi's own fault ended.")
    ] = None,
    fault_waived_minutes: Annotated[
        int | None, typer.Option(help="At most so many minutes of such a call are free.")
    ] = None,
    refusal_text: Annotated[str | None, typer.Option(help="Said to who is refused.")] = None,
    warning_text: Annotated[str | None, typer.Option(help="Said before credit ends.")] = None,
    ending_text: Annotated[str | None, typer.Option(help="Said when a call is ended.")] = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Change how an organization's calls are led; what is not named stays as it is."""
    given = {
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
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    if not changes:
        with clear_errors():
            raise Failure("name at least one term to change")
    act(
        lambda session, now: call_terms.change_terms(
            session, organization_id, changes, by=by or me(), why=why, now=now
        )
    )
    tell(f"changed: {', '.join(changes)}", {"changed": changes}, as_json)


@doors.command("list")
def list_doors(organization_id: Org, as_json: Json = False) -> None:
    """List the assistants, numbers and campaigns whose calls are an organization's."""

    def read(session: Session, now: datetime) -> list[dict[str, Any]]:
        return [
            {
                "kind": row.kind,
                "id": row.external_id,
                "answered by": row.assistant_id,
                "brand": row.brand_id,
                "since": row.created_at,
            }
            for row in call_doors.list_doors(session, organization_id)
        ]

    show(act(read), as_json, "doors")


@doors.command("add")
def add_door(
    organization_id: Org,
    kind: DoorKind,
    external_id: Annotated[str, typer.Argument(help="Vapi's id, or a number as +15005550001.")],
    why: Why,
    assistant: Annotated[str | None, typer.Option(help="Who answers calls that come in.")] = None,
    brand: Annotated[str | None, typer.Option(help="Whose subaccount carries them.")] = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Say that calls by an assistant, a number or a campaign are an organization's."""
    act(
        lambda session, now: call_doors.add_door(
            session,
            organization_id,
            kind,
            external_id,
            assistant_id=assistant,
            brand_id=brand,
            by=by or me(),
            why=why,
            now=now,
        )
    )
    tell(
        f"{kind} {external_id}: calls by it are {organization_id}'s",
        {"kind": kind, "id": external_id, "organization": organization_id},
        as_json,
    )


@doors.command("remove")
def remove_door(
    kind: DoorKind, external_id: str, why: Why, by: By = "", as_json: Json = False
) -> None:
    """Close a door: calls by it are nobody's from now on, and refused."""

    def work(session: Session, now: datetime) -> bool:
        return call_doors.remove_door(session, kind, external_id, by=by or me(), why=why, now=now)

    done = {"kind": kind, "id": external_id, "removed": act(work)}
    _tell_removed(f"{kind} {external_id}", done, as_json)


def _tell_removed(what: str, done: dict[str, Any], as_json: bool) -> None:
    tell(f"{what}: {'removed' if done['removed'] else 'there was none'}", done, as_json)
