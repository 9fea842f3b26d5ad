"""Run servers, ingress, workers, relay and sandbox on this machine."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from typing import Annotated

import typer

from base.log import LogFormat, configure
from base.settings import Settings, load_settings
from cli.commands.serve import require_providers
from cli.commands.shared import console
from cli.commands.tokens import keys_file
from cli.errors import clear_errors
from cli.invocation import started_command
from local.databases import write_private
from local.keeper import describe_exit
from local.stack import Stack, state_folder


def up(
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Start the providers' stand-ins and use them.")
    ] = False,
) -> None:
    """Run everything on this machine until Ctrl-C.

    Without DATABASE_URL and REDIS_URL it starts PostgreSQL and Valkey of its own.
    """
    with clear_errors():
        settings = load_settings()
        began = time.monotonic()
        state = state_folder(settings)
        if not sandbox:
            require_providers(settings)
        log_format = _choose_log_format(settings)
        configure(settings.log_level, log_format)

        def on_step(name: str) -> None:
            console.print(f"starting {name}")

        def on_exit(name: str, code: int) -> None:
            console.print(
                f"[bold red]{name}[/bold red] ended ({describe_exit(code)}); restarting it"
            )

        def on_restart(name: str, pid: int) -> None:
            console.print(f"[bold]{name}[/bold] restarted (process {pid})")

        stack = Stack(
            settings,
            state,
            sandbox=sandbox,
            on_exit=on_exit,
            on_restart=on_restart,
            on_step=on_step,
            log_format=log_format,
        )
        if sandbox:
            # So that the API accepts the tokens that `holdfast token` prints.
            stack.env.setdefault("API_JWKS_FILE", str(keys_file(settings)))
        with stack:
            _store_addresses(stack)
            faults = stack.wait_until_serving()
            state_now = "degraded" if faults else "ready"
            lines = [
                f"{state_now} after {time.monotonic() - began:.1f} s",
                *(f"fault: {fault['kind']}: {fault['message']}" for fault in faults),
                *_next_steps(stack, sandbox=sandbox),
                "Ctrl-C stops all.",
            ]
            console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
            stack.supervisor.wait()
            console.print("stopping")


def _choose_log_format(settings: Settings) -> LogFormat:
    """Return LOG_FORMAT if it is set; otherwise choose by where the log lines go."""
    if "log_format" in settings.model_fields_set:
        return settings.log_format
    return "console" if sys.stderr.isatty() else "json"


def _next_steps(stack: Stack, *, sandbox: bool) -> list[str]:
    """List the addresses, and the commands that a newcomer would run next."""
    # Another terminal needs these settings too, if they are set here.
    exports = [
        f"  export {name}={shlex.quote(os.environ[name])}"
        for name in ("HOLDFAST_STATE", "API_JWKS_FILE")
        if os.environ.get(name)
    ]
    is_api_open = "API_JWKS_FILE" in stack.env
    command = started_command()
    pay = f"  {command} trigger paypal PAYMENT.CAPTURE.COMPLETED --org $ORG"
    return [
        f"ingress  {stack.ingress_url}/webhooks/paypal, /webhooks/twilio, /webhooks/vapi",
        f"API      {stack.ingress_url}/api"
        + ("" if is_api_open else " (closed: API_JWKS_FILE is not set)"),
        *([f"sandbox  {stack.info['base_url']}"] if sandbox else []),
        "Next, in another terminal:",
        *exports,
        f'  ORG=$({command} org create "Acme" --currency USD)',
        pay if sandbox else f"{pay}  # needs `{command} up --sandbox`",
        f"  {command} wallet show $ORG",
        *([f"  {command} token --org $ORG  # for the API"] if is_api_open else []),
    ]


def _store_addresses(stack: Stack) -> None:
    """Store the embedded servers' addresses for other commands of this user.

    Only this user may read the file.
    """
    path = stack.state / "addresses.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(
        path,
        json.dumps(
            {
                "database_url": stack.urls.app_url,
                "owner_url": stack.urls.owner_url,
                "redis_url": stack.env["REDIS_URL"],
            }
        ),
    )
