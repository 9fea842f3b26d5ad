"""Limits how many unknown certificate URLs are requested.

Anyone can name a URL in a header, so each invented one could cost a request to PayPal. A token
bucket limits these requests. Half of it is reserved for URLs that were named before: a flood names
a new URL each time, and a genuine sender names the same one again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

#: The most requests for unknown URLs at once, and the seconds until one more is allowed. PayPal
#: renews its certificate about once a year.
UNKNOWN_BURST = 8
UNKNOWN_REFILL_SECONDS = 2.0
#: The most URLs remembered as named before; one hash for each.
_SEEN_MAX = 50_000


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
        self._counted_at = clock()
        self._seen: OrderedDict[int, None] = OrderedDict()

    def may_ask(self, url: str) -> bool:
        """Take a token for a URL and return True; return False if none is available."""
        now = self._clock()
        gained = (now - self._counted_at) / self._refill_seconds
        self._tokens = min(float(self._burst), self._tokens + gained)
        self._counted_at = now
        kept_back = 0 if self._was_named(url) else self._burst // 2
        if self._tokens - kept_back < 1:
            return False
        self._tokens -= 1
        return True

    def _was_named(self, url: str) -> bool:
        key = hash(url)
        before = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        while len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)
        return before
