"""Waiting for a provider that says nothing, in turns: one thread at a time, until it has answered.

A safety call goes out whatever its circuit says. All at once, those that wait for a silent provider
would have every thread that freezes, suspends and ends calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from base.enums import CallClass
from base.outcomes import HeldBack, OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected, ProviderSilent
from providers.http.limits import Line

#: Who was waited for in vain for longer than this is silent, in seconds: a quick no costs nobody
#: his time.
_SILENT_SECONDS = 1.0


class Turns:
    """Those who wait for one provider in this process; calls of other classes are not held back."""

    def __init__(self, line: Line | None, again_seconds: float) -> None:
        self._is_shared = line is not None and line.route.call_class is CallClass.SAFETY
        self._again_seconds = again_seconds
        self._is_silent = False
        # Known by its owner: a time limit may strike before the next line is reached.
        self._turn = threading.RLock()

    @contextmanager
    def wait(self) -> Iterator[None]:
        """This function will let one question go out, and note whether it was answered in time.

        Raises: HeldBack, for `again_seconds`, while the provider is silent and another waits.
        """
        began = time.monotonic()
        try:
            if self._is_silent and self._is_shared and not self._turn.acquire(blocking=False):
                raise HeldBack("it says nothing, and another waits for it", self._again_seconds)
            yield
            self._is_silent = False
        except (ProviderSilent, OutcomeUnknown):
            self._is_silent = time.monotonic() - began > _SILENT_SECONDS
            raise
        except (ProviderUnavailable, CredentialsRejected, Refused):
            # A no is an answer.
            self._is_silent = False
            raise
        finally:
            with suppress(RuntimeError):
                self._turn.release()
