"""The `holdfast` command: each of its commands, and the module that defines it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from base.log import configure
from cli import __version__
from cli.lazy_group import Lazy, lazy_group

_ANY_ARGUMENTS = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}
#: Pass every argument to the command's own parser, also --help.
_PASSED_ON = {**_ANY_ARGUMENTS, "add_help_option": False}
COMMANDS = {
    "up": Lazy("Run everything on this machine until Ctrl-C.", "cli.commands.up", "up"),
    "migrate": Lazy(
        "Bring the database to a revision, as its owner (DATABASE_OWNER_URL).",
        "cli.commands.migrate",
        "migrate",
    ),
    "ingress": Lazy(
        "Run the ingress: it verifies webhooks and records them.", "cli.commands.serve", "ingress"
    ),
    "worker": Lazy("Run a worker, or list the processes that run.", "cli.commands.workers"),
    "relay": Lazy(
        "Run a relay, which repeats lost notifications and stages periodic jobs.",
        "cli.commands.serve",
        "relay",
    ),
    "token": Lazy(
        "Print a token for the API, signed with this machine's own key (API_JWKS_FILE).",
        "cli.commands.tokens",
        "token",
    ),
    "trigger": Lazy("Make the sandbox send webhooks and place calls.", "cli.commands.triggers"),
    "bench": Lazy(
        "Run the named benchmarks, or all, and compare each with its baseline.",
        "cli.commands.bench",
        "bench",
        options=_PASSED_ON,
    ),
    "chaos": Lazy(
        "Inject faults under traffic, then count lost, doubled and drifted results.",
        "cli.commands.chaos",
        "chaos",
        options=_PASSED_ON,
    ),
    "sandbox": Lazy("The providers' stand-ins.", "cli.commands.sandbox"),
    "org": Lazy("Show, create and enforce organizations.", "cli.commands.work", "organizations"),
    "wallet": Lazy("Figures, history, freezes and corrections.", "cli.commands.wallet"),
    "action": Lazy("List what operators did manually.", "cli.commands.actions"),
    "alert": Lazy("List and clear alerts.", "cli.commands.alerts"),
    "verify": Lazy("Verify ledger and deployment; write signed anchors.", "cli.commands.verify"),
    "reconcile": Lazy("Compare with a provider now, repair, and report.", "cli.commands.reconcile"),
    "campaign": Lazy("List, pause and start campaigns.", "cli.commands.work", "campaigns"),
    "call": Lazy("List, show, end and settle calls; sum their costs.", "cli.commands.calls"),
    "job": Lazy("List, show, redrive, discard and run jobs.", "cli.commands.jobs"),
    "jobs": Lazy("List, show, redrive, discard and run jobs.", "cli.commands.jobs", hidden=True),
    "schedule": Lazy("Periodic work.", "cli.commands.schedules"),
    "provider": Lazy("Circuit breakers and rate limits of providers.", "cli.commands.providers"),
    "demo": Lazy(
        "Run a demonstration: start everything, send webhooks, and check each effect.",
        "cli.commands.demo",
        "demo",
    ),
    "test": Lazy(
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
