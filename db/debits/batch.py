"""The call that carries a batch of debits, on a connection of its own, as one transaction.

It tells apart what the server refused, which was rolled back, from what it may have committed.
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

#: Not prepared: a transaction pooler may hand every batch to another server connection.
_CALL = (
    "SELECT outcomes, replayed, entry_nos, balances, helds, oweds, befores, job_ids"
    " FROM wallet_debit_many(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],"
    " NULL, %s::text[])"
)


class Debit(NamedTuple):
    """One debit as it is asked for: amount in micros, 1 to 10^15; key of 1 to 200 characters."""

    organization_id: str
    key: str
    amount_micros: int
    currency: str
    counter_account: str


#: outcome, replayed, entry_no, balance, held, owed, available before: see wallet_debit_many.
Answer = tuple[str, bool, int | None, int | None, int | None, int | None, int | None]


class CombinedCall:
    """One connection, made when first needed, and made again when it was lost.

    `after_commit` is told the jobs that were staged; it must not raise.
    """

    def __init__(self, database_url: str, after_commit: Callable[[list[Staged]], None]) -> None:
        self._url = database_url
        self._after_commit = after_commit
        self._connection: psycopg.Connection[Any] | None = None

    def debit_many(self, debits: Sequence[Debit]) -> list[Answer]:
        """This function will commit the debits together and give each one's answer, in order.

        Raises: DatabaseBusy when there is no connection or others were in the way each time;
        OutcomeUnknown when the connection was lost; else the server's own error, after which
        nothing was committed.
        """
        for left in range(RUNS_MAX - 1, -1, -1):
            try:
                return self._call(debits)
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if not left:
                    raise busy(error) from error
                time.sleep(random.uniform(0, RERUN_WAIT_SECONDS))  # noqa: S311
        raise AssertionError("unreachable")

    def disconnect(self) -> None:
        """This function will close the connection. Replay: nothing happens."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _call(self, debits: Sequence[Debit]) -> list[Answer]:
        orgs, keys, amounts, currencies, counters = zip(*debits, strict=True)
        texts = (orgs, keys, currencies, counters, [new_id("job") for _ in set(orgs)])
        org_array, key_array, currency_array, counter_array, job_array = map(text_array, texts)
        amount_array = f"{{{','.join(map(str, amounts))}}}"
        connection = self._connected()
        try:
            row: Any = connection.execute(
                _CALL,
                (org_array, key_array, amount_array, currency_array, counter_array, job_array),
            ).fetchone()
        except errors.ReadOnlySqlTransaction as error:
            # Another server was put in its place: the next connection may lead to that one.
            self.disconnect()
            raise busy(error) from error
        except BaseException as error:
            # The server's own no over a living connection was a rollback; all else may have been
            # committed.
            if isinstance(error, Exception) and not connection.closed:
                raise
            self.disconnect()
            raise OutcomeUnknown("connection lost in a combined debit") from error
        *columns, staged = row
        if staged:
            self._after_commit([Staged(job, "enforce_organization", "safety") for job in staged])
        return list(zip(*columns, strict=True))

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = connect_alone(self._url, "combiner")
            except psycopg.OperationalError as error:
                raise DatabaseBusy("combiner: no connection") from error
        return self._connection


def busy(error: psycopg.Error) -> DatabaseBusy:
    """This function will say in our words that the server was in the way and nothing was done."""
    return DatabaseBusy(f"database: {type(error).__name__}")
