"""Lets only one thread at a time wait for a provider that does not answer.

Safety calls go out even if the circuit breaker is open. Without this limit, every thread that
freezes, suspends or ends calls could be blocked by one silent provider.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from base.enums import RequestClass
from base.outcomes import HeldBack, OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected, ProviderSilent
from providers.http.limits import ChannelLimits

#: A request that failed after more than this many seconds marks the provider as silent. A quick
#: failure does not, because it blocks no thread.
_SILENT_SECONDS = 1.0


class SilenceLimit:
    """Limits the safety calls to a silent provider to one thread at a time."""

    def __init__(self, limits: ChannelLimits | None, retry_seconds: float) -> None:
        self._is_for_safety = (
            limits is not None and limits.channel.call_class is RequestClass.SAFETY
        )
        self._retry_seconds = retry_seconds
        self._is_silent = False
        # Only the owner can release an RLock. An actor's time limit may interrupt between any two
        # lines, so that `finally` cannot know whether the lock was acquired.
        self._probe_lock = threading.RLock()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Let one request go out, and note whether it was answered in time.

        Raises: HeldBack, for `retry_seconds`, while the provider is silent and another thread waits
        for it.
        """
        began = time.monotonic()
        try:
            if (
                self._is_silent
                and self._is_for_safety
                and not self._probe_lock.acquire(blocking=False)
            ):
                raise HeldBack(
                    "the provider is silent, and another thread waits for it", self._retry_seconds
                )
            yield
            self._is_silent = False
        except (ProviderSilent, OutcomeUnknown):
            self._is_silent = time.monotonic() - began > _SILENT_SECONDS
            raise
        except (ProviderUnavailable, CredentialsRejected, Refused):
            # The provider answered, even if it refused.
            self._is_silent = False
            raise
        finally:
            with suppress(RuntimeError):
                self._probe_lock.release()
