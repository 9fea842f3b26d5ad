"""Errors of local servers and processes. Each message is one line."""

from __future__ import annotations


class EmbeddedServerError(Exception):
    """An embedded PostgreSQL or Valkey could not be started or stopped."""


class WaitExpired(Exception):
    """A step of the demo did not happen in time, and the next step depends on it."""

    def __init__(self, wait: str, seconds: float) -> None:
        super().__init__(
            f"the demo waited {seconds:g} s for {wait}; the machine may be too busy:"
            " stop other programs and run it again"
        )


class ProcessNotReady(Exception):
    """A child process ended, or the time limit passed, before it was ready."""
