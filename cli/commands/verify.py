"""Verify the ledger and the deployment; write anchors that reveal removed entries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.orm import Session

from base.settings import load_settings, require
from cli.commands.output import json_text, print_result, show
from cli.commands.shared import in_transaction, open_database
from cli.errors import Failure, clear_errors
from cli.expected_schema import expected_facts
from cli.options import Json
from db.deployment.checks import defects
from domain.wallet.audit import verification as verify
from domain.wallet.audit.anchors import read_heads, signed_heads
from domain.wallet.audit.chain import Finding, Head
from local.databases import write_private

#: The last line of a verification without a file of heads.
_TAIL_UNCHECKED_TEXT = "without --heads, entries removed at a wallet's end cannot be detected"

app = typer.Typer(no_args_is_help=True, help="Verify ledger and deployment; write signed anchors.")

OneOrg = Annotated[str, typer.Option("--org", help="Only this organization's wallet.")]
Heads = Annotated[
    Path | None, typer.Option("--heads", help="A file that verify anchor wrote before.")
]
RunTransaction = Callable[[Callable[[Session, datetime], Any]], Any]


@app.command()
def ledger(org: OneOrg = "", heads: Heads = None, as_json: Json = False) -> None:
    """Recompute every wallet from its opening entry; exit status 1 if any differs."""
    with open_database() as run_transaction:
        known_heads = _read_heads_file(heads) if heads is not None else None
        tally = verify.Tally()
        findings = _verify_with_progress(run_transaction, org or None, known_heads, tally)
        if as_json:
            _print_json(findings, tally, tail_checked=known_heads is not None)
        else:
            for finding in findings:
                typer.echo(str(finding))
            typer.echo(
                f"verify: {tally.wallets} wallets, {tally.entries} entries,"
                f" {tally.findings} findings"
            )
            if known_heads is None:
                typer.echo(_TAIL_UNCHECKED_TEXT)
    if tally.findings:
        raise typer.Exit(1)


@app.command()
def anchor(
    file: Annotated[Path, typer.Argument(help="File to write; keep it outside the database.")],
    as_json: Json = False,
) -> None:
    """Write all chain heads to a signed file, for verify ledger --heads."""
    with open_database() as run_transaction:
        key = _anchor_key()
        now = run_transaction(lambda _, now: now)
        lines = list(signed_heads(verify.current_heads(_session_runner(run_transaction)), now, key))
        try:
            write_private(file, b"".join(lines).decode())
        except OSError as error:
            raise Failure(f"cannot write {file}: {error.strerror}") from None
    wallets = len(lines) - 2
    print_result(
        f"anchored {wallets} wallets at {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC in {file}",
        {"action": "anchor", "wallets": wallets, "anchored_at": now, "file": str(file)},
        as_json,
    )


@app.command()
def deployment(as_json: Json = False) -> None:
    """Compare the database with its migrations; exit status 1 if anything differs.

    The comparison is with an empty database, which is migrated on a temporary PostgreSQL server of
    this version of Holdfast: every table, column, constraint, index, trigger, function and grant.
    Roles and settings are checked, too. The database itself is only read.
    """
    with clear_errors():
        expected = expected_facts()
    defects_found = in_transaction(lambda session, _: list(defects(session, expected)))
    if as_json:
        show(
            {
                "objects": len(expected.objects),
                "defects": [defect._asdict() for defect in defects_found],
            },
            True,
        )
    else:
        for defect in defects_found:
            typer.echo(str(defect))
        typer.echo(
            f"verify: {len(expected.objects)} objects compared, {len(defects_found)} defects"
        )
    if defects_found:
        raise typer.Exit(1)


def _verify_with_progress(
    run_transaction: RunTransaction,
    org: str | None,
    heads: Mapping[str, Head] | None,
    tally: verify.Tally,
) -> Iterator[Finding]:
    run = _session_runner(run_transaction)
    total = run(lambda session: verify.entries_to_verify(session, org))
    with _progress_bar(total) as advance:

        def read(fn: Callable[[Session], Any]) -> Any:
            advance(tally.entries)
            return run(fn)

        yield from verify.verify_ledger(read, organization_id=org, heads=heads, tally=tally)


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("verify"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("verify", total=total)
        yield lambda done: bar.update(task, completed=done)


def _print_json(findings: Iterator[Finding], tally: verify.Tally, *, tail_checked: bool) -> None:
    """Write one JSON document as a stream, since each entry may have a finding."""
    sys.stdout.write('{"findings": [')
    separator = "\n  "
    for finding in findings:
        sys.stdout.write(separator + json_text(asdict(finding), indent=None))
        separator = ",\n  "
    totals = {"wallets": tally.wallets, "entries": tally.entries, "tail_checked": tail_checked}
    sys.stdout.write(f"], {json_text(totals, indent=None)[1:]}\n")


def _read_heads_file(file: Path) -> dict[str, Head]:
    key = _anchor_key()
    try:
        return read_heads(file.read_bytes(), key)
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}") from None


def _anchor_key() -> str:
    settings = load_settings()
    require(settings, "ledger_anchor_key")
    return settings.ledger_anchor_key.get_secret_value()


def _session_runner(run_transaction: RunTransaction) -> verify.Run:
    return lambda fn: run_transaction(lambda session, _: fn(session))
