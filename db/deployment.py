"""What a deployed database must have: every object, every protection, roles and settings.

It reads the catalogs alone, with whatever login it is given, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.data_model import COUNTERPARTS

#: Written by the ledger's functions alone.
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
#: Added to, and never changed: who did what by hand, and what happened to each call.
APPEND_ONLY_TABLES = ("operator_acts", "call_timeline")
_EVERY_WRITE = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER")
#: What guards the ledger by structure, named table.constraint.
_GUARDS = (
    "wallets.wallet_equals_its_newest_entry",
    "wallet_entries.wallet_entries_pkey",
    "wallet_operations.wallet_operations_pkey",
    "payment_references.payment_references_pkey",
    "call_holds.call_holds_pkey",
)
#: table.trigger, each of which guards or watches the ledger.
TRIGGERS = (
    "wallets.wallets_are_kept",
    "wallets.wallets_fell",
    "wallets.wallets_never_go_back",
    "wallet_entries.wallet_entries_append_only",
    "wallet_operations.wallet_operations_append_only",
    "wallet_thresholds.wallet_thresholds_watched",
    "top_up_settings.top_up_settings_watched",
    "payment_references.payment_references_kept",
    "payment_refunds.payment_refunds_kept",
    "payment_disputes.payment_disputes_kept",
    "call_holds.call_holds_settle_once",
    "call_holds.call_holds_kept",
)
#: What calls are metered, found and settled by.
_CALLS = (
    ("table", "call_rates"),
    ("table", "call_terms"),
    ("table", "call_doors"),
    ("index", "calls_tick_at"),
    ("index", "calls_live"),
    ("index", "calls_unsettled"),
    ("function", "extend_call_credits_many"),
    ("function", "put_off_call_hold"),
)
#: What a server must be set to for a commit to survive its death.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
#: What holdfast_app's every connection is bounded by.
_APP_SETTINGS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

_EXISTS = {
    "table": "to_regclass(:name) IS NOT NULL",
    "index": "EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND indisvalid)",
    "column": "EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:table)"
    " AND attname = :name AND NOT attisdropped)",
    "constraint": "EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(:table)"
    " AND conname = :name AND convalidated)",
    "trigger": "EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(:table)"
    " AND tgname = :name AND tgenabled IN ('O', 'A'))",
    "function": "EXISTS (SELECT FROM pg_proc WHERE proname = :name"
    " AND pronamespace = 'public'::regnamespace)",
}
_UNPINNED = """
    SELECT oid::regprocedure::text,
        NOT coalesce(proconfig @> ARRAY['search_path=public, pg_temp'], false),
        EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
                WHERE grantee = 0 AND privilege_type = 'EXECUTE')
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        AND proowner = (SELECT oid FROM pg_roles WHERE rolname = 'holdfast_owner')
    ORDER BY 1
"""
_WRITABLE = """
    SELECT c.relname, p.privilege FROM pg_class c
        CROSS JOIN unnest(CAST(:privileges AS text[])) AS p (privilege)
    WHERE c.oid = ANY (SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) AS t)
        AND has_table_privilege('holdfast_app', c.oid, p.privilege)
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
        pg_has_role(oid, (SELECT oid FROM pg_roles WHERE rolname = 'holdfast_owner'), 'MEMBER'),
        (SELECT array_agg(split_part(s, '=', 1)) FROM unnest(rolconfig) AS s
         WHERE split_part(s, '=', 2) NOT IN ('0', '0s', ''))
    FROM pg_roles WHERE rolname IN ('holdfast_owner', 'holdfast_app', 'holdfast_readonly')
"""


class Defect(NamedTuple):
    """One thing that is not as it must be."""

    subject: str
    found: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}"


def defects(session: Session) -> Iterator[Defect]:
    """This function will look for every object and protection, and give what is missing or open.

    Source: the list of the founding documents' names beside ours, docs/data-model.md.
    """
    roles = {row[0]: row for row in session.execute(text(_ROLES))}
    yield from _missing_objects(session)
    yield from _invalid_objects(session)
    if missing := {"holdfast_owner", "holdfast_app", "holdfast_readonly"} - roles.keys():
        # Nothing more can be asked about what a role may do that is not there.
        yield from (Defect(f"role {name}", "missing") for name in sorted(missing))
        return
    yield from _open_functions(session)
    yield from _writable_tables(session)
    yield from _open_schema(session)
    yield from _roles(roles)
    yield from _settings(session)


def _missing_objects(session: Session) -> Iterator[Defect]:
    wanted = [("table", name) for name in (*LEDGER_TABLES, *APPEND_ONLY_TABLES)]
    wanted += [("constraint", name) for name in _GUARDS]
    wanted += [("trigger", name) for name in TRIGGERS]
    wanted += _CALLS
    wanted += [(one.kind, one.here) for one in COUNTERPARTS]
    for kind, here in dict.fromkeys(wanted):
        table, _, name = here.rpartition(".")
        values: dict[str, Any] = {"name": name}
        if table:
            values["table"] = table
        if not session.execute(text(f"SELECT {_EXISTS[kind]}"), values).scalar_one():
            yield Defect(f"{kind} {here}", "missing, disabled or not valid")


def _invalid_objects(session: Session) -> Iterator[Defect]:
    for kind, name in session.execute(text(_NOT_VALID)):
        yield Defect(f"{kind} {name}", "is not valid")


def _open_functions(session: Session) -> Iterator[Defect]:
    for name, unpinned, public in session.execute(text(_UNPINNED)):
        if unpinned:
            yield Defect(f"function {name}", "its search_path is not fixed")
        if public:
            yield Defect(f"function {name}", "everybody may execute it")


def _writable_tables(session: Session) -> Iterator[Defect]:
    for tables, privileges, told in (
        (LEDGER_TABLES, _EVERY_WRITE, "around the functions"),
        (APPEND_ONLY_TABLES, _EVERY_WRITE[1:], "and not only add to it"),
    ):
        values = {"tables": list(tables), "privileges": list(privileges)}
        for table, privilege in session.execute(text(_WRITABLE), values):
            yield Defect(f"table {table}", f"holdfast_app may {privilege} it {told}")


def _open_schema(session: Session) -> Iterator[Defect]:
    asked = "SELECT has_schema_privilege('holdfast_app', 'public', 'CREATE')"
    if session.execute(text(asked)).scalar_one():
        yield Defect("schema public", "holdfast_app may make functions that the ledger would call")


def _roles(roles: dict[str, Any]) -> Iterator[Defect]:
    for name, powerful, may_log_in, is_owner, bounded in roles.values():
        if powerful:
            yield Defect(f"role {name}", "is a superuser, passes by row security or makes roles")
        if name == "holdfast_owner":
            if may_log_in:
                yield Defect(f"role {name}", "may log in")
        elif is_owner:
            yield Defect(f"role {name}", "acts as holdfast_owner")
        if name == "holdfast_app":
            for setting in _APP_SETTINGS:
                if setting not in (bounded or ()):
                    yield Defect(f"role {name}", f"has no {setting}")


def _settings(session: Session) -> Iterator[Defect]:
    for name, wanted in _DURABLE.items():
        found = session.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
        if found != wanted:
            yield Defect(f"setting {name}", f"is {found}, not {wanted}")
