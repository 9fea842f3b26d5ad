"""Combines single debits of many threads into few commits; each keeps its own answer.

One thread and one connection a process: what comes while a batch is under way makes the next one,
so that nobody waits for company. A caller is answered only after the commit, and where the
commit's outcome is unknown nobody is told no. The thread begins with the first caller, and again
with the next one if it died.
"""

from __future__ import annotations

import contextlib
import threading
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import errors

from base.log import get_logger
from base.outcomes import OutcomeUnknown
from db.busy import DatabaseBusy
from db.debits.batch import Answer, CombinedCall, Debit, busy
from db.jobs.staging import Staged

__all__ = ["Answer", "Combiner", "Debit"]

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
        self,
        database_url: str,
        *,
        after_commit: Callable[[list[Staged]], None] = lambda _staged: None,
    ) -> None:
        self._call = CombinedCall(database_url, after_commit)
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
        # Whether nobody takes what waits: not begun, stopped or dead. Changed under _changing only,
        # but for the thread's own end.
        self._ended = True
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """This function will carry out what is waiting, answer everybody and end the thread.

        Replay: nothing happens. Who comes later is told DatabaseBusy.
        """
        with self._changing:
            self._stopping = True
        self._ring()
        if self._thread is not None:
            self._thread.join()

    def debit(self, debit: Debit) -> Answer:
        """This function will wait for the commit that holds the debit and give its answer.

        Replay: by key, as wallet_debit. Raises: DatabaseBusy when nothing was committed;
        OutcomeUnknown when that is not known, so that the caller repeats with the same key; and
        the database's own error when this debit alone is its cause.
        """
        if self._stopping or len(self._waiting) >= _WAITING_MAX:
            raise DatabaseBusy("combiner: stopped, or too many debits waiting")
        waiting = _Waiting(debit, self._sleeping_lock())
        self._waiting.append(waiting)
        if 0 < self._wanted <= len(self._waiting):
            self._ring()
        if self._ended:
            # Looked at after the append: a thread that ends says so first, then looks once more.
            self._begin()
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
        answer = waiting.answer
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            raise OutcomeUnknown("the combiner's thread died")
        return answer

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

    def _begin(self) -> None:
        """Starts the thread, for the first time or after it died, unless another caller has."""
        with self._changing:
            if not self._ended:
                return
            if self._stopping:
                _tell_all(self._take_everything(), DatabaseBusy("combiner: stopped"))
                return
            self._expected = self._wanted = 0
            self._thread = threading.Thread(target=self._run, name="combiner", daemon=True)
            self._ended = False
            try:
                self._thread.start()
            except BaseException:
                self._ended = True
                _tell_all(self._take_everything(), DatabaseBusy("combiner: no thread"))
                raise

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
            try:
                self._wake_all()
                self._call.disconnect()
            finally:
                # First the word, then the last look: whoever comes after the word begins anew.
                self._ended = True
                _tell_all(self._take_everything(), DatabaseBusy("combiner: its thread ended"))

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
            answers = self._call.debit_many([one.debit for one in batch])
        except (DatabaseBusy, OutcomeUnknown) as error:
            _tell_all(batch, error)
        except errors.LockNotAvailable as error:
            # One wallet is held by somebody: the others do not have to wait for it.
            if not self._answer_apart(batch, lambda one: one.debit.organization_id):
                _tell_all(batch, busy(error))
        except psycopg.OperationalError as error:
            _tell_all(batch, busy(error))
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
        # One iterator for all, so that each is woken exactly once, whoever does it; before the
        # answers, so that nobody sleeps on if the thread dies here.
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


def _wake_next(asleep: Iterator[_Waiting]) -> None:
    for one in asleep:
        one.lock.release()
        return


def _tell_all(batch: Sequence[_Waiting], error: BaseException) -> None:
    for one in batch:
        # One each: a shared exception would collect the tracebacks of every thread that raises it.
        one.tell(error if len(batch) == 1 else type(error)(*error.args))
