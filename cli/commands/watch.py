"""Show and change low-balance thresholds, automatic top-up and alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import Provider
from cli.commands.output import show
from cli.commands.shared import acting_operator, in_transaction, micros_of
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, Why
from db.models import Alert, TopUpDecision, TopUpSettings, WalletThreshold
from domain import operator_actions
from domain.alerts import alerts
from domain.top_ups import settings as top_up_settings
from domain.top_ups.decisions import decisions_of
from domain.top_ups.rule import State, TopUpTerms
from domain.top_ups.settings import Method
from domain.wallet import queries as wallet_queries
from domain.wallet import thresholds as levels
from providers.registry import CHARGEABLE

app = typer.Typer(no_args_is_help=True, help="List and clear alerts.")

#: Number of top-up decisions that are shown with the top-up settings.
_DECISIONS = 10

WhyIfChanged = Annotated[str, typer.Option("--why", help="The reason; required for a change.")]


def thresholds(
    organization_id: Org,
    amounts: Annotated[
        list[str] | None,
        typer.Option("--set", help="Such as 20; repeatable. Replaces all thresholds that are set."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all thresholds.")] = False,
    rearm: Annotated[
        bool, typer.Option("--rearm", help="Arm thresholds not crossed now, without a top-up.")
    ] = False,
    why: WhyIfChanged = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Show or set low-balance thresholds. Each alerts once, until a top-up rearms it."""
    with clear_errors():
        if bool(amounts) + clear + rearm > 1:
            raise Failure("use only one of --set, --clear and --rearm")

    def work(session: Session, now: datetime) -> list[dict[str, Any]]:
        currency = wallet_queries.balance(session, organization_id, now).currency
        if amounts or clear:
            micros = [micros_of(amount, currency) for amount in amounts or ()]
            rows = operator_actions.set_thresholds_manually(
                session, organization_id, micros, operator=acting_operator(by, why), now=now
            )
        elif rearm:
            rows = operator_actions.rearm_thresholds_manually(
                session, organization_id, operator=acting_operator(by, why), now=now
            )
        else:
            rows = levels.thresholds_of(session, organization_id)
        return [_threshold(row, currency) for row in rows]

    show(in_transaction(work), as_json, f"thresholds of {organization_id}")


def auto_top_up(
    organization_id: Org,
    provider: Annotated[Provider | None, typer.Option(help="Payment provider.")] = None,
    method: Annotated[
        str, typer.Option("--payment-method", help="The provider's id of the payment method.")
    ] = "",
    below: Annotated[str, typer.Option(help="Top up when less is available, such as 20.")] = "",
    amount: Annotated[str, typer.Option(help="Amount of one top-up, such as 50.")] = "",
    day_cap: Annotated[str, typer.Option(help="Highest total in 24 hours, such as 200.")] = "",
    day_count: Annotated[int, typer.Option(help="Most top-ups in 24 hours.")] = 3,
    off: Annotated[bool, typer.Option("--off", help="Switch it off.")] = False,
    why: WhyIfChanged = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Show automatic top-up and its latest decisions, or switch it on or off."""
    given = {
        "--provider": provider,
        "--payment-method": method,
        "--below": below,
        "--amount": amount,
        "--day-cap": day_cap,
    }
    missing = [name for name, value in given.items() if not value]
    with clear_errors():
        if off and len(missing) < len(given):
            raise Failure("--off cannot be combined with terms")
        if 0 < len(missing) < len(given):
            raise Failure(f"missing: {', '.join(missing)}")

    def work(session: Session, now: datetime) -> dict[str, Any]:
        currency = wallet_queries.balance(session, organization_id, now).currency
        if off:
            operator_actions.switch_top_up_off_manually(
                session, organization_id, operator=acting_operator(by, why), now=now
            )
        elif provider is not None:
            operator_actions.switch_top_up_on_manually(
                session,
                organization_id,
                TopUpTerms(
                    micros_of(below, currency),
                    micros_of(amount, currency),
                    micros_of(day_cap, currency),
                    day_count,
                ),
                Method(provider, method),
                chargeable=CHARGEABLE,
                operator=acting_operator(by, why),
                now=now,
            )
        return _top_up(session, organization_id, currency)

    show(in_transaction(work), as_json)


@app.command("list")
def list_alerts(
    organization_id: Annotated[
        str | None, typer.Option("--org", help="Only this organization's alerts.")
    ] = None,
    kind: Annotated[alerts.AlertKind | None, typer.Option(help="Only this kind.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Include cleared alerts.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=alerts.LIST_MAX)] = 100,
    as_json: Json = False,
) -> None:
    """List active alerts, newest first."""
    rows = in_transaction(
        lambda session, _: [
            _alert(row)
            for row in alerts.list_alerts(
                session, organization_id=organization_id, kind=kind, cleared=everything, limit=limit
            )
        ]
    )
    show(rows, as_json, "alerts")


@app.command("clear")
def clear_alert(
    alert_id: Annotated[int, typer.Argument(help="Its number in the list.", min=1)],
    why: Why,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Clear an alert that was dealt with. It is raised again if its cause recurs."""
    operator = acting_operator(by, why)
    cleared = in_transaction(
        lambda session, now: _alert(
            alerts.clear_manually(session, alert_id, operator=operator, now=now)
        )
    )
    show(cleared, as_json)


def _threshold(row: WalletThreshold, currency: str) -> dict[str, Any]:
    return {
        "threshold_micros": row.threshold_micros,
        "currency": currency,
        "state": "armed" if row.armed else "crossed",
        "crossed_at": row.crossed_at,
        "set_by": row.set_by,
        "set_at": row.set_at,
        "reason": row.set_why,
    }


def _top_up(session: Session, organization_id: str, currency: str) -> dict[str, Any]:
    # If automatic top-up was never switched on, the output has the same keys with null.
    settings = top_up_settings.settings_of(session, organization_id)
    return {
        "organization_id": organization_id,
        "state": _state(settings),
        "crossed_at": settings and settings.crossed_at,
        "next_check_at": settings and settings.asks_at,
        "provider": settings and settings.provider,
        "payment_method_id": settings and settings.payment_method,
        "below_micros": settings and settings.below_micros,
        "amount_micros": settings and settings.amount_micros,
        "day_cap_micros": settings and settings.day_cap_micros,
        "currency": currency,
        "day_count_max": settings and settings.day_cap_count,
        "set_by": settings and settings.set_by,
        "set_at": settings and settings.set_at,
        "reason": settings and settings.set_why,
        "decisions": [_decision(row) for row in decisions_of(session, organization_id, _DECISIONS)],
    }


def _state(settings: TopUpSettings | None) -> str:
    """Return "on", "crossed" (on, and a top-up is due), "off" or "never_set"."""
    if settings is None:
        return "never_set"
    if not settings.enabled:
        return "off"
    return "on" if settings.armed else "crossed"


def _decision(row: TopUpDecision) -> dict[str, Any]:
    charging = row.state == State.DECIDED and row.charging_at is not None
    return {
        "decision_id": row.id,
        "amount_micros": row.charged_micros or row.amount_micros,
        "currency": row.currency,
        "state": "charging" if charging else row.state,
        "decided_at": row.decided_at,
        "ended_at": row.ended_at,
        "payment_id": row.payment_external_id,
        "decline_code": row.decline_code,
    }


def _alert(row: Alert) -> dict[str, Any]:
    return {
        "alert_id": row.id,
        "kind": row.kind,
        "organization_id": row.organization_id,
        "subject": row.subject,
        "severity": row.severity,
        "raised_at": row.raised_at,
        "cleared_at": row.cleared_at,
        "details": row.details,
    }
