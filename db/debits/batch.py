"""Send a batch of debits as one transaction, on a connection outside the pool.

If the server reported an error, nothing was committed. If the connection was lost, the batch may
have been committed. Different exceptions distinguish the two.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from base.ids import new_id
from base.outcomes import OutcomeUnknown
from db.busy import RERUN_WAIT_SECONDS, RUNS_MAX, DatabaseBusy
from db.connection import connect_alone, text_array
from db.jobs.staging import Staged
from db.locks import warn_if_waited
from db.watchdog import Watchdog

#: The statement of a batch. It is never prepared, because a transaction pooler may pass each batch
#: to another server connection.
_DEBIT_MANY = (
    "SELECT outcomes, replayed, entry_nos, balances, helds, oweds, befores, job_ids"
    " FROM wallet_debit_many(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],"
    " NULL, %s::text[])"
)


class Debit(NamedTuple):
    """One requested debit.

    The amount is 1 to 10^15 micros; the key has 1 to 200 characters.
    """

    organization_id: str
    key: str
    amount_micros: int
    currency: str
    counter_account: str


#: Outcome, replayed, entry number, balance, held, outstanding amount, and available before the
#: debit, as `wallet_debit_many` returns them.
Answer = tuple[str, bool, int | None, int | None, int | None, int | None, int | None]


class BatchConnection:
    """The connection that sends batches, opened on first use and again after a loss.

    `after_commit` receives the jobs that a batch staged. It must not raise. If the server does not
    respond within `longest_seconds`, the connection counts as lost.
    """

    def __init__(
        self,
        database_url: str,
        after_commit: Callable[[list[Staged]], None],
        longest_seconds: float,
    ) -> None:
        self._url = database_url
        self._watchdog = Watchdog(longest_seconds)
        self._after_commit = after_commit
        self._connection: psycopg.Connection[Any] | None = None

    def debit_many(self, debits: Sequence[Debit]) -> list[Answer]:
        """Commit the debits in one transaction and return their answers in order.

        The call is repeated after a deadlock or a serialization failure, up to three times in all.
        Raises: DatabaseBusy if there is no connection, if the server is read-only, or if every run
        conflicted; OutcomeUnknown if the connection was lost; every other error of the server
        unchanged. Nothing was committed, except perhaps after OutcomeUnknown.
        """
        for runs_left in range(RUNS_MAX - 1, -1, -1):
            try:
                return self._send_batch(debits)
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if not runs_left:
                    raise DatabaseBusy(f"database: {type(error).__name__}") from error
                time.sleep(random.uniform(0, RERUN_WAIT_SECONDS))  # noqa: S311
        raise AssertionError("unreachable")

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _send_batch(self, debits: Sequence[Debit]) -> list[Answer]:
        orgs, keys, amounts, currencies, counters = zip(*debits, strict=True)
        texts = (orgs, keys, currencies, counters, [new_id("job") for _ in set(orgs)])
        org_array, key_array, currency_array, counter_array, job_array = map(text_array, texts)
        amount_array = f"{{{','.join(map(str, amounts))}}}"
        connection = self._open_connection()
        began = time.monotonic()
        try:
            with self._watchdog.watching(connection):
                row: Any = connection.execute(
                    _DEBIT_MANY,
                    (org_array, key_array, amount_array, currency_array, counter_array, job_array),
                ).fetchone()
        except errors.ReadOnlySqlTransaction as error:
            # After a failover this server is read-only. The next connection may reach the new
            # primary.
            self.disconnect()
            raise DatabaseBusy(f"database: {type(error).__name__}") from error
        except BaseException as error:
            # If the connection is alive, the server reported the error and rolled back. In every
            # other case the batch may have been committed.
            if isinstance(error, Exception) and not connection.closed:
                raise
            self.disconnect()
            raise OutcomeUnknown("connection lost in a combined debit") from error
        finally:
            warn_if_waited(began, *set(orgs))
        *columns, staged = row
        if staged:
            self._after_commit([Staged(job, "enforce_organization", "safety") for job in staged])
        return list(zip(*columns, strict=True))

    def _open_connection(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = connect_alone(self._url, "combiner")
            except psycopg.OperationalError as error:
                raise DatabaseBusy("combiner: no connection") from error
        return self._connection
