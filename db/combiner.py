"""Combines single debits of many threads into few commits; each keeps its own answer.

One thread and one connection a process: what comes while a batch is under way makes the next one,
so that nobody waits for company. A caller is answered only after the commit, and where the
commit's outcome is unknown nobody is told no.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import errors

from base.ids import new_id
from base.log import get_logger
from base.outcomes import OutcomeUnknown
from db.engine import DatabaseBusy, driver_url
from db.jobs import Staged

log = get_logger(__name__)

#: Debits in one call and one commit at most.
_BATCH_MAX = 256
#: Debits that may wait in one process; more are refused as busy, and nothing was sent for them.
_WAITING_MAX = 10_000
#: Seconds a caller waits for its answer: longer than a lock and a statement may take together
#: with the re-runs behind them. After it the outcome is unknown.
_ANSWER_SECONDS = 20.0
#: Seconds a batch waits for those who were answered just now and are about to ask again.
_LINGER_SECONDS = 0.001
#: How often a deadlock or a serialization failure re-runs a batch, the first run included.
_RUNS_MAX = 3
_RERUN_WAIT_SECONDS = 0.05
#: Seconds after which a silent network counts as a lost connection.
_SILENCE_SECONDS = 8

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


class _Waiting:
    """A caller: its debit, the lock it sleeps on, what it is told, and whom it wakes then."""

    __slots__ = ("answer", "behind", "debit", "lock")

    def __init__(self, debit: Debit, lock: LockType) -> None:
        self.debit = debit
        self.lock = lock
        self.answer: Answer | BaseException | None = None
        self.behind: Iterator[_Waiting] = iter(())

    def tell(self, answer: Answer | BaseException) -> None:
        self.answer = answer
        self.lock.release()


class Combiner:
    """The one door of a process for single debits, each a transaction of its own.

    `after_commit` is told the jobs that were staged; it must not raise.
    """

    def __init__(
        self, database_url: str, *, after_commit: Callable[[list[Staged]], None] | None = None
    ) -> None:
        self._url = driver_url(database_url)
        self._after_commit = after_commit
        self._connection: psycopg.Connection[Any] | None = None
        self._waiting: deque[_Waiting] = deque()
        self._locks = threading.local()
        # What the thread sleeps on, and how many waiting callers are to wake it (0: it is awake).
        self._wake = allocate_lock()
        self._wake.acquire()
        self._wanted = 0
        self._expected = 0
        # The callers of the last batch that are not woken yet.
        self._asleep: Iterator[_Waiting] = iter(())
        self._stopping = False
        self._ended = True
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """This function will start the thread; the connection is made when first needed."""
        self._stopping = self._ended = False
        self._thread = threading.Thread(target=self._run, name="combiner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """This function will carry out what is waiting, answer everybody and end the thread.

        Replay: nothing happens. Who comes later is told DatabaseBusy.
        """
        self._stopping = True
        self._ring()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def debit(self, debit: Debit) -> Answer:
        """This function will wait for the commit that holds the debit and give its answer.

        Replay: by key, as wallet_debit. Raises: DatabaseBusy when nothing was committed;
        OutcomeUnknown when that is not known, so that the caller repeats with the same key; and
        the database's own error when this debit alone is its cause.
        """
        if self._ended or self._stopping or len(self._waiting) >= _WAITING_MAX:
            raise DatabaseBusy("combiner: stopped, or too many debits waiting")
        waiting = _Waiting(debit, self._sleeping_lock())
        self._waiting.append(waiting)
        if 0 < self._wanted <= len(self._waiting):
            self._ring()
        if self._ended:
            # It ended between the check and here, and may have looked for the last time before.
            _tell_all(self._take_everything(), DatabaseBusy("combiner: stopped"))
        answered = False
        try:
            answered = waiting.lock.acquire(timeout=_ANSWER_SECONDS)
        finally:
            if not answered:
                # The answer may still come and release it: this lock must never be slept on again.
                del self._locks.lock
        if not answered:
            raise OutcomeUnknown("no answer in time from the combiner")
        _wake_next(waiting.behind)
        answer: Any = waiting.answer
        if isinstance(answer, BaseException):
            raise answer
        return cast(Answer, answer)

    @property
    def waiting_count(self) -> int:
        """How many callers wait for their batch to be sent."""
        return len(self._waiting)

    # -- callers ----------------------------------------------------------------------------------

    def _sleeping_lock(self) -> LockType:
        """This thread's lock, held: a bare lock hands over faster than an Event or a Future."""
        try:
            lock: LockType = self._locks.lock
        except AttributeError:
            lock = self._locks.lock = allocate_lock()
            lock.acquire()
        return lock

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # somebody else rang already
            self._wake.release()

    def _take_everything(self) -> list[_Waiting]:
        taken = []
        while True:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:
                return taken

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._answer(batch)
        except BaseException:
            log.exception("combiner thread died")
            raise
        finally:
            self._wake_all()
            # First the word, then the last look: whoever comes after the word looks as well.
            self._ended = True
            _tell_all(self._take_everything(), DatabaseBusy("combiner: stopped"))
            self._disconnect()

    def _next_batch(self) -> list[_Waiting]:
        """Waits for work; nothing when stopping and all is done."""
        self._sleep(self._expected, _LINGER_SECONDS)
        self._wake_all()
        while not self._waiting:
            if self._stopping:
                return []
            self._sleep(1, -1)
        batch: list[_Waiting] = []
        seen = set()
        held_back = []
        while self._waiting and len(batch) < _BATCH_MAX:
            one = self._waiting.popleft()
            name = (one.debit.organization_id, one.debit.key)
            if name in seen:
                # The second of a key reads what the first one's commit wrote.
                held_back.append(one)
            else:
                seen.add(name)
                batch.append(one)
        self._waiting.extendleft(reversed(held_back))
        return batch

    def _sleep(self, wanted: int, seconds: float) -> None:
        self._wanted = wanted
        # Looked at again after the word: whoever appends later sees it and rings.
        if len(self._waiting) < wanted and not self._stopping:
            self._wake.acquire(timeout=seconds)
        self._wanted = 0

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            answers = self._debit_many([one.debit for one in batch])
        except (DatabaseBusy, OutcomeUnknown) as error:
            _tell_all(batch, error)
        except errors.LockNotAvailable as error:
            # One wallet is held by somebody: the others do not have to wait for it.
            if not self._answer_apart(batch, lambda one: one.debit.organization_id):
                _tell_all(batch, _busy(error))
        except psycopg.OperationalError as error:
            _tell_all(batch, _busy(error))
        except Exception as error:
            # One row cannot even be refused: the others are not to be touched by it.
            if not self._answer_apart(batch, id):
                _tell_all(batch, error)
        except BaseException:
            _tell_all(batch, OutcomeUnknown("the combiner was interrupted"))
            raise
        else:
            self._hand_out(batch, answers)

    def _hand_out(self, batch: list[_Waiting], answers: list[Answer]) -> None:
        """Wakes the first, who wakes the next: all at once would only fight for the interpreter."""
        self._wake_all()
        # Who is told now is about to ask again, beside those who wait already.
        self._expected = min(len(batch) + len(self._waiting), _BATCH_MAX)
        # One iterator for all, so that each is woken exactly once, whoever does it.
        self._asleep = iter(batch)
        for one, answer in zip(batch, answers, strict=True):
            one.answer, one.behind = answer, self._asleep
        _wake_next(self._asleep)

    def _wake_all(self) -> None:
        # Somebody in the row may have given up before it was its turn, and woken nobody.
        for one in self._asleep:
            one.lock.release()

    def _answer_apart(self, batch: list[_Waiting], group_of: Callable[[_Waiting], Any]) -> bool:
        """Answers each group by a call of its own; False where there is one group only."""
        groups: dict[Any, list[_Waiting]] = {}
        for one in batch:
            groups.setdefault(group_of(one), []).append(one)
        if len(groups) == 1:
            return False
        log.warning("combined debits taken apart", size=len(batch), groups=len(groups))
        for group in groups.values():
            self._answer(group)
        return True

    # -- the database -----------------------------------------------------------------------------

    def _debit_many(self, debits: Sequence[Debit]) -> list[Answer]:
        for left in range(_RUNS_MAX - 1, -1, -1):
            try:
                return self._call(debits)
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if not left:
                    raise _busy(error) from error
                time.sleep(random.uniform(0, _RERUN_WAIT_SECONDS))  # noqa: S311
        raise AssertionError("unreachable")

    def _call(self, debits: Sequence[Debit]) -> list[Answer]:
        orgs, keys, amounts, currencies, counters = zip(*debits, strict=True)
        texts = (orgs, keys, currencies, counters, [new_id("job") for _ in set(orgs)])
        org_array, key_array, currency_array, counter_array, job_array = map(_text_array, texts)
        amount_array = f"{{{','.join(map(str, amounts))}}}"
        connection = self._connected()
        try:
            row: Any = connection.execute(
                _CALL,
                (org_array, key_array, amount_array, currency_array, counter_array, job_array),
            ).fetchone()
        except BaseException as error:
            # The server's own no over a living connection was a rollback; all else may have been
            # committed.
            if isinstance(error, Exception) and not connection.closed:
                raise
            self._disconnect()
            raise OutcomeUnknown("connection lost in a combined debit") from error
        *columns, staged = row
        if staged and self._after_commit is not None:
            self._after_commit([Staged(job, "enforce_organization", "safety") for job in staged])
        return list(zip(*columns, strict=True))

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = psycopg.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=2,
                    prepare_threshold=None,
                    application_name="holdfast combiner",
                    keepalives_idle=_SILENCE_SECONDS,
                    tcp_user_timeout=_SILENCE_SECONDS * 1000,
                )
            except psycopg.OperationalError as error:
                raise DatabaseBusy("combiner: no connection") from error
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _wake_next(asleep: Iterator[_Waiting]) -> None:
    for one in asleep:
        one.lock.release()
        return


def _text_array(texts: Sequence[str]) -> str:
    """An array as PostgreSQL reads it; the driver's own way of writing lists takes longer."""
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(escaped) + '"}'


def _busy(error: psycopg.Error) -> DatabaseBusy:
    return DatabaseBusy(f"database: {type(error).__name__}")


def _tell_all(batch: Sequence[_Waiting], error: BaseException) -> None:
    for one in batch:
        # One each: a shared exception would collect the tracebacks of every thread that raises it.
        one.tell(error if len(batch) == 1 else type(error)(*error.args))
