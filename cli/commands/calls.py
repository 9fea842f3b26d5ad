"""List, show, end and settle calls, and sum their costs."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import CallBillingState, CallStatus
from base.money import text_from_micros
from cli.commands import call_setup
from cli.commands.output import print_result, show, show_page
from cli.commands.shared import acting_operator, in_transaction, utc
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Why
from db.models import WalletEntry
from db.models.calls import Call
from domain.calls import ending as endings
from domain.calls import queries as call_queries
from domain.calls import settlement
from domain.calls.billing import STATES, billing_state, shown_status, withheld_for
from domain.calls.queries import CallDetails
from domain.calls.rows import CallNotFound, end_code

app = typer.Typer(no_args_is_help=True, help="List, show, end and settle calls; sum their costs.")
app.add_typer(call_setup.rates, name="rate")
app.add_typer(call_setup.terms, name="terms")
app.add_typer(call_setup.entry_points, name="entry-point")
# The group's former name. Scripts may still use it.
app.add_typer(call_setup.entry_points, name="door", hidden=True)

#: Vapi bills in US dollars.
_PROVIDER_CURRENCY = "USD"
#: Columns of `call list`'s table.
_LIST_COLUMNS = (
    *("call_id", "organization_id", "direction", "their_number", "status", "billing_state"),
    *("refusal", "duration_ms", "cost_micros", "admitted_at"),
)

CallId = Annotated[str, typer.Argument(help="A call id (ours, Vapi's, Twilio's) or appointment.")]
OfOrg = Annotated[str | None, typer.Option("--org", help="Only this organization's calls.")]


@app.command("list")
def list_calls(
    org: OfOrg = None,
    ended: Annotated[
        bool, typer.Option("--all", help="Include calls that are over. Requires --org or --since.")
    ] = False,
    status: Annotated[
        CallStatus | None,
        typer.Option(help="Only this status. ended and refused require --org or --since."),
    ] = None,
    state: Annotated[
        CallBillingState | None,
        typer.Option(help="Only this billing state. Settled calls require --org or --since."),
    ] = None,
    unsettled: Annotated[bool, typer.Option(help="Only calls that are not settled.")] = False,
    since: Annotated[
        datetime | None, typer.Option(help="Only calls since this instant (UTC).")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="ORGANIZATION/CALL of a page's last row.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=call_queries.PAGE_MAX, help="Rows per page.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List live calls and those refused in the last hour, newest first."""

    def read(session: Session, now: datetime) -> tuple[list[dict[str, Any]], str | None]:
        page = call_queries.list_calls(
            session,
            organization_id=org,
            live=not (
                ended or unsettled or state or status in (CallStatus.ENDED, CallStatus.REFUSED)
            ),
            refused_since=now - timedelta(hours=1),
            status=status,
            state=state,
            unsettled=unsettled,
            since=utc(since),
            after=after,
            limit=limit,
        )
        cursor = call_queries.cursor_of(page[-1]) if len(page) == limit else None
        return [_call_row(call, now) for call in page], cursor

    rows, cursor = in_transaction(read)
    show_page(rows, cursor, as_json, "calls", columns=_LIST_COLUMNS)


@app.command("show")
def show_call(call_id: CallId, org: OfOrg = None, as_json: Json = False) -> None:
    """Show a call: its hold, ledger entries, timeline, and how fast it was ended."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        call = call_queries.find_call(session, call_id, org)
        if call is None:
            raise CallNotFound(call_id)
        view = call_queries.read_call_details(session, call)
        return {
            **_call_details(view, now),
            "entries": [_entry_row(row, call.currency) for row in view.entries],
            "timeline": [
                {"at": step.at, "event": step.what, "detail": step.detail or None}
                for step in view.timeline
            ],
        }

    show(in_transaction(read), as_json)


@app.command("end")
def end_call(
    call_id: CallId, why: Why, org: OfOrg = None, by: By = "", as_json: Json = False
) -> None:
    """Order the end of a call. It counts as over when its provider reports the end."""
    operator = acting_operator(by, why)

    def order_end(session: Session, now: datetime) -> dict[str, Any]:
        call = _find_only_call(session, call_id, org)
        ending = endings.end_manually(
            session, call.organization_id, call.id, operator=operator, now=now
        )
        return {
            "call_id": call.id,
            "organization_id": call.organization_id,
            "action": "end",
            "changed": ending,
        }

    result = in_transaction(order_end)
    state = "is being ended" if result["changed"] else "was already ending or over; nothing changed"
    print_result(f"{result['call_id']}: {state}", result, as_json)


@app.command("settle")
def settle_call(
    call_id: CallId,
    seconds: Annotated[str, typer.Option("--seconds", help="Seconds talked, such as 83.5.")],
    why: Why,
    org: OfOrg = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Charge a call whose cost cannot be determined, and treat the call as over."""
    operator = acting_operator(by, why)
    with clear_errors():
        duration_ms = _milliseconds_of(seconds)

    def settle(session: Session, now: datetime) -> dict[str, Any]:
        call = _find_only_call(session, call_id, org)
        settlement.settle_manually(
            session,
            call.organization_id,
            call.id,
            duration_ms=duration_ms,
            operator=operator,
            now=now,
        )
        return {
            "call_id": call.id,
            "organization_id": call.organization_id,
            "action": "settle",
            "duration_ms": duration_ms,
            "cost_micros": call.cost_micros,
            "currency": call.currency,
        }

    result = in_transaction(settle)
    cost = text_from_micros(result["cost_micros"] or 0, result["currency"])
    print_result(f"{result['call_id']}: charged {cost} {result['currency']}", result, as_json)


