"""The language check finds what the rules forbid, at its line, and nothing else."""

from __future__ import annotations

import pytest

from cli.language import check_document, check_files, check_python, main

LONG = "x" * 90


def python(*lines: str) -> list[str]:
    return check_python("a.py", "\n".join(lines) + "\n")


def function(docstring: str, name: str = "close", decorator: str = "") -> list[str]:
    return python(*([decorator] if decorator else []), f"def {name}():", f'    """{docstring}"""')


@pytest.mark.parametrize(
    "docstring",
    [
        "This function will close it.",
        "The wallet of an organization.",
        "Returns the wallet.",
        "Whether it is closed.",
    ],
)
def test_function_docstring_without_an_imperative_is_found(docstring):
    (finding,) = function(docstring)
    assert finding.startswith("a.py:2: the docstring opens with no imperative")


@pytest.mark.parametrize("docstring", ["Close it.", "Pass it on.", "Process an event."])
def test_imperative_is_accepted(docstring):
    assert function(docstring) == []


@pytest.mark.parametrize(
    ("name", "decorator"), [("test_a", ""), ("wallet", "@pytest.fixture"), ("size", "@property")]
)
def test_tests_fixtures_and_properties_may_open_with_a_noun(name, decorator):
    assert function("The size of it.", name, decorator) == []


def test_first_line_has_at_most_80_characters():
    assert function("Close " + "x" * 74) == []
    assert function(f"Close {LONG}.") == [
        "a.py:2: the docstring's first line has more than 80 characters"
    ]


def test_banned_term_is_found_at_its_line():
    assert python('"""Text.', "", "The bell is here.", '"""') == ["a.py:3: banned term: bell"]
    assert python("x = 1", "#: Told of it.") == ["a.py:2: banned term: Told"]


@pytest.mark.parametrize(
    "comment", ["# The column `owed_micros`.", '# It answers "by hand".', "# A stand-in."]
)
def test_code_and_quotes_may_contain_a_banned_term(comment):
    assert python("x = 1", comment) == []


def test_strings_that_are_no_docstrings_are_not_checked():
    assert python('x = "the bell"') == []


def test_long_test_name_is_found():
    assert python(f"def test_{LONG}():", "    pass") == [
        "a.py:1: the test's name has more than 70 characters"
    ]


@pytest.mark.parametrize(
    "code",
    [
        "def ring_bell(): ...",
        "async def told(): ...",
        "class FrontDoor: ...",
        "def close(*, house_id): ...",
        "lambda sieve: 1",
        "NOBODY = 1",
        "for whoever in []: ...",
        "calls.patience_seconds = 1",
        "import os as somebody",
        "try: ...\nexcept OSError as anybody: ...",
    ],
)
def test_defined_name_with_a_banned_part_is_found(code):
    (finding,) = python(code)
    assert "banned term in a name: " in finding


@pytest.mark.parametrize(
    "code",
    [
        "def outdoor(impatient, belly): ...",
        "HouseX.told(door=1)",
        "call.end_told_at = 1",
        "x = bell",
    ],
)
def test_used_names_other_parts_and_a_column_are_accepted(code):
    assert python(code) == []


@pytest.mark.parametrize(
    "call",
    [
        'log.info("call refused", call=call)',
        'log.error(f"circuit_{state}")',
        'self._log(found).warning("No_alert")',
        "_log.exception(name)",
        "log.warning()",
    ],
)
def test_log_event_that_is_no_snake_case_key_is_found(call):
    assert python(call) == ["a.py:1: the log event is not a snake_case key"]


@pytest.mark.parametrize(
    "call", ['log.info("job_done")', 'client.info("a b")', 'self._log(x).error("a2")', "log.bind()"]
)
def test_snake_case_events_and_other_calls_are_accepted(call):
    assert python(call) == []


def test_document_is_checked_outside_its_code():
    text = "A door.\n\n    a door in code\n\n```\ndoor\n```\n`door`\n"
    assert check_document("a.md", text) == ["a.md:1: banned term: door"]


def test_files_are_checked_by_their_kind(tmp_path):
    (tmp_path / "a.md").write_text("A door.\n")
    (tmp_path / "a.py").write_text("# A door.\n")
    (tmp_path / "a.sql").write_text("-- A door.\n")
    assert check_files(tmp_path, ["a.md", "a.py", "a.sql"]) == [
        "a.md:1: banned term: door",
        "a.py:1: banned term: door",
    ]


def test_project_has_no_finding(capsys):
    assert main() == 0, capsys.readouterr().out
