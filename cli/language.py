"""Check the language of texts, names and log events.

The rules: a function's docstring opens with an imperative, the first line of a docstring has at
most 80 characters, no text and no defined name uses a banned term, a test's name has at most 70
characters, and a log event is a literal snake_case key.
Text in backticks and quotes is not checked, because it names code or quotes a message.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from local import ROOT

FIRST_LINE_MAX = 80
TEST_NAME_MAX = 70

#: Metaphors and vague subjects. docs/glossary.md lists the terms to use instead.
BANNED = re.compile(
    r"\b(whoever|whom|nobody|somebody|anybody|doors?|houses?|bells?|rung|sieves?|patience"
    r"|posture|told|tells?|by hand|stands?(?!-)|owed|words?|hands?)\b",
    re.IGNORECASE,
)
#: Parts that no defined name may have, as `_NAME_PART` splits it.
_BANNED_PARTS = frozenset(
    {"told", "tell", "tells", "door", "doors", "house", "bell", "bells", "sieve", "patience"}
    | {"patient", "patiently", "nobody", "somebody", "anybody", "whoever"}
)
#: A column, whose rename would need a migration.
_EXEMPT_NAMES = frozenset({"end_told_at"})
_NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
#: Openings that a function's docstring may not have, because they are no imperatives.
_NON_IMPERATIVES = frozenset(
    {"this", "the", "a", "an", "it", "its", "that", "these", "those", "whether", "what", "which"}
    | {"where", "when", "who", "how", "if", "for", "of", "in", "on", "as", "no", "not", "one"}
    | {"each", "every", "all", "some", "our", "their", "true", "false", "none", "gives"}
)
#: Imperatives that end in s, like a verb in the third person.
_IMPERATIVES_IN_S = frozenset({"access", "address", "discuss", "express", "pass", "process"})
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"")
#: A logger, as a call of it is written: `log`, `_log`, `self._log(...)`.
_LOGGER = re.compile(r"(^|\.)_?log(ger)?\b")
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PRAGMA = re.compile(r"#\s*(noqa|type:|pragma|fmt:)")
_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def check_python(path: str, source: str) -> list[str]:
    """List the language findings of one Python file, each as `path:line: message`."""
    tree = ast.parse(source)
    findings = [
        *_docstring_findings(tree),
        *_comment_findings(source),
        *_test_name_findings(tree),
        *_name_findings(tree),
        *_event_findings(tree),
    ]
    return [f"{path}:{line}: {message}" for line, message in sorted(findings)]


def check_document(path: str, text: str) -> list[str]:
    """List the banned terms of a Markdown document outside its code blocks."""
    findings = []
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.startswith("    "):
            findings += [f"{path}:{number}: {message}" for message in _banned_terms(line)]
    return findings


def check_files(root: Path, names: list[str]) -> list[str]:
    """List the findings of the Python files and Markdown documents among these files."""
    findings = []
    for name in names:
        path = root / name
        if path.suffix == ".py":
            findings += check_python(name, path.read_text())
        elif path.suffix == ".md":
            findings += check_document(name, path.read_text())
    return findings


def tracked_files(root: Path) -> list[str]:
    """List the files that git tracks and that exist."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in listed if (root / name).is_file()]


def _docstring_findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, _Definition) or not node.body:
            continue
        text = ast.get_docstring(node)
        if text is None:
            continue
        line = node.body[0].lineno
        opening = text.split("\n", 1)[0]
        if len(opening) > FIRST_LINE_MAX:
            yield line, f"the docstring's first line has more than {FIRST_LINE_MAX} characters"
        if _must_be_imperative(node) and not _is_imperative(opening):
            yield line, f"the docstring opens with no imperative: {opening[:40]}"
        for offset, part in enumerate(text.splitlines()):
            for message in _banned_terms(part):
                yield line + offset, message


def _must_be_imperative(node: _Definition) -> bool:
    """Return whether this is a function, but no test, fixture or property."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = " ".join(ast.unparse(one) for one in node.decorator_list)
    return not node.name.startswith("test_") and not re.search("property|fixture", decorators)


def _is_imperative(opening: str) -> bool:
    first = re.sub(r"\W.*", "", opening).lower()
    third_person = first.endswith("s") and first not in _IMPERATIVES_IN_S
    return bool(first) and first not in _NON_IMPERATIVES and not third_person


def _comment_findings(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not _PRAGMA.match(token.string):
            for message in _banned_terms(token.string):
                yield token.start[0], message


def _test_name_findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        if len(node.name) > TEST_NAME_MAX:
            yield node.lineno, f"the test's name has more than {TEST_NAME_MAX} characters"


def _name_findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, name in sorted(set(_defined_names(tree))):
        parts = {part.lower() for part in _NAME_PART.findall(name)}
        if parts & _BANNED_PARTS and name not in _EXEMPT_NAMES:
            yield line, f"banned term in a name: {name}"


def _defined_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each definition, parameter and assignment."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def _event_findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        method, logger = node.func.attr, ast.unparse(node.func.value)
        if method in _LOG_METHODS and _LOGGER.search(logger) and not _is_event(node.args[:1]):
            yield node.lineno, "the log event is not a snake_case key"


def _is_event(first: list[ast.expr]) -> bool:
    event = first[0].value if first and isinstance(first[0], ast.Constant) else None
    return isinstance(event, str) and _EVENT.fullmatch(event) is not None


def _banned_terms(text: str) -> list[str]:
    return [f"banned term: {found}" for found in BANNED.findall(_QUOTED.sub("", text))]


def main() -> int:
    """Print every finding in the project's files. Return 1 if there is one."""
    findings = check_files(ROOT, tracked_files(ROOT))
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
