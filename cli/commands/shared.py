"""Helpers of the commands: database access, operators, and errors in one line."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from rich.console import Console
from sqlalchemy.orm import Session

from base.enums import BlockReason
from base.money import Amount
from base.operators import Operator
from base.settings import SettingsError, load_settings, require
from cli.errors import clear_errors
from db.engine import Database, clock
from db.logins import explain_address_errors
from db.redis.client import Notifier
from domain.enforcement import Enforcement
from local.stack import state_folder

T = TypeVar("T")
console = Console()


def acting_operator(by: str, why: str) -> Operator:
    """Return the operator of a command, by default the login that runs it.

    An empty reason ends the command with one line.
    """
    with clear_errors():
        return Operator(by or getpass.getuser(), why)
    raise AssertionError("unreachable")


def consequences_text(enforcement: Enforcement) -> str:
    """Describe what an operator action did to campaigns and calls."""
    return (
        f"campaigns paused {enforcement.campaigns_paused}, resumed {enforcement.campaigns_resumed};"
        f" calls ended {enforcement.calls_ended}"
    )


def consequence_fields(enforcement: Enforcement) -> dict[str, Any]:
    """Return what an operator action did, as typed values."""
    return {
        **permission(enforcement.block),
        "subscription_state": enforcement.subscription_state,
        "campaigns_paused": enforcement.campaigns_paused,
        "campaigns_resumed": enforcement.campaigns_resumed,
        "calls_ended": enforcement.calls_ended,
    }


def permission(block: BlockReason | None) -> dict[str, Any]:
    """Return whether an organization may spend, and the reason if it may not."""
    return {"may_spend": block is None, "block_reason": block}


@contextmanager
def open_database() -> Iterator[Callable[[Callable[[Session, datetime], T]], T]]:
    """Provide a function that runs fn(session, now) in a transaction of its own.

    Without DATABASE_URL, connect to the embedded database of `holdfast up`.
    """
    with clear_errors():
        url, redis_url = addresses()
        notifier = Notifier(redis_url) if redis_url else None
        try:
            with explain_address_errors("DATABASE_URL"):
                database = Database(
                    url, name="cli", pool_size=1, after_commit=notifier.notify if notifier else None
                )
            try:
                yield lambda fn: database.run(lambda session: fn(session, clock(session)))
            finally:
                database.close()
        finally:
            if notifier is not None:
                notifier.close()


def in_transaction(fn: Callable[[Session, datetime], T]) -> T:
    """Run fn(session, now) in one transaction on the configured database."""
    with open_database() as run_transaction:
        return run_transaction(fn)
    raise AssertionError("unreachable")


def addresses() -> tuple[str, str]:
    """Return DATABASE_URL and REDIS_URL, or those of the embedded servers.

    Raises: SettingsError if DATABASE_URL is not set and no embedded server was started.
    """
    settings = load_settings()
    state = state_folder(settings)
    addresses_file = state / "addresses.json"
    if settings.database_url:
        return settings.database_url, settings.redis_url
    if not addresses_file.exists():
        raise SettingsError("missing setting: DATABASE_URL (or run: holdfast up)")
    saved = json.loads(addresses_file.read_text())
    return saved["database_url"], settings.redis_url or saved["redis_url"]


def owner_address() -> str:
    """Return DATABASE_OWNER_URL, or the owner's address of the embedded server.

    Raises: SettingsError if there is neither.
    """
    settings = load_settings()
    if settings.database_owner_url:
        return settings.database_owner_url
    addresses_file = state_folder(settings) / "addresses.json"
    if not settings.database_url and addresses_file.exists():
        url: str | None = json.loads(addresses_file.read_text())["owner_url"]
        if url:
            return url
    require(settings, "database_owner_url")
    raise AssertionError("unreachable")


def micros_of(amount: str, currency: str) -> int:
    """Convert a typed amount into micros of a wallet's currency.

    Raises: InvalidAmount.
    """
    return Amount.from_text(amount, currency).micros


def utc(instant: datetime | None) -> datetime | None:
    """Read an instant without a time zone as UTC."""
    return None if instant is None else instant.replace(tzinfo=instant.tzinfo or UTC)
