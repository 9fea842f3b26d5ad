"""Show automatic top-up, and switch it on or off."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import Provider
from cli.commands.output import show
from cli.commands.shared import acting_operator, in_transaction, micros_of
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, WhyIfChanged
from domain import operator_actions
from domain.top_ups.queries import TopUpSettingsView, TopUpView, read_top_up
from domain.top_ups.rule import TopUpTerms
from domain.top_ups.settings import Method
from domain.wallet.queries import currency_of
from providers.registry import CHARGEABLE


def auto_top_up(
    organization_id: Org,
    provider: Annotated[Provider | None, typer.Option(help="Payment provider.")] = None,
    method: Annotated[
        str, typer.Option("--payment-method", help="The provider's id of the payment method.")
    ] = "",
    below: Annotated[str, typer.Option(help="Top up when less is available, such as 20.")] = "",
    amount: Annotated[str, typer.Option(help="Amount of one top-up, such as 50.")] = "",
    day_cap: Annotated[str, typer.Option(help="Highest total in 24 hours, such as 200.")] = "",
    day_count: Annotated[int, typer.Option(help="Largest number of top-ups in 24 hours.")] = 3,
    off: Annotated[bool, typer.Option("--off", help="Switch automatic top-up off.")] = False,
    why: WhyIfChanged = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Show automatic top-up and its latest decisions, or switch it on or off."""
    options = {
        "--provider": provider,
        "--payment-method": method,
        "--below": below,
        "--amount": amount,
        "--day-cap": day_cap,
    }
    missing = [name for name, value in options.items() if not value]
    with clear_errors():
        if off and len(missing) < len(options):
            raise Failure("--off cannot be combined with terms")
        if 0 < len(missing) < len(options):
            raise Failure(f"missing: {', '.join(missing)}")

    def read_or_change(session: Session, now: datetime) -> dict[str, Any]:
        currency = currency_of(session, organization_id)
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
        return _to_dict(organization_id, currency, read_top_up(session, organization_id))

    show(in_transaction(read_or_change), as_json)


def _to_dict(organization_id: str, currency: str, view: TopUpView) -> dict[str, Any]:
    # If automatic top-up was never switched on, the output has the same keys with null.
    names = [field.name for field in fields(TopUpSettingsView)]
    settings = dict.fromkeys(names) if view.settings is None else asdict(view.settings)
    return {
        "organization_id": organization_id,
        "state": view.state,
        "currency": currency,
        **settings,
        "decisions": [asdict(one) for one in view.decisions],
    }
