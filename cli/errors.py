"""Turn the expected errors of a command into one line and an exit status.

Every serving process imports this module, so it imports nothing that only some commands need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from base.outcomes import NotYet, OutcomeUnknown, Refused
from base.problems.code import Code
from base.settings import SettingsError
from cli import database_errors
from local.errors import EmbeddedServerError, ProcessNotReady, WaitExpired


class Failure(Exception):
    """The command cannot be carried out. The message is one clear line."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn expected errors into one line and exit status 1 (settings: 2)."""
    try:
        yield
    except Refused as refused:
        _exit_with_line(describe_refusal(refused.code, refused.detail), 1)
    except (Failure, EmbeddedServerError, ProcessNotReady, WaitExpired) as error:
        _exit_with_line(str(error), 1)
    except NotYet as error:
        _exit_with_line(database_errors.describe(error), 1)
    except OutcomeUnknown as error:
        _exit_with_line(f"{error}: check whether it was done before you repeat it", 1)
    except SettingsError as error:
        _exit_with_line(str(error), 2)


def describe_refusal(code: Code, detail: str = "") -> str:
    """Describe a refusal in one line: its code, title and, if given, detail."""
    title = code.title.removesuffix(".") if detail else code.title
    return f"{code}: {title}: {detail}" if detail else f"{code}: {title}"


def _exit_with_line(line: str, code: int) -> None:
    sys.stderr.write(f"holdfast: {line}\n")
    raise typer.Exit(code)
