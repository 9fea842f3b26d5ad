"""The holdfast command: the composition root, where settings are read and all is put together."""

from __future__ import annotations

from typing import Annotated

import typer

from base.settings import load_settings
from cli.checks import run_tests
from cli.commands import (
    call_setup,
    calls,
    jobs,
    providers,
    reconcile,
    schedules,
    serve,
    tokens,
    triggers,
    verify,
    wallet,
    wallet_history,
    watch,
    work,
    workers,
)
from cli.commands.bench import bench
from cli.commands.chaos import chaos
from cli.commands.shared import Json, clear_errors, show
from local.demo.stories import Story
from local.sandbox import sandbox_info
from local.stack import state_folder

app = typer.Typer(
    name="holdfast",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keeps prepaid accounts solvent.",
)
#: Every argument goes to the command's own parser, --help too.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
sandbox = typer.Typer(no_args_is_help=True, help="The providers' stand-ins.")

app.command()(serve.up)
app.command()(serve.migrate)
app.command()(serve.ingress)
app.add_typer(workers.app, name="worker")
app.command()(serve.relay)
app.command()(tokens.token)
app.add_typer(triggers.app, name="trigger")
app.command(context_settings=PASSED_ON, add_help_option=False)(bench)
app.command(context_settings=PASSED_ON, add_help_option=False)(chaos)
app.add_typer(sandbox, name="sandbox")
app.add_typer(work.organizations, name="org")
app.add_typer(wallet.app, name="wallet")
wallet.app.command()(wallet_history.history)
wallet.app.command("thresholds")(watch.thresholds)
wallet.app.command("auto-top-up")(watch.auto_top_up)
app.add_typer(watch.app, name="alert")
app.add_typer(verify.app, name="verify")
app.add_typer(reconcile.app, name="reconcile")
app.add_typer(work.campaigns, name="campaign")
app.add_typer(calls.app, name="call")
calls.app.add_typer(call_setup.rates, name="rate")
calls.app.add_typer(call_setup.terms, name="terms")
calls.app.add_typer(call_setup.doors, name="door")
app.add_typer(jobs.app, name="job")
app.add_typer(jobs.app, name="jobs", hidden=True)
app.add_typer(schedules.app, name="schedule")
app.add_typer(providers.app, name="provider")


@app.command()
def demo(
    story: Annotated[
        Story, typer.Argument(help="way: spending stopped and resumed. calls: calls ended in time.")
    ] = Story.WAY,
    as_json: Json = False,
) -> None:
    """Run a demonstration: start everything, send webhooks, and check each effect."""
    from local.demo import run_demo

    with clear_errors():
        raise typer.Exit(run_demo(load_settings(), story, as_json=as_json))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run style, types, layers and tests; further arguments go to pytest."""
    raise typer.Exit(run_tests(context.args))


@sandbox.command("info")
def info(as_json: Json = False) -> None:
    """Print the running sandbox's addresses, keys and webhook ids."""
    with clear_errors():
        found = sandbox_info(state_folder(load_settings()))
    if as_json:
        show(found, True)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            show(value, False, name)
        else:
            typer.echo(f"{name}: {value}")


def main() -> None:
    """Run the command line."""
    app(prog_name="holdfast")


if __name__ == "__main__":
    main()
