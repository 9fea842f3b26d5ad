"""Bring the database's schema forward or back."""

from __future__ import annotations

from typing import Annotated

import typer
from alembic.util.exc import CommandError

from base.settings import load_settings
from cli.commands.shared import console, owner_address
from cli.errors import Failure, clear_errors
from db.logins import explain_address_errors
from db.migrate import migrate as migrate_database
from local.databases import give_password


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
            with explain_address_errors("DATABASE_OWNER_URL"):
                reached = migrate_database(url, revision, destroy=destroy)
        except CommandError as error:
            raise Failure(str(error)) from None
        settings = load_settings()
        if settings.database_url and revision != "base":
            give_password(url, settings.database_url)
        console.print(f"migrated to {reached}")
