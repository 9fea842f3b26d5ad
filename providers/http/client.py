"""The HTTP client for providers: timeouts, bounded answers and short retries.

The client follows no redirects. It distinguishes a request that certainly had no effect from a
request that may have had one. It never repeats a request that may have had an effect.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity

from base.outcomes import OutcomeUnknown, ProviderUnavailable
from providers.errors import AnswerTooLarge, ProviderSilent
from providers.http.limits import ChannelLimits, Passage

#: Time limits in seconds: to open a connection, and to wait for the next part of an answer.
CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
#: Seconds within which all tries of one read must end. They fit into an actor's time limit.
RETRY_WINDOW_SECONDS = 12.0
#: The most tries of one read.
TRIES_MAX = 3
#: If the provider asks for a longer wait than this many seconds, the read is not retried here.
_RETRY_WAIT_SECONDS_MAX = 3.0
#: Bytes of the largest answer that is read. An account or a payment has a few kilobytes.
ANSWER_BYTES_MAX = 1_048_576
#: The client starts no try that has less than this many seconds left.
_TRY_SECONDS_MIN = 0.2
#: A longer Retry-After counts as this many seconds (one day).
_RETRY_AFTER_SECONDS_MAX = 86_400.0

#: These errors prove that the request did not reach the provider.
_NEVER_SENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

T = TypeVar("T")


class _BodyTooLarge(Exception):
    """An answer is larger than the caller's limit."""


@dataclass(frozen=True)
class Deadline:
    """The monotonic time at which a request and its retries must have ended."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Set the deadline this many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(0.0, self.at - time.monotonic())


@dataclass(frozen=True)
class Answer:
    """A provider's answer below 500 that is neither a redirect nor 429."""

    status: int
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """Parse the body as a JSON object.

        Raises: ProviderUnavailable if the body is anything else, such as a proxy's HTML page.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            raise ProviderUnavailable("the answer is not JSON") from None
        if not isinstance(value, dict):
            raise ProviderUnavailable("the answer is not a JSON object")
        return value


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@cache
def _trusted_roots() -> ssl.SSLContext:
    # Loading the root certificates is the slowest part of making a client. All clients share them.
    return httpx.create_ssl_context()


def build_client(base_url: str) -> httpx.Client:
    """Make a client for one provider's base URL. Threads may share the client.

    For a stand-in on this machine, the client ignores the proxies that the environment names.
    """
    return httpx.Client(
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        follow_redirects=False,
        verify=_trusted_roots(),
        trust_env=not is_loopback(base_url),
        # The size limit counts bytes as received. It would mean nothing for compressed answers.
        headers={"Accept-Encoding": "identity"},
    )


def exchange(
    client: httpx.Client,
    method: str,
    url: str,
    *,
    limits: ChannelLimits | None,
    repeatable: bool,
    deadline: Deadline,
    bytes_max: int = ANSWER_BYTES_MAX,
    **request: Any,
) -> Answer:
    """Send one request, once, and read its answer.

    `limits` is the provider channel. It is None for a request that no account makes, such as the
    download of a certificate. `repeatable` means that the request changes nothing, so that
    repeating it after a lost answer is safe.

    Raises: HeldBack if the channel does not admit the call now. ProviderUnavailable if the request
    had no effect (no connection, 429, no time left), and for every failure of a repeatable request:
    a lost or slow answer, 5xx, a redirect, or AnswerTooLarge. OutcomeUnknown for these failures of
    any other request.
    """
    seconds_left = deadline.remaining_seconds()
    if seconds_left <= 0:
        raise ProviderUnavailable("no time left to ask")
    lost_error = ProviderSilent if repeatable else OutcomeUnknown
    is_too_large = False
    with limits.passage(seconds_left) if limits else nullcontext(Passage()) as passage:
        try:
            with client.stream(method, url, timeout=_timeout(deadline), **request) as response:
                status = response.status_code
                retry_after = retry_after_seconds_of(response.headers)
                body = _read_body(response, bytes_max, deadline)
        except _NEVER_SENT_ERRORS as error:
            # A PoolTimeout means that our own pool was full. It shows nothing about the provider.
            if not isinstance(error, httpx.PoolTimeout):
                passage.lost()
            raise ProviderSilent(f"not reached: {type(error).__name__}") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            passage.lost()
            raise lost_error(f"the answer was lost: {type(error).__name__}") from None
        except _BodyTooLarge:
            is_too_large, body = True, None
        passage.answered(status, retry_after)
    # A provider sends 429 before it acts. Twilio documents that it never processes such a request.
    if status == 429 or (status >= 500 and repeatable):
        raise ProviderUnavailable(f"HTTP {status}", retry_after)
    if status >= 500:
        raise OutcomeUnknown(f"HTTP {status}")
    if 300 <= status < 400:
        raise lost_error(f"HTTP {status}: redirects are not followed")
    if is_too_large and repeatable:
        raise AnswerTooLarge(f"the answer has over {bytes_max} bytes")
    if body is None:
        raise lost_error("the answer is too large or too slow")
    return Answer(status, body)


def _timeout(deadline: Deadline) -> httpx.Timeout:
    seconds_left = deadline.remaining_seconds()
    return httpx.Timeout(
        min(READ_SECONDS, seconds_left),
        connect=min(CONNECT_SECONDS, seconds_left),
        pool=min(CONNECT_SECONDS, seconds_left),
    )


def _read_body(response: httpx.Response, bytes_max: int, deadline: Deadline) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        # Every part restarts the read timeout. The deadline ends an answer that arrives too slowly.
        if size > bytes_max:
            raise _BodyTooLarge
        if deadline.remaining_seconds() <= 0:
            return None
        parts.append(part)
    return b"".join(parts)


def retry_after_seconds_of(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in seconds, from a number or a date; None for anything else.

    Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), _RETRY_AFTER_SECONDS_MAX)
    try:
        wait = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, min(wait, _RETRY_AFTER_SECONDS_MAX))


def send_with_retries(send: Callable[[], T], deadline: Deadline) -> T:
    """Send a repeatable request, and retry it after ProviderUnavailable.

    AnswerTooLarge is not retried. There are at most TRIES_MAX tries, with jitter, before the
    deadline. A short Retry-After is added to the wait; a long one ends the retries. Raises: the
    error of the last try.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        retry_after = _retry_after_seconds(state)
        jittered = tenacity.wait_random_exponential(multiplier=0.2, max=2.0)(state)
        return jittered if retry_after is None else retry_after + jittered / 4

    def stop(state: tenacity.RetryCallState) -> bool:
        if (_retry_after_seconds(state) or 0.0) > _RETRY_WAIT_SECONDS_MAX:
            return True
        seconds_left = deadline.remaining_seconds() - state.upcoming_sleep
        return state.attempt_number >= TRIES_MAX or seconds_left < _TRY_SECONDS_MIN

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_worth_repeating),
        wait=wait,
        stop=stop,
        reraise=True,
    )
    return retrying(send)


def _is_worth_repeating(error: BaseException) -> bool:
    # The same read would return an answer of the same size.
    return isinstance(error, ProviderUnavailable) and not isinstance(error, AnswerTooLarge)


def _retry_after_seconds(state: tenacity.RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after_seconds if isinstance(error, ProviderUnavailable) else None
