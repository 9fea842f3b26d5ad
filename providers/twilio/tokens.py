"""Fetch and remember the auth tokens that sign subaccounts' callbacks.

The sender of a callback is not authenticated yet when its token is needed. So a forger must not be
able to make us send many requests to Twilio, and learns only that its callback cannot be judged.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from base.outcomes import HeldBack, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected

#: Seconds for which a subaccount's token is remembered, so that a rotated one is noticed soon.
TOKEN_TTL_SECONDS = 600.0
#: Seconds after a refetch during which further failed signatures of the same subaccount cause no
#: other refetch.
REFETCH_SECONDS = 30.0
#: Seconds after a failed fetch during which the same error is raised without a request.
FAILED_SECONDS = 5.0
#: Subaccounts that are remembered at once.
_KEPT_MAX = 1024


class TokenMemory:
    """Remembers tokens in memory only; safe to share between threads.

    `fetch` asks Twilio for one. It raises Refused, ProviderUnavailable, CredentialsRejected or
    HeldBack; `wait_seconds` is longer than it takes.
    """

    def __init__(
        self, fetch: Callable[[str], str], clock: Callable[[], float], wait_seconds: float
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, tuple[float, str]] = OrderedDict()

        def fetch_and_keep(sid: str) -> str:
            token = fetch(sid)
            self._keep(sid, token)
            return token

        self._first = _SharedFetch(fetch_and_keep, clock, wait_seconds, kept_seconds=0)
        self._again = _SharedFetch(
            fetch_and_keep, clock, wait_seconds, kept_seconds=REFETCH_SECONDS
        )

    def known(self, sid: str) -> str | None:
        """Return the remembered token, or None if there is none or it is too old."""
        with self._lock:
            entry = self._tokens.get(sid)
            if entry is None or self._clock() >= entry[0] + TOKEN_TTL_SECONDS:
                return None
            self._tokens.move_to_end(sid)
            return entry[1]

    def get(self, sid: str) -> str:
        """Return the remembered token, or fetch it. Raises: as `fetch`, HeldBack excepted."""
        known = self.known(sid)
        return self._first.get(sid) if known is None else known

    def newer(self, sid: str, than: str) -> str | None:
        """Fetch the token once more after a signature by `than` failed.

        None: Twilio said within REFETCH_SECONDS that there is no newer one. Raises: as get, also
        while the last refetch failed, because the signature could not be judged.
        """
        known = self.known(sid)
        if known is not None and known != than:
            return known
        token = self._again.get(sid)
        return None if token == than else token

    def _keep(self, sid: str, token: str) -> None:
        with self._lock:
            self._tokens[sid] = (self._clock(), token)
            self._tokens.move_to_end(sid)
            while len(self._tokens) > _KEPT_MAX:
                self._tokens.popitem(last=False)


class _Fetch:
    """One request: its answer for all threads that wait, and until when the answer is valid."""

    def __init__(self) -> None:
        self.answer: Future[str | Exception] = Future()
        self.over_at = float("inf")


class _SharedFetch:
    """Sends one request at a time for each subaccount, and shares its answer with all that wait."""

    def __init__(
        self,
        fetch: Callable[[str], str],
        clock: Callable[[], float],
        wait_seconds: float,
        *,
        kept_seconds: float,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._kept_seconds = kept_seconds
        self._lock = threading.Lock()
        self._fetches: OrderedDict[str, _Fetch] = OrderedDict()

    def get(self, sid: str) -> str:
        with self._lock:
            one = self._fetches.get(sid)
            is_first = one is None or self._clock() >= one.over_at
            if one is None or is_first:
                one = self._fetches[sid] = _Fetch()
                self._fetches.move_to_end(sid)
                while len(self._fetches) > _KEPT_MAX:
                    self._fetches.popitem(last=False)
        if is_first:
            self._answer(one, sid)
        try:
            answer = one.answer.result(self._wait_seconds)
        except FutureTimeoutError:
            raise ProviderUnavailable("the token took too long") from None
        if isinstance(answer, Exception):
            raise _anew(answer)
        return answer

    def _answer(self, one: _Fetch, sid: str) -> None:
        # Counted from the request, because the answer may be as old as that.
        over_at = self._clock() + self._kept_seconds
        answer: str | Exception = ProviderUnavailable("the request broke off")
        try:
            answer = self._fetch(sid)
        except (Refused, ProviderUnavailable, CredentialsRejected, HeldBack) as error:
            answer = error
        finally:
            # Also if this thread is interrupted, so that the others do not wait for it.
            is_failed = isinstance(answer, Exception)
            one.over_at = self._clock() + FAILED_SECONDS if is_failed else over_at
            one.answer.set_result(answer)


def _anew(error: Exception) -> Exception:
    """Copy an error: raised in many threads, one object would gather all of their tracebacks."""
    if isinstance(error, Refused):
        return Refused(error.code, error.detail, **error.ids)
    if isinstance(error, CredentialsRejected):
        return CredentialsRejected(str(error))
    wait = error.retry_after_seconds if isinstance(error, ProviderUnavailable) else None
    return ProviderUnavailable(str(error), wait)
