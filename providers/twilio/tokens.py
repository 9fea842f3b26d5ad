"""Fetches and remembers the auth tokens that sign subaccounts' callbacks.

A callback's token is needed before its sender is authenticated. A forger must not be able to make
us send many requests to Twilio. A forger learns only that the callback cannot be judged now.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from base.outcomes import HeldBack, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected

#: Seconds for which a subaccount's token is remembered. A rotated token is noticed after that.
TOKEN_TTL_SECONDS = 600.0
#: Seconds after a refetch in which further failed signatures of the same subaccount cause no other
#: refetch.
REFETCH_SECONDS = 30.0
#: Seconds after a failed fetch in which the same error is raised without a request.
FAILED_SECONDS = 5.0
#: The most subaccounts that are remembered at once.
_SUBACCOUNTS_MAX = 1024


class TokenMemory:
    """Remembers tokens in memory only. Threads may share it.

    `fetch` asks Twilio for one token. It raises Refused, ProviderUnavailable, CredentialsRejected
    or HeldBack. `wait_seconds` must be longer than `fetch` takes.
    """

    def __init__(
        self, fetch: Callable[[str], str], clock: Callable[[], float], wait_seconds: float
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, tuple[float, str]] = OrderedDict()

        def fetch_and_remember(sid: str) -> str:
            token = fetch(sid)
            self._remember(sid, token)
            return token

        self._shared_fetch = _SharedFetch(fetch_and_remember, clock, wait_seconds, kept_seconds=0)
        self._shared_refetch = _SharedFetch(
            fetch_and_remember, clock, wait_seconds, kept_seconds=REFETCH_SECONDS
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
        """Return the remembered token, or fetch it.

        Raises: as `fetch`, but ProviderUnavailable in place of HeldBack.
        """
        known = self.known(sid)
        return self._shared_fetch.get(sid) if known is None else known

    def newer(self, sid: str, than: str) -> str | None:
        """Fetch the token again after a signature by `than` failed.

        None means that Twilio confirmed within REFETCH_SECONDS that there is no newer token.
        Raises: as get. It also raises for FAILED_SECONDS after a failed refetch, because the
        signature cannot be judged then.
        """
        known = self.known(sid)
        if known is not None and known != than:
            return known
        token = self._shared_refetch.get(sid)
        return None if token == than else token

    def _remember(self, sid: str, token: str) -> None:
        with self._lock:
            self._tokens[sid] = (self._clock(), token)
            self._tokens.move_to_end(sid)
            while len(self._tokens) > _SUBACCOUNTS_MAX:
                self._tokens.popitem(last=False)


class _TokenRequest:
    """One request, its answer for all waiting threads, and when that answer expires."""

    def __init__(self) -> None:
        self.answer: Future[str | Exception] = Future()
        self.expires_at = float("inf")


class _SharedFetch:
    """Sends one request at a time per subaccount, and shares its answer."""

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
        self._requests: OrderedDict[str, _TokenRequest] = OrderedDict()

    def get(self, sid: str) -> str:
        with self._lock:
            request = self._requests.get(sid)
            is_first = request is None or self._clock() >= request.expires_at
            if request is None or is_first:
                request = self._requests[sid] = _TokenRequest()
                self._requests.move_to_end(sid)
                while len(self._requests) > _SUBACCOUNTS_MAX:
                    self._requests.popitem(last=False)
        if is_first:
            self._send(request, sid)
        try:
            answer = request.answer.result(self._wait_seconds)
        except FutureTimeoutError:
            raise ProviderUnavailable("the token took too long") from None
        if isinstance(answer, Exception):
            raise _copy_of(answer)
        return answer

    def _send(self, request: _TokenRequest, sid: str) -> None:
        # Counted from the start of the request, because the answer may be as old as that.
        expires_at = self._clock() + self._kept_seconds
        answer: str | Exception = ProviderUnavailable("the request was interrupted")
        try:
            answer = self._fetch(sid)
        except (Refused, ProviderUnavailable, CredentialsRejected, HeldBack) as error:
            answer = error
        finally:
            # Set also if this thread is interrupted, so that the other threads do not wait for it.
            is_failed = isinstance(answer, Exception)
            request.expires_at = self._clock() + FAILED_SECONDS if is_failed else expires_at
            request.answer.set_result(answer)


def _copy_of(error: Exception) -> Exception:
    """Copy an error. One object raised in many threads would collect tracebacks."""
    if isinstance(error, Refused):
        return Refused(error.code, error.detail, **error.ids)
    if isinstance(error, CredentialsRejected):
        return CredentialsRejected(str(error))
    wait = error.retry_after_seconds if isinstance(error, ProviderUnavailable) else None
    return ProviderUnavailable(str(error), wait)
