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
from cli.commands.shared import acting, in_transaction
from cli.errors import Failure, clear_errors
from cli.expected_schema import expected_facts
from cli.options import Json
from db.deployment.checks import defects
from domain.wallet.audit import verification as verify
from domain.wallet.audit.anchors import read_heads, signed_heads
from domain.wallet.audit.chain import Finding, Head
from local.databases import write_private

#: Printed by a run without heads.
_TAIL_UNSEEN = "without --heads, entries removed at a wallet's end cannot be detected"

app = typer.Typer(no_args_is_help=True, help="Verify ledger and deployment; write signed anchors.")

OneOrg = Annotated[str, typer.Option("--org", help="Only this organization's wallet.")]
Heads = Annotated[
    Path | None, typer.Option("--heads", help="A file that verify anchor wrote before.")
]
Do = Callable[[Callable[[Session, datetime], Any]], Any]


@app.command()
def ledger(org: OneOrg = "", heads: Heads = None, as_json: Json = False) -> None:
    """Recompute every wallet from its opening entry; exit status 1 if any differs."""
    with acting() as do:
        known = _read(heads) if heads is not None else None
        tally = verify.Tally()
        findings = _verify(do, org or None, known, tally)
        if as_json:
            _print_json(findings, tally, tail_checked=known is not None)
        else:
            for finding in findings:
                typer.echo(str(finding))
            typer.echo(
                f"verify: {tally.wallets} wallets, {tally.entries} entries,"
                f" {tally.findings} findings"
            )
            if known is None:
                typer.echo(_TAIL_UNSEEN)
    if tally.findings:
        raise typer.Exit(1)


@app.command()
def anchor(
    file: Annotated[Path, typer.Argument(help="File to write; keep it outside the database.")],
    as_json: Json = False,
) -> None:
    """Write all chain heads to a signed file, for verify ledger --heads."""
    with acting() as do:
        key = _key()
        now = do(lambda _, now: now)
        lines = list(signed_heads(verify.current_heads(_reading(do)), now, key))
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
    found = in_transaction(lambda session, _: list(defects(session, expected)))
    if as_json:
        show({"objects": len(expected.objects), "defects": [one._asdict() for one in found]}, True)
    else:
        for one in found:
            typer.echo(str(one))
        typer.echo(f"verify: {len(expected.objects)} objects compared, {len(found)} defects")
    if found:
        raise typer.Exit(1)


def _verify(
    do: Do, org: str | None, heads: Mapping[str, Head] | None, tally: verify.Tally
) -> Iterator[Finding]:
    run = _reading(do)
    total = run(lambda session: verify.entries_to_verify(session, org))
    with _progress(total) as advance:

        def read(fn: Callable[[Session], Any]) -> Any:
            advance(tally.entries)
            return run(fn)

        yield from verify.verify_ledger(read, organization_id=org, heads=heads, tally=tally)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
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
    before = "\n  "
    for finding in findings:
        sys.stdout.write(before + json_text(asdict(finding), indent=None))
        before = ",\n  "
    rest = {"wallets": tally.wallets, "entries": tally.entries, "tail_checked": tail_checked}
    sys.stdout.write(f"], {json_text(rest, indent=None)[1:]}\n")


def _read(file: Path) -> dict[str, Head]:
    key = _key()
    try:
        return read_heads(file.read_bytes(), key)
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}") from None


def _key() -> str:
    settings = load_settings()
    require(settings, "ledger_anchor_key")
    return settings.ledger_anchor_key.get_secret_value()


def _reading(do: Do) -> verify.Run:
    return lambda fn: do(lambda session, _: fn(session))
