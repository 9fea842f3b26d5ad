"""Wallets: figures, history, freezes and corrections, without any manual SQL."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from base.enums import FreezeReason
from base.ids import new_id
from base.outcomes import Refused
from cli.commands.auto_top_up import auto_top_up
from cli.commands.output import print_result, show
from cli.commands.shared import (
    acting_operator,
    consequence_fields,
    consequences_text,
    in_transaction,
    micros_of,
    owner_address,
)
from cli.commands.thresholds import thresholds
from cli.commands.wallet_history import history
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Org, Why
from db.engine import Database, clock
from domain import operator_actions
from domain.enforcement import Enforcement
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from domain.wallet.ledger import WalletOutcome

app = typer.Typer(no_args_is_help=True, help="Figures, history, freezes and corrections.")
app.command()(history)
app.command("thresholds")(thresholds)
app.command("auto-top-up")(auto_top_up)

Reason = Annotated[FreezeReason, typer.Option("--reason", help="Which freeze.")]


@app.command("show")
def show_wallet(organization_id: Org, as_json: Json = False) -> None:
    """Show a wallet's balance, held and available amounts, and its active freezes."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        view = wallet_queries.read_wallet(session, organization_id, now)
        figures = view.balance
        entries_total = wallet_queries.entries_sum(session, organization_id)
        return {
            "organization_id": organization_id,
            "balance_micros": figures.balance_micros,
            "held_micros": figures.held_micros,
            "available_micros": figures.available_micros,
            "outstanding_micros": figures.owed_micros,
            "currency": figures.currency,
            "entries": figures.entry_no,
            "consistent": figures.consistent and entries_total == figures.balance_micros,
            "frozen": figures.frozen,
            "freezes": [asdict(one) for one in [*view.stopping, *view.overridden]],
        }

    show(in_transaction(read), as_json)


@app.command()
def freeze(organization_id: Org, why: Why, by: By = "", as_json: Json = False) -> None:
    """Freeze a wallet manually. Only an operator can lift this freeze."""
    operator = acting_operator(by, why)
    done = in_transaction(
        lambda session, now: operator_actions.freeze_manually(
            session, organization_id, operator=operator, now=now
        )
    )
    changed = {"action": "freeze", "reason": FreezeReason.MANUAL}
    _print_consequences(organization_id, changed, done, as_json)


