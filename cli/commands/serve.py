"""The processes: all of them together (up), or one at a time, as production runs them."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from alembic.util.exc import CommandError

from base.enums import Queue
from base.log import configure
from base.settings import Settings, load_settings, require
from cli.commands.shared import Failure, clear_errors, console, owner_address
from cli.commands.tokens import keys_file
from db.migrate import check_serving_login, clear_addresses
from db.migrate import migrate as migrate_database
from db.redis.circuits import Circuits
from ingress import app as ingress_app
from local.databases import give_password, write_private
from local.keeper import how_it_ended
from local.stack import Stack, state_folder
from providers import registry
from workers import process as worker_app
from workers import relay as relay_app


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


def ingress() -> None:
    """Run the ingress: it verifies webhooks and records them."""
    with clear_errors():
        settings = _serving_settings()
        require_providers(settings)
        ingress_app.serve(settings, registry.build(settings))


def serve_worker(queues: set[Queue], threads: int) -> None:
    """Run a worker of these queues until it is asked to stop."""
    with clear_errors():
        settings = _serving_settings()
        require_providers(settings)
        circuits = Circuits.from_settings(settings)
        worker_app.serve(settings, registry.build(settings, circuits), queues, threads)
        circuits.close()


def relay() -> None:
    """Run a relay, which repeats lost notifications and stages periodic jobs."""
    with clear_errors():
        relay_app.serve(_serving_settings())


def migrate(
    revision: Annotated[str, typer.Argument(help="'head', 'base' or a revision's id.")] = "head",
    destroy: Annotated[
        str,
        typer.Option(
            metavar="DATABASE_NAME",
            help="Go back even if rows are lost. Must name the connected database.",
        ),
    ] = "",
) -> None:
    """Bring the database to a revision, as its owner (DATABASE_OWNER_URL).

    Going back to an older revision is refused while it would lose rows; the error counts them.
    """
    with clear_errors():
        url = owner_address()
        try:
            with clear_addresses("DATABASE_OWNER_URL"):
                reached = migrate_database(url, revision, destroy=destroy)
        except CommandError as error:
            raise Failure(str(error)) from None
        settings = load_settings()
        if settings.database_url and revision != "base":
            give_password(url, settings.database_url)
        console.print(f"migrated to {reached}")


def require_providers(settings: Settings) -> None:
    """This function will check that the providers' credentials are given.

    Raises: SettingsError naming every missing one in one line.
    """
    require(
        settings,
        "paypal_client_id",
        "paypal_client_secret",
        "paypal_webhook_id",
        "twilio_account_sid",
        "twilio_auth_token",
    )


def _serving_settings() -> Settings:
    settings = load_settings()
    configure(settings.log_level)
    require(settings, "database_url", "redis_url")
    check_serving_login(settings.database_url)
    return settings


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
