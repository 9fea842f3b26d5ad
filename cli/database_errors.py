"""Turns a database error into one line: the server's message and what to do next."""

from __future__ import annotations

import re

import psycopg
from sqlalchemy.exc import DBAPIError

from base.outcomes import NotYet
from base.settings import load_settings
from cli.invocation import started_command

#: A password with an unescaped @ is read as part of the host, which error messages quote.
_BEFORE_AT = re.compile(r"[^\s\"']*@")


def describe(error: NotYet) -> str:
    """Describe in one line why the database did nothing, with the server's message."""
    cause = error.__cause__
    answer = cause.orig if isinstance(cause, DBAPIError) else None
    if answer is None:
        return f"the database cannot do it now: {error}"
    lines = (line.strip().rstrip(".") for line in str(answer).splitlines())
    message = _without_password(". ".join(line for line in lines if line))
    # Without an SQLSTATE the message is libpq's: the connection failed or was lost.
    if isinstance(answer, psycopg.OperationalError) and answer.sqlstate is None:
        return f"cannot connect to the database: {message}; {_next_step()}"
    return f"the database cannot do it now: {message}"


def _next_step() -> str:
    if load_settings().database_url:
        return "check DATABASE_URL"
    return f"is `{started_command()} up` running?"


def _without_password(message: str) -> str:
    return _BEFORE_AT.sub("...@", message)
