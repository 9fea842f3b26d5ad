"""Every command that acts manually refuses an empty reason before it connects."""

from __future__ import annotations

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from base.problems.operators import REASON_REQUIRED
from cli.main import COMMANDS as LAZY_COMMANDS
from cli.main import app

#: Each command with its arguments. Commands whose --why is optional have tests of
#: their own.
COMMANDS = [
    ("alert", "clear", "1"),
    ("call", "entry-point", "add", "ORG", "assistant", "asst"),
    ("call", "entry-point", "remove", "assistant", "asst"),
    ("call", "end", "CALL"),
    ("call", "rate", "remove", "ORG", "default"),
    ("call", "rate", "set", "ORG", "--per-minute", "1"),
    ("call", "settle", "CALL", "--seconds", "1"),
    ("call", "terms", "set", "ORG", "--step-seconds", "5"),
    ("campaign", "pause", "CAMPAIGN"),
    ("campaign", "start", "CAMPAIGN"),
    ("job", "discard", "JOB"),
    ("job", "redrive", "JOB"),
    ("job", "run-now", "JOB"),
    ("org", "enforce", "ORG"),
    ("provider", "close-circuit", "twilio", "bulk"),
    ("wallet", "correct", "ORG", "1"),
    ("wallet", "debt-limit", "ORG", "1"),
    ("wallet", "freeze", "ORG"),
    ("wallet", "override", "ORG", "--reason", "manual", "--hours", "1"),
    ("wallet", "rebuild", "ORG"),
    ("wallet", "unfreeze", "ORG"),
]
TESTED_IN_TEST_WATCH = {"wallet thresholds", "wallet auto-top-up"}


def paths_with_a_reason(command, path):
    """Return the path of each command with the option --why, except hidden ones."""
    if command.hidden:
        return set()
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        return {
            found
            for name in command.list_commands(context)
            for found in paths_with_a_reason(command.get_command(context, name), (*path, name))
        }
    return {" ".join(path)} if any("--why" in one.opts for one in command.params) else set()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_empty_reason_is_refused_before_the_command_connects(arguments, monkeypatch):
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"):
        monkeypatch.setenv(name, "unusable")
    done = CliRunner().invoke(app, [*arguments, "--why", " ", "--by", "ann"])
    assert (done.exit_code, done.stdout) == (1, "")
    title = REASON_REQUIRED.title.removesuffix(".")
    assert done.stderr == f"holdfast: REASON_REQUIRED: {title}: the reason must not be empty\n"


def test_every_command_with_a_reason_is_tested():
    found = set()
    for name, command in LAZY_COMMANDS.items():
        if not command.hidden:
            found |= paths_with_a_reason(command.load(name), (name,))
    tested = {
        path for path in found for arguments in COMMANDS if " ".join(arguments).startswith(path)
    }
    assert found == tested | TESTED_IN_TEST_WATCH
