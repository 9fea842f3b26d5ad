"""Read the objects and grants of a schema from PostgreSQL's catalogs.

Two databases at the same revision have equal facts, even on different major versions of PostgreSQL.
The facts do not depend on object ids or on the order of creation.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session


class Object(NamedTuple):
    """An object of the schema, and the table that the object belongs to, if any."""

    kind: str
    name: str
    table: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Grant(NamedTuple):
    """A privilege that a role has on an object. The role PUBLIC means every role."""

    subject: Object
    role: str
    privilege: str


class Facts(NamedTuple):
    """The contents of a schema: each object with its attributes, and the grants."""

    objects: dict[Object, dict[str, str]]
    grants: frozenset[Grant]


# Each query returns kind, name, table, and the attributes as JSON.
_FUNCTIONS = """
    SELECT 'function', p.oid::regprocedure::text, '', jsonb_build_object(
        'owner', pg_get_userbyid(p.proowner),
        'language', (SELECT lanname FROM pg_language l WHERE l.oid = p.prolang),
        'security', CASE WHEN p.prosecdef THEN 'definer' ELSE 'invoker' END,
        'settings', coalesce((SELECT string_agg(s, '; ' ORDER BY s)
                              FROM unnest(p.proconfig) AS s), 'none'),
        'volatility', p.provolatile::text,
        'strictness', p.proisstrict::text,
        'arguments', pg_get_function_arguments(p.oid),
        'result', coalesce(pg_get_function_result(p.oid), ''),
        'body', encode(sha256(convert_to(
            p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), ''), 'UTF8')), 'hex'))
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                        AND d.objid = p.oid AND d.deptype = 'e')
"""
_TABLES = """
    SELECT k.kind, c.relname, '', jsonb_build_object(
        'owner', pg_get_userbyid(c.relowner),
        'persistence', c.relpersistence::text,
        'row security', (c.relrowsecurity OR c.relforcerowsecurity)::text)
    FROM ours c JOIN kinds k USING (relkind)
"""
_COLUMNS = """
    SELECT 'column', c.relname || '.' || a.attname, c.relname, jsonb_build_object(
        'type', format_type(a.atttypid, a.atttypmod),
        'collation', coalesce((SELECT collname FROM pg_collation l WHERE l.oid = a.attcollation),
                              ''),
        'not null', a.attnotnull::text,
        'identity', a.attidentity::text, 'generated', a.attgenerated::text,
        'default', coalesce((SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
                             WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum), 'none'))
    FROM ours c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
"""
# NOT NULL is compared as an attribute of the column, because only some versions of PostgreSQL list
# it as a constraint. A constraint trigger is compared as a trigger.
_CONSTRAINTS = """
    SELECT 'constraint', c.relname || '.' || o.conname, c.relname, jsonb_build_object(
        'definition', pg_get_constraintdef(o.oid),
        'triggers', CASE WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = o.oid
                                      AND t.tgenabled = 'D') THEN 'disabled' ELSE 'enabled' END)
    FROM ours c JOIN pg_constraint o ON o.conrelid = c.oid AND o.contype NOT IN ('n', 't')
"""
_TRIGGERS = """
    SELECT 'trigger', c.relname || '.' || t.tgname, c.relname, jsonb_build_object(
        'definition', pg_get_triggerdef(t.oid),
        'state', CASE t.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'for replication alone'
                 ELSE 'enabled' END)
    FROM ours c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
"""
_RULES = """
    SELECT 'rule', c.relname || '.' || r.rulename, c.relname,
        jsonb_build_object('definition', pg_get_ruledef(r.oid))
    FROM ours c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
"""
_POLICIES = """
    SELECT 'policy', c.relname || '.' || p.polname, c.relname, jsonb_build_object(
        'command', p.polcmd::text, 'permissive', p.polpermissive::text,
        'roles', (SELECT string_agg(coalesce(pg_get_userbyid(nullif(r, 0)), 'PUBLIC'), ', '
                                    ORDER BY 1) FROM unnest(p.polroles) AS r),
        'using', coalesce(pg_get_expr(p.polqual, p.polrelid), ''),
        'check', coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ''))
    FROM ours c JOIN pg_policy p ON p.polrelid = c.oid
"""
_INDEXES = """
    SELECT 'index', i.indexrelid::regclass::text, c.relname,
        jsonb_build_object('definition', pg_get_indexdef(i.indexrelid))
    FROM ours c JOIN pg_index i ON i.indrelid = c.oid
        AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid
                        AND o.conrelid = c.oid)
"""
_OWN_TABLES = """
    WITH kinds (relkind, kind) AS (VALUES ('r'::"char", 'table'), ('p', 'table'), ('v', 'view'),
            ('m', 'view'), ('c', 'type'), ('S', 'sequence')),
        ours AS (SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relkind IN (SELECT relkind FROM kinds) AND relname <> 'alembic_version')
"""
_OBJECTS = _OWN_TABLES + "UNION ALL".join(
    (_FUNCTIONS, _TABLES, _COLUMNS, _CONSTRAINTS, _TRIGGERS, _RULES, _POLICIES, _INDEXES)
)
# An owner's privileges on its own objects are not grants and are left out.
_GRANTS = (
    _OWN_TABLES  # noqa: S608  # the statement contains no values
    + """
    SELECT kind, name, "table",
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, privilege_type
    FROM (
        SELECT 'function', p.oid::regprocedure::text, '', p.proowner, acl.*
        FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
        WHERE p.pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT k.kind, c.relname, '', c.relowner, acl.*
        FROM ours c JOIN kinds k USING (relkind), aclexplode(c.relacl) AS acl
        UNION ALL
        SELECT 'column', c.relname || '.' || a.attname, c.relname, c.relowner, acl.*
        FROM ours c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) AS acl
    ) AS granted (kind, name, "table", owner, grantor, grantee, privilege_type, grantable)
    WHERE grantee <> owner
"""
)


def read_facts(session: Session) -> Facts:
    """Read the facts of the connected database's schema. Any role may do this."""
    objects = {
        Object(kind, name, table): attributes
        for kind, name, table, attributes in session.execute(text(_OBJECTS))
    }
    grants = frozenset(
        Grant(Object(kind, name, table), role, privilege)
        for kind, name, table, role, privilege in session.execute(text(_GRANTS))
    )
    return Facts(objects, grants)
