"""Which unknown certificate addresses may be asked for now.

Anybody can name an address in a header, so each made-up one could cost a request to PayPal. One
bucket of tokens bounds these requests. Half of it is kept for addresses that were named before: a
flood names a new address each time, and a genuine sender names the same one again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

#: Requests for unknown addresses at once, and seconds until one more is allowed. PayPal renews its
#: certificate about once a year.
UNKNOWN_BURST = 8
UNKNOWN_REFILL_SECONDS = 2.0
#: Addresses remembered as named before; a hash each.
_SEEN_MAX = 50_000


class UnknownNames:
    """A bucket of tokens for unknown addresses. Not safe between threads: its owner locks."""

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
        """Take a token for an address and return True; return False if none is left for it."""
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
