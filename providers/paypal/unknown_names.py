"""Limits how many unknown certificate URLs are requested.

Anyone can name a URL in a header, so each invented URL could cost a request to PayPal. A token
bucket limits these requests. Half of it is reserved for URLs that were named before: a flood names
a new URL each time, and PayPal names the same URL again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

#: The most requests for unknown URLs at once, and the seconds until one more is allowed. PayPal
#: renews its certificate about once a year.
UNKNOWN_BURST = 8
UNKNOWN_REFILL_SECONDS = 2.0
#: The most URLs that are remembered as named before. Each URL takes one hash.
_NAMED_URLS_MAX = 50_000


class UnknownNames:
    """A token bucket for unknown URLs. Not thread-safe: its owner must lock."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        burst: int = UNKNOWN_BURST,
        refill_seconds: float = UNKNOWN_REFILL_SECONDS,
    ) -> None:
        self._clock = clock
        self._burst = burst
        self._refill_seconds = refill_seconds
        self._tokens = float(burst)
        self._refilled_at = clock()
        self._named_urls: OrderedDict[int, None] = OrderedDict()

    def take_token(self, url: str) -> bool:
        """Take a token for a URL and return True; return False if none is available."""
        now = self._clock()
        new_tokens = (now - self._refilled_at) / self._refill_seconds
        self._tokens = min(float(self._burst), self._tokens + new_tokens)
        self._refilled_at = now
        reserved_tokens = 0 if self._record_name(url) else self._burst // 2
        if self._tokens - reserved_tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _record_name(self, url: str) -> bool:
        """Record that a sender named a URL; return whether it was named before."""
        key = hash(url)
        was_named_before = key in self._named_urls
        self._named_urls[key] = None
        self._named_urls.move_to_end(key)
        while len(self._named_urls) > _NAMED_URLS_MAX:
            self._named_urls.popitem(last=False)
        return was_named_before
