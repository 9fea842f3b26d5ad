"""The `holdfast` command: each of its commands, and the module that defines it."""

from __future__ import annotations

import typer

from cli.lazy_group import Lazy, lazy_group

_ANY_ARGUMENTS = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}
#: Pass every argument to the command's own parser, also --help.
_PASSED_ON = {**_ANY_ARGUMENTS, "add_help_option": False}
_COMMANDS = {
    "up": Lazy("cli.commands.up", "up"),
    "migrate": Lazy("cli.commands.migrate", "migrate"),
    "ingress": Lazy("cli.commands.serve", "ingress"),
    "worker": Lazy("cli.commands.workers"),
    "relay": Lazy("cli.commands.serve", "relay"),
    "token": Lazy("cli.commands.tokens", "token"),
    "trigger": Lazy("cli.commands.triggers"),
    "bench": Lazy("cli.commands.bench", "bench", options=_PASSED_ON),
    "chaos": Lazy("cli.commands.chaos", "chaos", options=_PASSED_ON),
    "sandbox": Lazy("cli.commands.sandbox"),
    "org": Lazy("cli.commands.work", "organizations"),
    "wallet": Lazy("cli.commands.wallet"),
    "alert": Lazy("cli.commands.watch"),
    "verify": Lazy("cli.commands.verify"),
    "reconcile": Lazy("cli.commands.reconcile"),
    "campaign": Lazy("cli.commands.work", "campaigns"),
    "call": Lazy("cli.commands.calls"),
    "job": Lazy("cli.commands.jobs"),
    "jobs": Lazy("cli.commands.jobs", hidden=True),
    "schedule": Lazy("cli.commands.schedules"),
    "provider": Lazy("cli.commands.providers"),
    "demo": Lazy("cli.commands.demo", "demo"),
    "test": Lazy("cli.checks", "test", options=_ANY_ARGUMENTS),
}

app = typer.Typer(
    name="holdfast",
    cls=lazy_group(_COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def holdfast() -> None:
    """Keep prepaid accounts solvent."""


def main() -> None:
    """Run the command line."""
    app(prog_name="holdfast")


if __name__ == "__main__":
    main()
