"""Wallets: figures, history, freezes and corrections, without any manual SQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from base.enums import FreezeReason
from base.ids import new_id
from base.money import text_from_micros
from cli.commands import wallet_history, watch
from cli.commands.shared import in_transaction, me, micros_of, owner_address, show, what_followed
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, Why
from db.engine import Database, clock
from db.models import WalletFreeze
from domain import operator_actions
from domain.enforcement import Enforcement
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from domain.wallet.ledger import WalletOutcome

app = typer.Typer(no_args_is_help=True, help="Figures, history, freezes and corrections.")
app.command()(wallet_history.history)
app.command("thresholds")(watch.thresholds)
app.command("auto-top-up")(watch.auto_top_up)

Reason = Annotated[FreezeReason, typer.Option("--reason", help="Which freeze.")]


@app.command("show")
def show_wallet(organization_id: Org, as_json: Json = False) -> None:
    """Show a wallet's balance, held and available amounts, and its active freezes."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        figures = wallet_queries.balance(session, organization_id, now)
        stopping, overridden = wallet.active_freezes(session, organization_id, now)
        summed = wallet_queries.entries_sum(session, organization_id)
        return {
            "organization": organization_id,
            "balance": f"{text_from_micros(figures.balance_micros, figures.currency)}"
            f" {figures.currency}",
            "held": text_from_micros(figures.held_micros, figures.currency),
            "available": text_from_micros(figures.available_micros, figures.currency),
            "owed": text_from_micros(figures.owed_micros, figures.currency),
            "entries": figures.entry_no,
            "consistent": figures.consistent and summed == figures.balance_micros,
            "frozen": figures.frozen,
            "freezes": "; ".join(_freeze(row) for row in [*stopping, *overridden]) or "none",
        }

    show(in_transaction(read), as_json)


@app.command()
def freeze(organization_id: Org, why: Why, by: By = "") -> None:
    """Freeze a wallet manually. Only an operator can lift this freeze."""
    _told(
        in_transaction(
            lambda session, now: operator_actions.freeze_manually(
                session, organization_id, by=by or me(), why=why, now=now
            )
        )
    )


@app.command()
def unfreeze(
    organization_id: Org, why: Why, reason: Reason = FreezeReason.MANUAL, by: By = ""
) -> None:
    """Lift one freeze. The wallet stays frozen while another freeze is active."""
    _told(
        in_transaction(
            lambda session, now: operator_actions.lift_manually(
                session, organization_id, reason, by=by or me(), why=why, now=now
            )
        )
    )


@app.command()
def override(
    organization_id: Org,
    why: Why,
    reason: Reason,
    hours: Annotated[float, typer.Option(help="For how long.", min=0.01, max=720)],
    by: By = "",
) -> None:
    """Let a wallet spend for a limited time although one freeze is active."""
    _told(
        in_transaction(
            lambda session, now: operator_actions.override_manually(
                session,
                organization_id,
                reason,
                until=now + timedelta(hours=hours),
                by=by or me(),
                why=why,
                now=now,
            )
        )
    )


@app.command(context_settings={"ignore_unknown_options": True})
def correct(
    organization_id: Org,
    amount: Annotated[str, typer.Argument(help="Such as 12.50 to add, or -12.50 to take.")],
    why: Why,
    by: By = "",
    key: Annotated[str, typer.Option(help="Idempotency key; reuse it to repeat.")] = "",
) -> None:
    """Correct a balance with a ledger entry that records the operator and the reason."""

    key = key or new_id("fix")

    def write(session: Session, now: datetime) -> WalletOutcome:
        currency = wallet_queries.balance(session, organization_id, now).currency
        return operator_actions.correct_manually(
            session,
            organization_id,
            key=key,
            amount_micros=micros_of(amount, currency),
            currency=currency,
            by=by or me(),
            why=why,
            now=now,
        )

    # Printed first: if the result is lost, the same key safely repeats this correction.
    typer.echo(f"key {key}", err=True)
    outcome = in_transaction(write)
    with clear_errors():
        if not outcome.ok:
            raise Failure(outcome.outcome)
    typer.echo(f"{'replay of' if outcome.replayed else 'wrote'} entry {outcome.entry_no}")


@app.command("debt-limit", context_settings={"ignore_unknown_options": True})
def debt_limit(
    organization_id: Org,
    amount: Annotated[
        str, typer.Argument(help="How far calls may go below zero, such as 25; 0: not at all.")
    ],
    why: Why,
    by: By = "",
) -> None:
    """Approve a debt limit, which only call costs may use, not assets or messages.

    Lowering the limit takes back credit that live calls were lent and have not used. A call that is
    no longer covered is ended.
    """

    def write(session: Session, now: datetime) -> WalletOutcome:
        currency = wallet_queries.balance(session, organization_id, now).currency
        return operator_actions.set_debt_limit_manually(
            session,
            organization_id,
            limit_micros=micros_of(amount, currency),
            by=by or me(),
            why=why,
            now=now,
        )

    outcome = in_transaction(write)
    with clear_errors():
        if not outcome.ok:
            raise Failure(outcome.outcome)
    typer.echo(
        "already set; nothing changed"
        if outcome.replayed
        else f"approved; recorded in entry {outcome.entry_no}"
    )


@app.command()
def rebuild(organization_id: Org, why: Why, by: By = "") -> None:
    """Rebuild a wallet's row from its entries and open holds, as the database owner.

    The rebuild is recorded in an entry with the operator and the reason.
    """
    with clear_errors():
        database = Database(owner_address(), name="rebuild", pool_size=1)
        try:
            outcome = database.run(
                lambda session: wallet.rebuild(
                    session, organization_id, operator=by or me(), why=why, now=clock(session)
                )
            )
        except DBAPIError as error:
            raise Failure(str(error.orig).splitlines()[0]) from None
        finally:
            database.close()
    typer.echo(f"rebuilt; recorded in entry {outcome.entry_no}")


def _freeze(row: WalletFreeze) -> str:
    over = f", overridden until {row.override_until:%Y-%m-%d %H:%M}" if row.override_until else ""
    return (
        f"{row.reason} by {row.placed_by} at {row.placed_at:%Y-%m-%d %H:%M}: {row.placed_why}{over}"
    )


def _told(done: Enforcement) -> None:
    may = "may spend" if done.block is None else f"may not spend: {done.block}"
    typer.echo(f"{may}; {what_followed(done)}")
