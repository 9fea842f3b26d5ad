"""Compare the state at a provider with the desired state, repair it, and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from cli.commands.output import show
from cli.commands.shared import open_database
from cli.options import Json
from domain import subaccount_checks as twilio_checks
from domain.subaccount_checks import CheckOutcome, SubaccountCheck

app = typer.Typer(no_args_is_help=True, help="Compare with a provider now, repair, and report.")

#: A function that runs fn(session, now) in a transaction of its own.
RunTransaction = Callable[[Callable[[Session, datetime], Any]], Any]
Wait = Annotated[
    float, typer.Option("--wait", min=0, max=3_600, help="Seconds to wait for the workers.")
]
_POLL_SECONDS = 0.2

_OUTCOME_TEXTS = {
    CheckOutcome.IN_LINE: "in line",
    CheckOutcome.REPAIRED: "repaired",
    CheckOutcome.NEEDS_PERSON: "needs a person",
    CheckOutcome.PENDING: "not done yet",
}


@app.command("twilio")
def twilio(
    organization_id: Annotated[
        str | None, typer.Option("--org", help="Only this organization's subaccounts.")
    ] = None,
    wait: Wait = 60,
    as_json: Json = False,
) -> None:
    """Read every subaccount's state at Twilio, repair drift, and report the findings.

    The exit status is 1 unless every subaccount is in line now.
    """
    with open_database() as run_transaction:
        jobs = run_transaction(lambda s, now: twilio_checks.stage_checks(s, organization_id, now))
        checks = wait_for_checks(run_transaction, jobs.values(), wait)
    show([check_row(check) for check in checks], as_json, "subaccounts")
    raise typer.Exit(0 if all_in_line(checks) else 1)


def wait_for_checks(
    run_transaction: RunTransaction, job_ids: Collection[str], seconds: float
) -> list[SubaccountCheck]:
    """Wait until workers have done the checks or time is up; return the results."""
    deadline = time.monotonic() + seconds
    while True:
        checks: list[SubaccountCheck] = run_transaction(
            lambda session, _: twilio_checks.results(session, tuple(job_ids))
        )
        pending = any(check.outcome is CheckOutcome.PENDING for check in checks)
        if not pending or time.monotonic() >= deadline:
            return checks
        time.sleep(_POLL_SECONDS)


def all_in_line(checks: Collection[SubaccountCheck]) -> bool:
    """Return whether every subaccount is in its desired state now."""
    return all(check.outcome in (CheckOutcome.IN_LINE, CheckOutcome.REPAIRED) for check in checks)


def check_row(check: SubaccountCheck) -> dict[str, Any]:
    """Return a check as a row of data. Its outcome is one of CheckOutcome's values."""
    return {
        "organization_id": check.organization_id,
        "brand_id": check.brand_id,
        "subaccount_sid": check.subaccount,
        "outcome": check.outcome,
        "found_state": check.found,
        "desired_state": check.desired,
        "problem": check.problem,
    }


def summary_line(check: SubaccountCheck) -> str:
    """Describe in one line what a check found and did, and what a person must do."""
    line = f"subaccount {check.subaccount}: {_OUTCOME_TEXTS[check.outcome]}"
    if check.outcome is CheckOutcome.IN_LINE:
        return f"{line}, {check.found}"
    if check.outcome is CheckOutcome.REPAIRED:
        return f"{line}; Twilio reported {check.found}, and it is {check.desired} now"
    if check.outcome is CheckOutcome.NEEDS_PERSON:
        return (
            f"{line}: {check.problem or check.found}; it should be {check.desired}."
            " See the alert subaccount_unusable"
        )
    return f"{line}: no worker has finished; desired: {check.desired}. See holdfast worker list"
