"""Combine single debits of many threads into few commits, with an answer for each.

Each process has one thread and one connection for this. Debits that arrive while a batch is sent
form the next batch, so that no caller waits for a batch to fill. Callers get their answers only
after the commit. If the outcome of the commit is unknown, no caller gets a refusal. The thread
starts with the first debit. If the thread dies, the next debit starts it again.
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
from db.busy import DatabaseBusy, transient_error
from db.debits.batch import Answer, BatchConnection, Debit
from db.jobs.staging import Staged

__all__ = ["Answer", "Combiner", "Debit"]

log = get_logger(__name__)

#: Largest number of debits in one call and one commit.
_BATCH_MAX = 256
#: Largest number of debits that may wait in one process. Further ones are refused as busy and are
#: not sent.
_WAITING_MAX = 10_000
#: Seconds that a caller waits for its answer. This is longer than a lock wait, a statement and
#: their re-runs can take together. Afterwards the outcome is unknown.
_ANSWER_SECONDS = 20.0
#: Seconds without a response after which the server counts as lost. This is longer than a statement
#: may take.
_SILENCE_SECONDS_MAX = 8.0
#: Seconds that a batch waits for callers that just got an answer, because they often send another
#: debit at once.
_LINGER_SECONDS = 0.001


class _WaitingCaller:
    """A waiting caller: its debit, its lock, its answer, and the callers to wake next."""

    __slots__ = ("answer", "debit", "lock", "next_to_wake")

    def __init__(self, debit: Debit, lock: LockType) -> None:
        self.debit = debit
        self.lock = lock
        self.answer: Answer | BaseException | None = None
        self.next_to_wake: Iterator[_WaitingCaller] = iter(())

    def resolve(self, answer: Answer | BaseException) -> None:
        self.answer = answer
        self.lock.release()


class Combiner:
    """The combiner of a process, for debits that are not part of another transaction.

    `after_commit` receives the jobs that were staged. It must not raise.
    """

    def __init__(
        self,
        database_url: str,
        *,
        after_commit: Callable[[list[Staged]], None] = lambda _staged: None,
        longest_seconds: float = _SILENCE_SECONDS_MAX,
    ) -> None:
        self._batch_connection = BatchConnection(database_url, after_commit, longest_seconds)
        self._waiting: deque[_WaitingCaller] = deque()
        self._locks = threading.local()
        # The thread sleeps on `_wake_lock`. `_wake_count` is the number of waiting callers at which
        # a caller wakes the thread; 0 means that the thread is awake.
        self._wake_lock = allocate_lock()
        self._wake_lock.acquire()
        self._wake_count = 0
        self._expected_count = 0
        # The callers of the last batch that are not yet woken.
        self._callers_to_wake: Iterator[_WaitingCaller] = iter(())
        self._stopping = False
        # True while no thread takes the waiting debits: before the start, after the stop, or after
        # the thread's death. It changes under `_state_lock`, except when the thread itself ends.
        self._ended = True
        self._state_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """Send the waiting debits, answer their callers, and end the thread.

        A second call changes nothing. Later debits raise DatabaseBusy.
        """
        with self._state_lock:
            self._stopping = True
        self._notify()
        if self._thread is not None:
            self._thread.join()

    def debit(self, debit: Debit) -> Answer:
        """Wait for the commit that contains the debit and return its answer.

        A replay with the same key returns the first result, as `wallet_debit` does. After
        OutcomeUnknown the caller must repeat the debit with the same key. Raises: DatabaseBusy if
        nothing was committed, and StatementTooSlow if the cause is a time limit; OutcomeUnknown if
        the debit may have been committed; DiskFull if the server cannot store it; the server's
        error if this debit alone causes it.
        """
        if self._stopping or len(self._waiting) >= _WAITING_MAX:
            raise DatabaseBusy("combiner: stopped, or too many debits waiting")
        waiting = _WaitingCaller(debit, self._sleeping_lock())
        self._waiting.append(waiting)
        if 0 < self._wake_count <= len(self._waiting):
            self._notify()
        if self._ended:
            # This check must follow the append. A thread that ends first sets `_ended`, then
            # answers what still waits. In any other order a debit could be left without a thread.
            self._start_thread()
        answered = False
        try:
            answered = waiting.lock.acquire(timeout=_ANSWER_SECONDS)
        finally:
            if not answered:
                # A late answer may still release this lock. The thread must not use it again, or
                # its next debit would wake too early.
                del self._locks.lock
        if not answered:
            raise OutcomeUnknown("no answer in time from the combiner")
        _wake_next(waiting.next_to_wake)
        answer = waiting.answer
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            raise OutcomeUnknown("the combiner's thread died")
        return answer

    @property
    def waiting_count(self) -> int:
        """The number of callers whose debit is not yet taken into a batch."""
        return len(self._waiting)

    # -- callers ----------------------------------------------------------------------------------

    def _sleeping_lock(self) -> LockType:
        """Return the current thread's lock, acquired.

        A bare lock wakes its thread faster than an Event or a Future.
        """
        try:
            lock: LockType = self._locks.lock
        except AttributeError:
            lock = self._locks.lock = allocate_lock()
            lock.acquire()
        return lock

    def _start_thread(self) -> None:
        """Start the thread, for the first time or after its death.

        If another caller has started it already, nothing happens.
        """
        with self._state_lock:
            if not self._ended:
                return
            if self._stopping:
                _fail_all(self._take_all_waiting(), DatabaseBusy("combiner: stopped"))
                return
            self._expected_count = self._wake_count = 0
            self._thread = threading.Thread(target=self._run, name="combiner", daemon=True)
            self._ended = False
            try:
                self._thread.start()
            except BaseException:
                self._ended = True
                _fail_all(self._take_all_waiting(), DatabaseBusy("combiner: no thread"))
                raise

    def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):  # another caller has released it already
            self._wake_lock.release()

    def _take_all_waiting(self) -> list[_WaitingCaller]:
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
                self._send_and_answer(batch)
        except BaseException:
            log.exception("combiner_thread_died")
            raise
        finally:
            try:
                self._wake_all()
                self._batch_connection.disconnect()
            finally:
                # The flag is set before the last debits are answered. A debit that is appended
                # after the flag starts a new thread.
                self._ended = True
                _fail_all(self._take_all_waiting(), DatabaseBusy("combiner: its thread ended"))

    def _next_batch(self) -> list[_WaitingCaller]:
        """Wait for debits and take a batch; return none if stopping and all are sent."""
        self._sleep(self._expected_count, _LINGER_SECONDS)
        self._wake_all()
        while not self._waiting:
            if self._stopping:
                return []
            self._sleep(1, -1)
        batch: list[_WaitingCaller] = []
        seen = set()
        held_back = []
        while self._waiting and len(batch) < _BATCH_MAX:
            caller = self._waiting.popleft()
            name = (caller.debit.organization_id, caller.debit.key)
            if name in seen:
                # A second debit with the same key waits for the next batch, where it reads the
                # result that the first one's commit wrote.
                held_back.append(caller)
            else:
                seen.add(name)
                batch.append(caller)
        self._waiting.extendleft(reversed(held_back))
        return batch

    def _sleep(self, wanted: int, seconds: float) -> None:
        self._wake_count = wanted
        # The queue is checked after `_wake_count` is set. A caller that appends later sees it and
        # wakes this thread.
        if len(self._waiting) < wanted and not self._stopping:
            self._wake_lock.acquire(timeout=seconds)
        self._wake_count = 0

    def _send_and_answer(self, batch: list[_WaitingCaller]) -> None:
        try:
            answers = self._batch_connection.debit_many([caller.debit for caller in batch])
        except (DatabaseBusy, OutcomeUnknown) as error:
            _fail_all(batch, error)
        except errors.LockNotAvailable as error:
            # One wallet is locked by another transaction. The other wallets need not wait for it.
            if not self._answer_in_groups(batch, lambda caller: caller.debit.organization_id):
                _fail_all(batch, transient_error(error) or error)
        except psycopg.OperationalError as error:
            _fail_all(batch, transient_error(error) or error)
        except Exception as error:
            # One debit fails with an error of the server. It must not fail the others.
            if not self._answer_in_groups(batch, id):
                _fail_all(batch, error)
        except BaseException:
            _fail_all(batch, OutcomeUnknown("the combiner was interrupted"))
            raise
        else:
            self._deliver_answers(batch, answers)

    def _deliver_answers(self, batch: list[_WaitingCaller], answers: list[Answer]) -> None:
        """Deliver the answers and wake the first caller, which wakes the next one.

        Threads that are all woken at once would only compete for the interpreter lock.
        """
        self._wake_all()
        # The callers that get an answer now will often send another debit, in addition to those
        # that wait already.
        self._expected_count = min(len(batch) + len(self._waiting), _BATCH_MAX)
        # All callers share one iterator, so that each is woken exactly once. It is set before the
        # answers, so that every caller is woken even if the thread dies here.
        self._callers_to_wake = iter(batch)
        for caller, answer in zip(batch, answers, strict=True):
            caller.answer, caller.next_to_wake = answer, self._callers_to_wake
        _wake_next(self._callers_to_wake)

    def _wake_all(self) -> None:
        # A caller that gave up before its turn has not woken the next one.
        for caller in self._callers_to_wake:
            caller.lock.release()

    def _answer_in_groups(
        self, batch: list[_WaitingCaller], group_of: Callable[[_WaitingCaller], Any]
    ) -> bool:
        """Send each group in a separate call; return False if there is only one group."""
        groups: dict[Any, list[_WaitingCaller]] = {}
        for caller in batch:
            groups.setdefault(group_of(caller), []).append(caller)
        if len(groups) == 1:
            return False
        log.warning("combined_debits_split", size=len(batch), groups=len(groups))
        for group in groups.values():
            self._send_and_answer(group)
        return True


def _wake_next(callers: Iterator[_WaitingCaller]) -> None:
    for caller in callers:
        caller.lock.release()
        return


def _fail_all(batch: Sequence[_WaitingCaller], error: BaseException) -> None:
    for caller in batch:
        # Each caller gets its own exception. A shared one would collect the tracebacks of all the
        # threads that raise it.
        caller.resolve(error if len(batch) == 1 else type(error)(*error.args))
