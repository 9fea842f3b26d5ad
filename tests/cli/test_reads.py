"""Commands and API endpoints read through queries, never by SQL of their own."""

from __future__ import annotations

import ast

import pytest

from local import ROOT

#: All that these modules may import from SQLAlchemy: types, and the errors that they explain.
ALLOWED = {"Session", "DBAPIError"}
MODULES = sorted(
    path for folder in ("cli/commands", "ingress/api") for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_has_no_query_of_its_own(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            assert {one.name for one in node.names} <= ALLOWED
        if isinstance(node, ast.Import):
            assert not any(one.name.startswith(("sqlalchemy", "psycopg")) for one in node.names)
        # A session is passed on to the domain, and never asked.
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id not in ("session", "s"), ast.unparse(node)
