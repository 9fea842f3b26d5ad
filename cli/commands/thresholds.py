"""Show and change low-balance thresholds."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from cli.commands.output import show
from cli.commands.shared import acting_operator, in_transaction, micros_of
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, WhyIfChanged
from domain import operator_actions
from domain.wallet import queries as wallet_queries
from domain.wallet.queries import ThresholdView


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
