"""What a transaction may be told when nothing of it was committed and later may work."""

from __future__ import annotations

from base.outcomes import NotYet


class DatabaseBusy(NotYet):
    """A lock or a statement took too long, or the connection was lost before the commit."""


class StatementTooSlow(DatabaseBusy):
    """A statement, or a pause between two, took too long: for a job a failed attempt, no wait."""
