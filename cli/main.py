"""The `holdfast` command: each of its commands, and the module that defines it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from base.log import configure
from cli import __version__
from cli.lazy_group import LazyCommand, lazy_group

_ANY_ARGUMENTS = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}
#: Pass every argument to the command's own parser, also --help.
_PASS_ALL_ARGUMENTS = {**_ANY_ARGUMENTS, "add_help_option": False}
COMMANDS = {
    "up": LazyCommand("Run everything on this machine until Ctrl-C.", "cli.commands.up", "up"),
    "migrate": LazyCommand(
        "Bring the database to a revision, as its owner (DATABASE_OWNER_URL).",
        "cli.commands.migrate",
        "migrate",
    ),
    "ingress": LazyCommand(
        "Run the ingress: it verifies webhooks and records them.", "cli.commands.serve", "ingress"
    ),
    "worker": LazyCommand("Run a worker, or list the processes that run.", "cli.commands.workers"),
    "relay": LazyCommand(
        "Run a relay, which repeats lost notifications and stages periodic jobs.",
        "cli.commands.serve",
        "relay",
    ),
    "token": LazyCommand(
        "Print a token for the API, signed with this machine's own key (API_JWKS_FILE).",
        "cli.commands.tokens",
        "token",
    ),
    "trigger": LazyCommand(
        "Make the sandbox send webhooks and place calls.", "cli.commands.triggers"
    ),
    "bench": LazyCommand(
        "Run the named benchmarks, or all, and compare each with its baseline.",
        "cli.commands.bench",
        "bench",
        options=_PASS_ALL_ARGUMENTS,
    ),
    "chaos": LazyCommand(
        "Inject faults under traffic, then count lost, doubled and drifted results.",
        "cli.commands.chaos",
        "chaos",
        options=_PASS_ALL_ARGUMENTS,
    ),
    "sandbox": LazyCommand("The providers' stand-ins.", "cli.commands.sandbox"),
    "org": LazyCommand(
        "Show, create and enforce organizations.", "cli.commands.work", "organizations"
    ),
    "wallet": LazyCommand("Figures, history, freezes and corrections.", "cli.commands.wallet"),
    "action": LazyCommand("List what operators did manually.", "cli.commands.actions"),
    "alert": LazyCommand("List and clear alerts.", "cli.commands.alerts"),
    "verify": LazyCommand(
        "Verify ledger and deployment; write signed anchors.", "cli.commands.verify"
    ),
    "reconcile": LazyCommand(
        "Compare with a provider now, repair, and report.", "cli.commands.reconcile"
    ),
    "campaign": LazyCommand("List, pause and start campaigns.", "cli.commands.work", "campaigns"),
    "call": LazyCommand("List, show, end and settle calls; sum their costs.", "cli.commands.calls"),
    "job": LazyCommand("List, show, redrive, discard and run jobs.", "cli.commands.jobs"),
    "jobs": LazyCommand(
        "List, show, redrive, discard and run jobs.", "cli.commands.jobs", hidden=True
    ),
    "schedule": LazyCommand("Periodic work.", "cli.commands.schedules"),
    "provider": LazyCommand(
        "Circuit breakers and rate limits of providers.", "cli.commands.providers"
    ),
    "demo": LazyCommand(
        "Run a demonstration: start everything, send webhooks, and check each effect.",
        "cli.commands.demo",
        "demo",
    ),
    "test": LazyCommand(
        "Check style, types and layers, run the tests; further arguments go to pytest.",
        "cli.checks",
        "test",
        options=_ANY_ARGUMENTS,
    ),
}

app = typer.Typer(
    name="holdfast",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def holdfast(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keep prepaid accounts solvent."""


def main() -> None:
    """Run the command line."""
    # Warnings go to standard error. structlog's default would write them into a command's output.
    configure("WARNING", "console" if sys.stderr.isatty() else "json")
    app(prog_name="holdfast")


if __name__ == "__main__":
    main()
