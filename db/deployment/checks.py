"""Find defects of a deployed database: in objects, grants, roles and settings.

The schema is compared with the facts of a database that only the migrations have made. The checks
read only the catalogs, work with any login, and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.deployment.role_limits import wrong_limits
from db.deployment.schema_facts import Facts, Grant, Object, read_facts

#: Only the ledger's functions may write these tables.
LEDGER_TABLES = (
    "wallets",
    "wallet_entries",
    "wallet_operations",
    "wallet_freezes",
    "payment_references",
    "payment_refunds",
    "payment_disputes",
    "call_holds",
)
#: Rows are added to these tables and never changed: operator actions and the events of calls.
APPEND_ONLY_TABLES = ("operator_acts", "call_timeline")
_EVERY_WRITE = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER")
_OUR_ROLES = ("holdfast_owner", "holdfast_app", "holdfast_readonly")
#: A role that is not one of Holdfast's must not have these privileges. It may have others, such as
#: SELECT.
_OPENING = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "MAINTAIN", "EXECUTE")
#: Kinds of objects that change the ledger's behavior if one is added. An added index or table does
#: not.
_NO_MORE = ("function", "column", "constraint", "trigger", "rule", "policy")
#: Settings that a commit needs to survive a crash of the server, and that triggers need to fire.
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "session_replication_role": "origin",
}

_WRITABLE = """
    SELECT c.relname, p.privilege FROM pg_class c
        CROSS JOIN unnest(CAST(:privileges AS text[])) AS p (privilege)
    WHERE c.oid = ANY (SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) AS t)
        AND has_table_privilege('holdfast_app', c.oid, p.privilege)
    ORDER BY 1, 2
"""
_WRITABLE_COLUMNS = """
    SELECT c.relname || '.' || a.attname, p.privilege FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN unnest(CAST(:privileges AS text[])) AS p (privilege)
    WHERE c.oid = ANY (SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) AS t)
        AND has_column_privilege('holdfast_app', c.oid, a.attnum, p.privilege)
        AND NOT has_table_privilege('holdfast_app', c.oid, p.privilege)
    ORDER BY 1, 2
"""
# A view writes with its owner's privileges. Therefore views of every schema are checked.
_WRITABLE_VIEWS = """
    SELECT DISTINCT v.oid::regclass::text, p.privilege FROM pg_class v
        JOIN pg_rewrite r ON r.ev_class = v.oid
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
        CROSS JOIN unnest(CAST(:privileges AS text[])) AS p (privilege)
    WHERE v.relkind = 'v'
        AND d.refobjid = ANY (SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) AS t)
        AND CASE p.privilege WHEN 'DELETE' THEN has_table_privilege('holdfast_app', v.oid, 'DELETE')
            ELSE has_any_column_privilege('holdfast_app', v.oid, p.privilege) END
    ORDER BY 1, 2
"""
_NOT_VALID = """
    SELECT 'constraint', conrelid::regclass || '.' || conname FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND NOT convalidated
    UNION ALL
    SELECT 'index', indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid
        WHERE c.relnamespace = 'public'::regnamespace AND NOT indisvalid
    ORDER BY 1, 2
"""
_ROLES = """
    SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole, rolcanlogin,
        pg_has_role(oid, (SELECT oid FROM pg_roles WHERE rolname = 'holdfast_owner'), 'MEMBER')
    FROM pg_roles WHERE rolname IN ('holdfast_owner', 'holdfast_app', 'holdfast_readonly')
