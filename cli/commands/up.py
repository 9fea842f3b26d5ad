"""Run servers, ingress, workers, relay and sandbox on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from base.settings import load_settings
from cli.commands.serve import require_providers
from cli.commands.shared import console
from cli.commands.tokens import keys_file
from cli.errors import clear_errors
from local.databases import write_private
from local.keeper import how_it_ended
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
        state = state_folder(settings)
        if not sandbox:
            require_providers(settings)

        def told(name: str) -> None:
            console.print(f"starting {name}")

        def on_exit(name: str, code: int) -> None:
            console.print(
                f"[bold red]{name}[/bold red] ended ({how_it_ended(code)}); restarting it"
            )

        def on_restart(name: str, pid: int) -> None:
            console.print(f"[bold]{name}[/bold] restarted (process {pid})")

        stack = Stack(
            settings, state, sandbox=sandbox, on_exit=on_exit, on_restart=on_restart, told=told
        )
        if sandbox:
            # So that the API accepts the tokens that `holdfast token` prints.
            stack.env.setdefault("API_JWKS_FILE", str(keys_file(settings)))
        with stack:
            _keep_addresses(stack)
            console.print(f"[bold]ingress[/bold] {stack.ingress_url}/webhooks/paypal")
            if sandbox:
                console.print(f"[bold]sandbox[/bold] {stack.info['base_url']}")
            console.print("Ctrl-C stops all.")
            stack.supervisor.wait()
            console.print("stopping")


def _keep_addresses(stack: Stack) -> None:
    """Store the embedded servers' addresses for other commands, readable by us alone."""
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
