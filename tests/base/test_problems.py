"""The registry of codes: each is well formed, documented, and used by one name."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from base.enums import BlockReason, EndCause
from base.problems.code import Code
from base.problems.details import Problem
from base.problems.registry import CODES, GROUPS, find_code
from base.problems.wallet import INSUFFICIENT_FUNDS
from cli.language import BANNED
from local import ROOT
from tests.base.problems_document import DOCUMENT, introduction, tables

PACKAGES = ("base", "db", "domain", "providers", "ingress", "workers", "cli", "local")
#: Packages whose texts in this form can only be codes. Others name settings and providers' values.
WITHOUT_OTHER_NAMES = ("domain", "ingress", "workers")
_IN_SQL = re.compile(r"'([A-Z]+(?:_[A-Z]+)+)'")
#: A kind of entry, which has the form of a code.
_NO_CODE = {"BALANCE_CORRECTION"}


@functools.cache
def nodes_of(package: str) -> list[tuple[str, ast.AST]]:
    """Parse a package's files outside the registry; return each node with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node)
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.parent != ROOT / "base" / "problems"
        for node in ast.walk(ast.parse(path.read_text()))
    ]


def nodes(*packages: str) -> Iterator[tuple[str, ast.AST]]:
    return itertools.chain.from_iterable(map(nodes_of, packages))


def sql_codes() -> set[str]:
    """Find the codes that the ledger's SQL returns."""
    folder = ROOT / "db" / "migrations" / "sql"
    text = "".join(path.read_text() for path in sorted(folder.glob("*.sql")))
    return set(_IN_SQL.findall(text)) - _NO_CODE


def imported_codes() -> set[str]:
    return {
        alias.name
        for _, node in nodes(*PACKAGES)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("base.problems.")
        for alias in node.names
    }


def is_sentence(text: str) -> bool:
    return re.fullmatch(r"[A-Z`].*\.", text) is not None


@pytest.mark.parametrize("code", CODES.values(), ids=str)
def test_a_code_has_the_form_of_a_problem(code):
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code)
    assert code.path == f"/problems/{code.lower().replace('_', '-')}"
    assert 400 <= HTTPStatus(code.status) < 600
    assert all(is_sentence(text) for text in (code.title, code.money, code.action))
    assert len(code.title) <= 80 and code.title.count(".") == 1
    texts = re.sub(r"`[^`]*`", "", f"{code.title} {code.money} {code.action}")
    assert not BANNED.findall(texts)


def test_a_code_is_declared_once_and_found_by_its_name():
    declared = [code for group in GROUPS.values() for code in group]
    assert len(declared) == len(CODES)
    assert find_code("INSUFFICIENT_FUNDS") is INSUFFICIENT_FUNDS
    with pytest.raises(KeyError):
        find_code("CREDIT_GONE")


def test_no_two_codes_have_one_title():
    assert len({code.title for code in CODES.values()}) == len(CODES)


def test_codes_of_the_ledger_are_registered():
    assert len(sql_codes()) >= 18
    assert sql_codes() <= set(CODES)


def test_each_reason_to_refuse_or_end_has_a_code():
    assert [reason.code for reason in BlockReason] == [str(reason) for reason in BlockReason]
    assert [cause.code for cause in EndCause] == [cause.upper() for cause in EndCause]


def test_a_code_is_imported_and_never_spelled():
    spelled = [
        f"{where} {node.value}"
        for where, node in nodes(*PACKAGES)
        if isinstance(node, ast.Constant) and node.value in CODES
    ]
    assert spelled == []


def test_no_code_is_used_that_is_not_registered():
    unknown = [
        f"{where} {node.value}"
        for where, node in nodes(*WITHOUT_OTHER_NAMES)
        if isinstance(node, ast.Constant) and re.fullmatch(r"[A-Z]+(_[A-Z]+)+", str(node.value))
    ]
    made = [
        where
        for where, node in nodes(*PACKAGES)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Code"
    ]
    assert (unknown, made) == ([], [])


def test_each_registered_code_has_a_user():
    users = imported_codes() | sql_codes() | {cause.code for cause in EndCause}
    assert sorted(set(CODES) - users) == []


def test_the_document_has_the_registrys_tables():
    document = DOCUMENT.read_text()
    assert document == introduction(document) + tables()


def test_a_problem_has_the_members_of_rfc_9457_and_its_code():
    members = {
        "type": "/problems/insufficient-funds",
        "title": "The available money does not cover the amount.",
        "status": 402,
        "code": "INSUFFICIENT_FUNDS",
    }
    assert Problem(INSUFFICIENT_FUNDS).to_dict() == members
    assert Problem(INSUFFICIENT_FUNDS, "0.60").to_dict() == {**members, "detail": "0.60"}


def test_a_code_equals_its_name_everywhere():
    assert isinstance(INSUFFICIENT_FUNDS, Code)
    assert (INSUFFICIENT_FUNDS, f"{INSUFFICIENT_FUNDS}") == ("INSUFFICIENT_FUNDS",) * 2