@app.command("costs")
def costs(
    org: OfOrg = None,
    first: Annotated[datetime | None, typer.Option("--from", help="First day (UTC).")] = None,
    last: Annotated[datetime | None, typer.Option("--to", help="Last day (UTC).")] = None,
    as_json: Json = False,
) -> None:
    """Sum the cost of settled calls by organization and day (default: last 30 days)."""

    def read(session: Session, now: datetime) -> list[dict[str, Any]]:
        until: date = last.date() if last else now.date()
        since: date = first.date() if first else until - timedelta(days=29)
        if not 0 <= (until - since).days < call_queries.DAYS_MAX:
            raise Failure(f"--from must not be after --to; at most {call_queries.DAYS_MAX} days")
        days = call_queries.costs_by_day(
            session, organization_id=org, first_day=since, last_day=until
        )
        return [
            {
                "day": costs_of_day.day,
                "organization_id": costs_of_day.organization_id,
                "calls": costs_of_day.calls,
                "duration_seconds": costs_of_day.seconds,
                "cost_micros": costs_of_day.cost_micros,
                "currency": costs_of_day.currency,
                "provider_cost_micros": costs_of_day.provider_cost_micros,
                "provider_cost_currency": _PROVIDER_CURRENCY,
            }
            for costs_of_day in days
        ]

    show(in_transaction(read), as_json, "costs of calls")


def _find_only_call(session: Session, call_id: str, org: str | None) -> Call:
    """Find the call that a command changes. Refuse an id that several calls have."""
    call = call_queries.find_call(session, call_id, org, alone=True)
    if call is None:
        raise CallNotFound(call_id)
    return call


def _call_row(call: Call, now: datetime) -> dict[str, Any]:
    began = call.metered_from
    duration_ms = call.duration_ms
    if duration_ms is None and began is not None and call.ended_seen_at is None:
        duration_ms = (now - began) // timedelta(milliseconds=1)
    return {
        "call_id": call.id,
        "organization_id": call.organization_id,
        "direction": call.direction,
        "their_number": call.their_party,
        "status": shown_status(call),
        "billing_state": billing_state(call),
        "refusal": call.refusal,
        "is_ending": call.end_decided_at is not None and call.ended_seen_at is None,
        "duration_ms": duration_ms,
        "cost_micros": call.cost_micros,
        "currency": call.currency,
        "admitted_at": call.created_at,
    }


def _call_details(view: CallDetails, now: datetime) -> dict[str, Any]:
    call, hold = view.call, view.hold
    ordered_ms, ended_ms = call_queries.ending_ms(call)
    return {
        **_call_row(call, now),
        "billing_meaning": STATES[billing_state(call)].money,
        "provider_call_id": call.provider_call_id,
        "twilio_call_sid": call.twilio_call_sid,
        "appointment_id": call.appointment_id,
        "campaign_id": call.campaign_id,
        "merged_ids": view.merged,
        "withheld_for_id": withheld_for(call),
        "our_number": call.our_party,
        "route": call.rate_route,
        "per_minute_micros": call.micros_per_minute,
        "increment_seconds": call.increment_seconds,
        "minimum_micros": call.minimum_micros,
        "max_duration_seconds": call.max_duration_seconds or None,
        "hold_status": hold and hold.status,
        "reserved_micros": hold and hold.reserved_micros,
        "shortfall_micros": hold and hold.shortfall_micros,
        "ended_reason": call.ended_reason,
        "end_cause": end_code(call),
        "end_decided_at": call.end_decided_at,
        "ordered_after_ms": ordered_ms,
        "ended_after_ms": ended_ms,
        "settled_by": call.settled_by,
        "settled_at": call.settled_at,
        "anomalies": list(call.oddities),
        "fail_open": call.fail_open,
    }


def _entry_row(row: WalletEntry, currency: str) -> dict[str, Any]:
    return {
        "entry_no": row.entry_no,
        "kind": row.kind,
        "direction": row.direction,
        "amount_micros": row.amount_micros,
        "balance_after_micros": row.balance_after_micros,
        "currency": currency,
    }


def _milliseconds_of(seconds: str) -> int:
    try:
        number = Decimal(seconds)
        return int((number * 1000).to_integral_value(ROUND_HALF_UP))
    except (InvalidOperation, ValueError, OverflowError):
        raise Failure(f"--seconds must be a number such as 83.5, not {seconds!r}") from None
