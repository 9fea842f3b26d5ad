"""What a transaction may be told when nothing of it was committed and later may work; and how often
it is run again before that."""

from __future__ import annotations

from base.outcomes import NotYet

#: How often what others did, a deadlock above all, re-runs a transaction, the first run included.
RUNS_MAX = 3
#: Longest wait before such a re-run, in seconds; the wait itself is drawn by chance.
RERUN_WAIT_SECONDS = 0.05


class DatabaseBusy(NotYet):
    """A lock or a statement took too long, or the connection was lost before the commit."""


class StatementTooSlow(DatabaseBusy):
    """A statement, or a pause between two, took too long: for a job a failed attempt, no wait."""
