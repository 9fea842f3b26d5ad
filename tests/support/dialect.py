"""One SQLAlchemy dialect for all engines of a test run.

SQLAlchemy compiles a statement once for each engine. Each test has engines of its own, so without
this the run would compile the same statements thousands of times.
"""

from __future__ import annotations

from typing import Any, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg


class SharedDialect(PGDialect_psycopg):
    """A single instance, which learns the server's version once."""

    supports_statement_cache = True
    _instance: Self | None = None
    _compiled: dict[Any, Any] = {}

    def __new__(cls, *_args: object, **_options: object) -> Self:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __init__(self, *args: Any, **options: Any) -> None:
        if "positional" not in vars(self):
            super().__init__(*args, **options)

    def initialize(self, connection: Connection) -> None:
        if "server_version_info" not in vars(self):
            super().initialize(connection)

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        engine.update_execution_options(compiled_cache=cls._compiled)


def share() -> None:
    """Use this dialect for every engine that this process makes from now on."""
    registry.register("postgresql.psycopg", __name__, SharedDialect.__name__)