@app.command()
def unfreeze(
    organization_id: Org,
    why: Why,
    reason: Reason = FreezeReason.MANUAL,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Lift one freeze. The wallet stays frozen while another freeze is active."""
    operator = acting_operator(by, why)
    done = in_transaction(
        lambda session, now: operator_actions.lift_manually(
            session, organization_id, reason, operator=operator, now=now
        )
    )
    changed = {"action": "unfreeze", "reason": reason}
    _print_consequences(organization_id, changed, done, as_json)


@app.command()
def override(
    organization_id: Org,
    why: Why,
    reason: Reason,
    hours: Annotated[float, typer.Option(help="Duration in hours.", min=0.01, max=720)],
    by: By = "",
    as_json: Json = False,
) -> None:
    """Let a wallet spend for a limited time although one freeze is active."""
    operator = acting_operator(by, why)

    def work(session: Session, now: datetime) -> tuple[Enforcement, datetime]:
        until = now + timedelta(hours=hours)
        done = operator_actions.override_manually(
            session, organization_id, reason, until=until, operator=operator, now=now
        )
        return done, until

    done, until = in_transaction(work)
    changed = {"action": "override", "reason": reason, "override_until": until}
    _print_consequences(organization_id, changed, done, as_json)


@app.command(context_settings={"ignore_unknown_options": True})
def correct(
    organization_id: Org,
    amount: Annotated[str, typer.Argument(help="Such as 12.50 to add, or -12.50 to take.")],
    why: Why,
    by: By = "",
    key: Annotated[str, typer.Option(help="Idempotency key; reuse it to repeat.")] = "",
    as_json: Json = False,
) -> None:
    """Correct a balance with a ledger entry that records the operator and the reason."""
    operator = acting_operator(by, why)
    key = key or new_id("fix")

    def write(session: Session, now: datetime) -> tuple[WalletOutcome, int, str]:
        currency = wallet_queries.currency_of(session, organization_id)
        micros = micros_of(amount, currency)
        outcome = operator_actions.correct_manually(
            session,
            organization_id,
            key=key,
            amount_micros=micros,
            currency=currency,
            operator=operator,
            now=now,
        )
        return outcome, micros, currency

    # The key is printed first. If the result is lost, the same key safely repeats this correction.
    typer.echo(f"key {key}", err=True)
    outcome, micros, currency = in_transaction(write)
    _refuse_if_not_ok(outcome)
    print_result(
        f"{'replay of' if outcome.replayed else 'wrote'} entry {outcome.entry_no}",
        {
            "organization_id": organization_id,
            "action": "correct",
            "changed": not outcome.replayed,
            "amount_micros": micros,
            "balance_after_micros": outcome.balance_micros,
            "currency": currency,
            "entry_no": outcome.entry_no,
            "idempotency_key": key,
        },
        as_json,
    )


@app.command("debt-limit", context_settings={"ignore_unknown_options": True})
def debt_limit(
    organization_id: Org,
    amount: Annotated[
        str, typer.Argument(help="How far calls may go below zero, such as 25; 0: not at all.")
    ],
    why: Why,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Approve a debt limit, which only call costs may use, not assets or messages.

    Lowering the limit takes back credit that live calls were lent and have not used. A call that is
    no longer covered is ended.
    """
    operator = acting_operator(by, why)

    def write(session: Session, now: datetime) -> tuple[WalletOutcome, int, str]:
        currency = wallet_queries.currency_of(session, organization_id)
        micros = micros_of(amount, currency)
        outcome = operator_actions.set_debt_limit_manually(
            session, organization_id, limit_micros=micros, operator=operator, now=now
        )
        return outcome, micros, currency

    outcome, micros, currency = in_transaction(write)
    _refuse_if_not_ok(outcome)
    print_result(
        "already set; nothing changed"
        if outcome.replayed
        else f"approved; recorded in entry {outcome.entry_no}",
        {
            "organization_id": organization_id,
            "action": "set_debt_limit",
            "changed": not outcome.replayed,
            "debt_limit_micros": micros,
            "currency": currency,
            "entry_no": outcome.entry_no,
        },
        as_json,
    )


@app.command()
def rebuild(organization_id: Org, why: Why, by: By = "", as_json: Json = False) -> None:
    """Rebuild a wallet's row from its entries and open holds, as the database owner.

    The rebuild is recorded in an entry with the operator and the reason.
    """
    operator = acting_operator(by, why)
    with clear_errors():
        database = Database(owner_address(), name="rebuild", pool_size=1)
        try:
            outcome = database.run(
                lambda session: wallet.rebuild(
                    session, organization_id, operator=operator, now=clock(session)
                )
            )
        except DBAPIError as error:
            raise Failure(str(error.orig).splitlines()[0]) from None
        finally:
            database.close()
    print_result(
        f"rebuilt; recorded in entry {outcome.entry_no}",
        {
            "organization_id": organization_id,
            "action": "rebuild",
            "changed": True,
            "entry_no": outcome.entry_no,
        },
        as_json,
    )


def _refuse_if_not_ok(outcome: WalletOutcome) -> None:
    with clear_errors():
        if not outcome.ok:
            raise Refused(outcome.code)


def _print_consequences(
    organization_id: str, action: dict[str, Any], enforcement: Enforcement, as_json: bool
) -> None:
    permission_text = (
        "may spend" if enforcement.block is None else f"may not spend: {enforcement.block}"
    )
    data = {"organization_id": organization_id, **action, **consequence_fields(enforcement)}
    print_result(f"{permission_text}; {consequences_text(enforcement)}", data, as_json)
