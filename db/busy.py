"""Errors of a transaction that may succeed later, and the limits of its re-runs.

Nothing of such a transaction was committed.
"""

from __future__ import annotations

import psycopg
from psycopg import errors

from base.outcomes import NotYet

#: Largest number of runs of a transaction that conflicts with others, for example by a deadlock.
#: The first run is included.
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


#: Errors that the work itself causes. A repetition would most likely end in the same way.
_TOO_SLOW_ERRORS = (errors.QueryCanceled, errors.IdleInTransactionSessionTimeout)
#: Errors that pass. After a failover, the old server is read-only. A new connection may reach the
#: new primary.
_PASSING_ERRORS = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.ReadOnlySqlTransaction,
    psycopg.OperationalError,
)


def transient_error(cause: BaseException | None) -> DatabaseBusy | None:
    """Convert an error of the server or the connection, if a later try may succeed.

    Otherwise the result is None. A full disk is not converted, because it stays full until a person
    acts.
    """
    if isinstance(cause, errors.DiskFull) or not isinstance(
        cause, _TOO_SLOW_ERRORS + _PASSING_ERRORS
    ):
        return None
    error_class = StatementTooSlow if isinstance(cause, _TOO_SLOW_ERRORS) else DatabaseBusy
    return error_class(f"database: {type(cause).__name__}")