"""


class Defect(NamedTuple):
    """One difference from what the database must be."""

    subject: str
    found: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}"


def defects(session: Session, expected: Facts) -> Iterator[Defect]:
    """Compare a database with the facts of its migrations, and list every defect.

    If one of Holdfast's roles is missing, the checks of grants, roles and settings are skipped.
    """
    found = read_facts(session)
    yield from _missing_objects(expected, found)
    yield from _changed_objects(expected, found)
    yield from _unexpected_objects(expected, found)
    yield from _invalid_objects(session)
    roles = {row[0]: row for row in session.execute(text(_ROLES))}
    if missing := set(_OUR_ROLES) - roles.keys():
        # The next queries would fail, because they check the privileges of these roles.
        yield from (Defect(f"role {name}", "missing") for name in sorted(missing))
        return
    yield from _grants(expected, found)
    yield from _writable_tables(session)
    yield from _open_schema(session)
    yield from _roles(roles)
    yield from (Defect("role holdfast_app", wrong) for wrong in wrong_limits(session))
    yield from _settings(session)


def _missing_objects(expected: Facts, found: Facts) -> Iterator[Defect]:
    missing = expected.objects.keys() - found.objects.keys()
    tables = {one.name for one in missing if not one.table}
    # Objects that belong to a missing table are not listed separately.
    for one in sorted(one for one in missing if one.table not in tables):
        yield Defect(str(one), "missing")


def _changed_objects(expected: Facts, found: Facts) -> Iterator[Defect]:
    for one in sorted(expected.objects.keys() & found.objects.keys()):
        wanted, there = expected.objects[one], found.objects[one]
        for attribute in sorted(wanted):
            if wanted[attribute] == there[attribute]:
                continue
            if attribute == "body":
                yield Defect(str(one), "its body is not the one of the migrations")
            else:
                problem = f"its {attribute} is {there[attribute]}, not {wanted[attribute]}"
                yield Defect(str(one), problem)


def _unexpected_objects(expected: Facts, found: Facts) -> Iterator[Defect]:
    tables = {one.name for one in expected.objects if not one.table}
    for one in sorted(found.objects.keys() - expected.objects.keys()):
        if one.kind in _NO_MORE and (not one.table or one.table in tables):
            yield Defect(str(one), "no migration makes it")


def _grants(expected: Facts, found: Facts) -> Iterator[Defect]:
    for one in sorted(found.grants - expected.grants):
        if one.subject in expected.objects and _opens(one):
            yield Defect(str(one.subject), f"{one.role} may {one.privilege} it")
    for one in sorted(expected.grants - found.grants):
        if one.subject in found.objects:
            yield Defect(str(one.subject), f"{one.role} may not {one.privilege} it")


def _opens(grant: Grant) -> bool:
    if grant.role == "holdfast_app" and _table_of(grant.subject) in _closed_to_app():
        # `_writable_tables` reports writes. It also covers privileges that holdfast_app has through
        # its memberships.
        return grant.privilege not in _EVERY_WRITE
    return grant.role in (*_OUR_ROLES, "PUBLIC") or grant.privilege in _OPENING


def _table_of(subject: Object) -> str:
    return subject.table or subject.name


def _closed_to_app() -> tuple[str, ...]:
    return (*LEDGER_TABLES, *APPEND_ONLY_TABLES)


def _invalid_objects(session: Session) -> Iterator[Defect]:
    for kind, name in session.execute(text(_NOT_VALID)):
        yield Defect(f"{kind} {name}", "is not valid")


def _writable_tables(session: Session) -> Iterator[Defect]:
    for tables, privileges, problem in (
        (LEDGER_TABLES, _EVERY_WRITE, "around the functions"),
        (APPEND_ONLY_TABLES, _EVERY_WRITE[1:], "and not only add to it"),
    ):
        values = {"tables": list(tables), "privileges": list(privileges)}
        for table, privilege in session.execute(text(_WRITABLE), values):
            yield Defect(f"table {table}", f"holdfast_app may {privilege} it {problem}")
        values["privileges"] = [one for one in privileges if one in ("INSERT", "UPDATE")]
        for column, privilege in session.execute(text(_WRITABLE_COLUMNS), values):
            yield Defect(f"column {column}", f"holdfast_app may {privilege} it {problem}")
        values["privileges"] = [one for one in privileges if one in ("INSERT", "UPDATE", "DELETE")]
        for view, privilege in session.execute(text(_WRITABLE_VIEWS), values):
            yield Defect(f"view {view}", f"holdfast_app may {privilege} it {problem}")


def _open_schema(session: Session) -> Iterator[Defect]:
    asked = "SELECT has_schema_privilege('holdfast_app', 'public', 'CREATE')"
    if session.execute(text(asked)).scalar_one():
        yield Defect("schema public", "holdfast_app may make functions that the ledger would call")


def _roles(roles: dict[str, Any]) -> Iterator[Defect]:
    for name, powerful, may_log_in, is_owner in roles.values():
        if powerful:
            yield Defect(f"role {name}", "is a superuser, passes by row security or makes roles")
        if name == "holdfast_owner":
            if may_log_in:
                yield Defect(f"role {name}", "may log in")
        elif is_owner:
            yield Defect(f"role {name}", "acts as holdfast_owner")


def _settings(session: Session) -> Iterator[Defect]:
    for name, wanted in _SETTINGS.items():
        found = session.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
        if found != wanted:
            yield Defect(f"setting {name}", f"is {found}, not {wanted}")
