"""Errors of a transaction that may succeed later, and the limits of its re-runs.

Nothing of such a transaction was committed.
"""

from __future__ import annotations

from base.outcomes import NotYet

#: Most runs of a transaction that conflicts with others, for example by a deadlock. The first run
#: is included.
RUNS_MAX = 3
#: Longest wait before a re-run, in seconds. The wait is random.
RERUN_WAIT_SECONDS = 0.05


class DatabaseBusy(NotYet):
    """A transaction could not be committed now, but may succeed later.

    For example, a lock took too long, every connection was in use, or the connection was lost
    before the commit.
    """


class StatementTooSlow(DatabaseBusy):
    """A statement, or a pause between two statements, took too long.

    For a job this is a failed attempt, not a postponement, because a repetition would most likely
    be as slow.
    """
