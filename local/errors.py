"""Errors of local servers and processes. Each message is one line."""

from __future__ import annotations


class EmbeddedServerError(Exception):
    """An embedded PostgreSQL or Valkey could not be started or stopped."""


class ProcessNotReady(Exception):
    """A child process ended, or the time limit passed, before it was ready."""
