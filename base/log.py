"""Structured logs on stderr: JSON lines or console lines, with a correlation id.

Bodies, tokens, phone numbers, and addresses of providers' certificates or control URLs are never
logged.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

LogFormat = Literal["json", "console"]


def configure(level: str = "INFO", log_format: LogFormat = "json") -> None:
    """Send the records of structlog and of all libraries to stderr.

    `json` writes one JSON object a line. `console` writes lines for a terminal, with the local
    time and in colour unless NO_COLOR is set (no-color.org).
    """
    is_console = log_format == "console"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        if is_console
        else structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The same list object as before, because loggers that were used already keep a reference to it.
    processors = structlog.get_config()["processors"]
    processors[:] = [*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(is_console),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These libraries log every request or migration at INFO, which would bury Holdfast's own
    # records. The records of httpx would also show whole URLs.
    for name in ("httpx", "httpcore", "twilio", "uvicorn.access", "dramatiq", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(is_console: bool) -> list[structlog.typing.Processor]:
    if is_console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=not os.environ.get("NO_COLOR"),
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose records carry the bound correlation id."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bound(**values: str | int | None) -> Iterator[None]:
    """Add these values to every record that is logged inside the block."""
    with structlog.contextvars.bound_contextvars(**values):
        yield
