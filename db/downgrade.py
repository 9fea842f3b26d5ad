"""Downgrade to an older revision of the schema, and refuse if rows would be lost.

Revisions need not declare what their downgrade drops. The downgrade first runs in a savepoint. The
catalogs then show which tables and columns it has dropped. Their rows are counted before the
downgrade runs again to be committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from psycopg import sql
from sqlalchemy import Connection, CursorResult, text
from sqlalchemy.exc import IntegrityError

from base.outcomes import Refused
from base.problems.operators import ROWS_DO_NOT_FIT, ROWS_WOULD_BE_LOST, WRONG_DATABASE

#: Largest number of losses that an error message names. It only counts the remaining ones.
_NAMED_MAX = 20
#: A downgrade may lose the rows of this table, because each running process writes its row again
#: within seconds.
_REWRITTEN_TABLE = "processes"
_COLUMNS = f"""
    SELECT c.oid, c.relname, a.attnum, a.attname, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            AND NOT a.attisdropped AND a.attgenerated = ''
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        AND c.relname NOT IN ('alembic_version', '{_REWRITTEN_TABLE}')
    ORDER BY c.relname, a.attnum
"""  # noqa: S608  # a constant of ours
_DELETED = """
    SELECT relid, n_tup_del FROM pg_stat_xact_user_tables
    WHERE schemaname = 'public' AND relname <> 'alembic_version' AND n_tup_del > 0
"""


class Loss(NamedTuple):
    """Rows of a table, or values of a column (`table.column`), that would be lost."""

    subject: str
    rows: int

    def __str__(self) -> str:
        return f"{self.subject} ({self.rows} {'row' if self.rows == 1 else 'rows'})"


class RowsWouldBeLost(Refused):
    """The downgrade would drop existing rows or values."""

    def __init__(self, target: str, losses: list[Loss], database: str) -> None:
        self.losses = losses
        named = ", ".join(str(loss) for loss in losses[:_NAMED_MAX])
        more = f" and {len(losses) - _NAMED_MAX} more" if len(losses) > _NAMED_MAX else ""
        super().__init__(
            ROWS_WOULD_BE_LOST,
            f"nothing was changed; going back to {target} would destroy {named}{more};"
            f" make a backup, and repeat with --destroy {database} to lose them",
        )


class WrongDatabase(Refused):
    """--destroy names a database other than the connected one."""

    def __init__(self, named: str, database: str) -> None:
        super().__init__(
            WRONG_DATABASE,
            f"nothing was changed; --destroy names {named}, but this database is {database}",
        )


class RowsDoNotFit(Refused):
    """A row violates a constraint of the older revision."""

    def __init__(self, target: str, error: IntegrityError) -> None:
        reason = str(error.orig).strip().splitlines()[0]
        super().__init__(ROWS_DO_NOT_FIT, f"nothing was changed; going back to {target}: {reason}")


class _Column(NamedTuple):
    table: str
    name: str | None
    default: str | None


def downgrade_safely(
    connection: Connection, target: str, downgrade: Callable[[], None], destroy: str
) -> None:
    """Run a downgrade unless it would lose rows.

    If `destroy` is not empty, the downgrade may lose rows. The caller has checked that `destroy`
    names this database. Everything runs in the caller's transaction. Each wait for a lock lasts at
    most 5 seconds. Raises: RowsWouldBeLost, RowsDoNotFit.
    """
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    try:
        if not destroy:
            losses = list(_find_losses(connection, downgrade))
            if losses:
                raise RowsWouldBeLost(target, losses, database_name(connection))
        downgrade()
    except IntegrityError as error:
        raise RowsDoNotFit(target, error) from None


def check_name(connection: Connection, destroy: str) -> None:
    """Check that --destroy, if given, names the connected database.

    Raises: WrongDatabase.
    """
    if destroy and destroy != (name := database_name(connection)):
        raise WrongDatabase(destroy, name)


def database_name(connection: Connection) -> str:
    return str(connection.execute(text("SELECT current_database()")).scalar_one())


def _find_losses(connection: Connection, downgrade: Callable[[], None]) -> Iterator[Loss]:
    before = _read_columns(connection)
    rehearsal = connection.begin_nested()
    try:
        downgrade()
        after = _read_columns(connection)
        deleted = [(oid, count) for oid, count in connection.execute(text(_DELETED))]
    finally:
        rehearsal.rollback()
    tables = {oid: column.table for (oid, _), column in before.items()}
    kept = {oid for oid, _ in after}
    dropped = sorted((name, oid) for oid, name in tables.items() if oid not in kept)
    columns = [column for key, column in before.items() if key[0] in kept and key not in after]
    # The rollback to the savepoint released the downgrade's locks. Without new locks, the downgrade
    # would drop a row unnoticed that another transaction writes after the count.
    for table in sorted({name for name, _ in dropped} | {column.table for column in columns}):
        _execute(connection, sql.SQL("LOCK TABLE public.{}").format(sql.Identifier(table)))
    for name, _ in dropped:
        yield from _count_loss(connection, name, name, sql.SQL("true"))
    for column in columns:
        if column.name is not None:
            subject = f"{column.table}.{column.name}"
            yield from _count_loss(connection, subject, column.table, _has_value_condition(column))
    for oid, count in deleted:
        if oid in tables and oid in kept:
            yield Loss(tables[oid], count)


def _read_columns(connection: Connection) -> dict[tuple[int, int], _Column]:
    return {
        (row[0], row[2] or 0): _Column(row[1], row[3], row[4])
        for row in connection.execute(text(_COLUMNS))
    }


def _has_value_condition(column: _Column) -> sql.Composable:
    """Build the condition of rows whose value in the column differs from its default."""
    name = sql.Identifier(column.name or "")
    # Compare only a constant default. A default that calls a function may have side effects, or
    # return a different value each time.
    if column.default is None or "(" in column.default:
        return sql.SQL("{} IS NOT NULL").format(name)
    # The values are compared as text, because some types have no comparison.
    default = sql.SQL(column.default)  # from the catalog
    return sql.SQL("{name}::text <> ({default})::text").format(name=name, default=default)


def _count_loss(
    connection: Connection, subject: str, table: str, condition: sql.Composable
) -> Iterator[Loss]:
    statement = sql.SQL("SELECT count(*) FROM public.{} WHERE {}").format(
        sql.Identifier(table), condition
    )
    rows = _execute(connection, statement).scalar_one()
    if rows:
        yield Loss(subject, rows)


def _execute(connection: Connection, statement: sql.Composable) -> CursorResult[Any]:
    # Without parameters the driver does not interpret a % in a name or a default.
    return connection.exec_driver_sql(
        statement.as_string(), execution_options={"no_parameters": True}
    )
