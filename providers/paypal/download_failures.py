"""Failed downloads of certificates, and for how long each is not tried again."""

from __future__ import annotations

from dataclasses import dataclass

from providers.errors import CertificateUnavailable

#: Seconds for which a first failure is remembered, so that a flood asks PayPal once; each further
#: one in a row is remembered twice as long, up to the second figure, and up to the third when
#: PayPal itself asks for a wait: closing events wait for it too.
FAILURE_SECONDS = 1.0
FAILURE_SECONDS_MAX = 30.0
FAILURE_SECONDS_ASKED_MAX = 60.0


@dataclass(frozen=True)
class DownloadFailure:
    """A download that failed, and until when it is not tried again."""

    error: Exception
    pause_seconds: float
    until: float

    @classmethod
    def after(cls, before: DownloadFailure | None, error: Exception, now: float) -> DownloadFailure:
        """Return the failure that follows `before`; its wait is twice as long, within bounds."""
        pause = FAILURE_SECONDS
        if before is not None:
            pause = min(2 * before.pause_seconds, FAILURE_SECONDS_MAX)
        asked_for = error.retry_after_seconds if isinstance(error, CertificateUnavailable) else None
        wait = max(pause, min(asked_for or 0.0, FAILURE_SECONDS_ASKED_MAX))
        return cls(error, pause, now + wait)
