"""Show and change low-balance thresholds, automatic top-up and alerts."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import Provider
from cli.commands.output import show, show_page
from cli.commands.shared import acting_operator, in_transaction, micros_of
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, Why
from domain import operator_actions
from domain.alerts import alerts
from domain.alerts import queries as alert_queries
from domain.top_ups.queries import TopUpSettingsView, TopUpView, read_top_up
from domain.top_ups.rule import TopUpTerms
from domain.top_ups.settings import Method
from domain.wallet import queries as wallet_queries
from domain.wallet.queries import ThresholdView
from providers.registry import CHARGEABLE

app = typer.Typer(no_args_is_help=True, help="List and clear alerts.")

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

    def work(session: Session, now: datetime) -> list[ThresholdView]:
        currency = wallet_queries.currency_of(session, organization_id)
        if amounts or clear:
            micros = [micros_of(amount, currency) for amount in amounts or ()]
            operator_actions.set_thresholds_manually(
                session, organization_id, micros, operator=acting_operator(by, why), now=now
            )
        elif rearm:
            operator_actions.rearm_thresholds_manually(
                session, organization_id, operator=acting_operator(by, why), now=now
            )
        return wallet_queries.list_thresholds(session, organization_id)

    rows = [asdict(one) for one in in_transaction(work)]
    show(rows, as_json, f"thresholds of {organization_id}")


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
        currency = wallet_queries.currency_of(session, organization_id)
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
        return _described(organization_id, currency, read_top_up(session, organization_id))

    show(in_transaction(work), as_json)


@app.command("list")
def list_alerts(
    organization_id: Annotated[
        str | None, typer.Option("--org", help="Only this organization's alerts.")
    ] = None,
    kind: Annotated[alerts.AlertKind | None, typer.Option(help="Only this kind.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Include cleared alerts.")] = False,
    after: Annotated[int | None, typer.Option(help="Cursor: last alert number of a page.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=alert_queries.PAGE_MAX, help="Rows a page.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """List active alerts, newest first."""
    page = in_transaction(
        lambda session, _: alert_queries.list_alerts(
            session,
            organization_id=organization_id,
            kind=kind,
            cleared=everything,
            after=after,
            limit=limit,
        )
    )
    cursor = page[-1].alert_id if len(page) == limit else None
    show_page([asdict(one) for one in page], cursor, as_json, "alerts")


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
        lambda session, now: alert_queries.alert_view(
            alerts.clear_manually(session, alert_id, operator=operator, now=now)
        )
    )
    show(asdict(cleared), as_json)


def _described(organization_id: str, currency: str, found: TopUpView) -> dict[str, Any]:
    # If automatic top-up was never switched on, the output has the same keys with null.
    names = [field.name for field in fields(TopUpSettingsView)]
    settings = dict.fromkeys(names) if found.settings is None else asdict(found.settings)
    return {
        "organization_id": organization_id,
        "state": found.state,
        "currency": currency,
        **settings,
        "decisions": [asdict(one) for one in found.decisions],
    }
