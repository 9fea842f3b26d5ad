"""List, show, end and settle calls, and sum their costs."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import CallStatus
from base.money import text_from_micros
from cli.commands import call_setup
from cli.commands.shared import console, in_transaction, me, print_result, show, utc
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Why
from db.models import WalletEntry
from db.models.calls import Call
from domain.calls import ending as endings
from domain.calls import queries as call_queries
from domain.calls import settlement
from domain.calls.queries import CallSeen
from domain.calls.rows import CallNotFound, end_code, shown_status

app = typer.Typer(no_args_is_help=True, help="List, show, end and settle calls; sum their costs.")
app.add_typer(call_setup.rates, name="rate")
app.add_typer(call_setup.terms, name="terms")
app.add_typer(call_setup.entry_points, name="door")

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
    unsettled: Annotated[bool, typer.Option(help="Only calls that are not settled.")] = False,
    since: Annotated[datetime | None, typer.Option(help="Only calls since then (UTC).")] = None,
    after: Annotated[str | None, typer.Option(help="Cursor from the previous page.")] = None,
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
            live=not (ended or unsettled or status in (CallStatus.ENDED, CallStatus.REFUSED)),
            refused_since=now - timedelta(hours=1),
            status=status,
            unsettled=unsettled,
            since=utc(since),
            after=after,
            limit=limit,
        )
        cursor = call_queries.cursor_of(page[-1]) if len(page) == limit else None
        return [_line(call, now) for call in page], cursor

    rows, cursor = in_transaction(read)
    if as_json:
        show({"calls": rows, "after": cursor}, True)
        return
    show(rows, False, "calls")
    if cursor:
        console.print(f"more: --after {cursor}")


@app.command("show")
def show_call(call_id: CallId, org: OfOrg = None, as_json: Json = False) -> None:
    """Show a call: its hold, ledger entries, timeline, and how fast it was ended."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        call = call_queries.find_call(session, call_id, org)
        if call is None:
            raise CallNotFound(call_id)
        seen = call_queries.see_call(session, call)
        return {
            **_described(seen, now),
            "entries": [_entry(row, call.currency) for row in seen.entries],
            "timeline": [
                {"at": one.at, "what": one.what, "detail": one.detail} for one in seen.timeline
            ],
        }

    found = in_transaction(read)
    if as_json:
        show(found, True)
        return
    entries, timeline = found.pop("entries"), found.pop("timeline")
    show(found, False)
    show(entries, False, "entries")
    show(timeline, False, "timeline")


@app.command("end")
def end_call(
    call_id: CallId, why: Why, org: OfOrg = None, by: By = "", as_json: Json = False
) -> None:
    """Order the end of a call. It counts as over when its provider reports the end."""

    def work(session: Session, now: datetime) -> dict[str, Any]:
        call = _meant(session, call_id, org)
        ending = endings.end_manually(
            session, call.organization_id, call.id, operator=by or me(), why=why, now=now
        )
        return {"call": call.id, "organization": call.organization_id, "ending": ending}

    done = in_transaction(work)
    state = "is being ended" if done["ending"] else "was already ending or over; nothing changed"
    print_result(f"{done['call']}: {state}", done, as_json)


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
    with clear_errors():
        duration_ms = _milliseconds_of(seconds)

    def work(session: Session, now: datetime) -> dict[str, Any]:
        call = _meant(session, call_id, org)
        settlement.settle_manually(
            session,
            call.organization_id,
            call.id,
            duration_ms=duration_ms,
            operator=by or me(),
            why=why,
            now=now,
        )
        return {
            "call": call.id,
            "organization": call.organization_id,
            "duration_ms": duration_ms,
            "cost": _money(call.cost_micros, call.currency),
        }

    done = in_transaction(work)
    print_result(f"{done['call']}: charged {done['cost']}", done, as_json)


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
                "day": str(one.day),
                "organization": one.organization_id,
                "calls": one.calls,
                "seconds": one.seconds,
                "cost": f"{text_from_micros(one.cost_micros, one.currency)} {one.currency}",
                "vapi": f"{text_from_micros(one.provider_cost_micros, 'USD')} USD",
            }
            for one in days
        ]

    show(in_transaction(read), as_json, "costs of calls")


def _meant(session: Session, call_id: str, org: str | None) -> Call:
    """Return the call that a command changes; refuse an id that several calls have."""
    call = call_queries.find_call(session, call_id, org, alone=True)
    if call is None:
        raise CallNotFound(call_id)
    return call


def _line(call: Call, now: datetime) -> dict[str, Any]:
    began = call.metered_from
    talked = call.duration_ms / 1000 if call.duration_ms is not None else None
    if talked is None and began is not None and call.ended_seen_at is None:
        talked = int((now - began).total_seconds())
    return {
        "call": call.id,
        "organization": call.organization_id,
        "direction": call.direction,
        "with": call.their_party,
        "status": _status(call),
        "seconds": talked,
        "cost": _money(call.cost_micros, call.currency),
        "let in": call.created_at,
    }


def _status(call: Call) -> str:
    status = shown_status(call)
    if status == CallStatus.REFUSED:
        return f"{status}, {call.refusal}"
    return f"{status}, ending" if _is_ending(call) else status


def _is_ending(call: Call) -> bool:
    return call.end_decided_at is not None and call.ended_seen_at is None


def _described(seen: CallSeen, now: datetime) -> dict[str, Any]:
    call, hold = seen.call, seen.hold
    told_ms, over_ms = call_queries.ending_ms(call)
    return {
        **_line(call, now),
        "vapi": call.provider_call_id,
        "also": ", ".join(seen.merged) or None,
        "withheld for": None if call.settled_at else call.withheld_for,
        "twilio": call.twilio_call_sid,
        "appointment": call.appointment_id,
        "our number": call.our_party,
        "rate": f"{text_from_micros(call.micros_per_minute, call.currency)} {call.currency} a"
        f" minute, by {call.increment_seconds} s,"
        f" at least {text_from_micros(call.minimum_micros, call.currency)}",
        "route": call.rate_route,
        "campaign": call.campaign_id,
        "capped at": f"{call.max_duration_seconds} s" if call.max_duration_seconds else None,
        "hold": None
        if hold is None
        else f"{hold.status}, {text_from_micros(hold.reserved_micros, call.currency)}",
        "owed": None if hold is None else _money(hold.shortfall_micros, call.currency),
        "ended for": call.ended_reason,
        "we refused it for": call.refusal,
        "we ended it for": end_code(call),
        "decided at": call.end_decided_at,
        "told after": None if told_ms is None else f"{told_ms} ms",
        "over after": None if over_ms is None else f"{over_ms} ms",
        "duration": None if call.duration_ms is None else f"{call.duration_ms} ms",
        "settled by": call.settled_by,
        "odd": ", ".join(call.oddities) or None,
        "fail open": call.fail_open,
    }


def _entry(row: WalletEntry, currency: str) -> dict[str, Any]:
    return {
        "no": row.entry_no,
        "kind": row.kind,
        "amount": text_from_micros(row.amount_micros, currency),
        "balance": text_from_micros(row.balance_after_micros, currency),
    }


def _money(micros: int | None, currency: str) -> str | None:
    return None if micros is None else f"{text_from_micros(micros, currency)} {currency}"


def _milliseconds_of(seconds: str) -> int:
    try:
        given = Decimal(seconds)
        return int((given * 1000).to_integral_value(ROUND_HALF_UP))
    except (InvalidOperation, ValueError, OverflowError):
        raise Failure(f"--seconds must be a number such as 83.5, not {seconds!r}") from None
