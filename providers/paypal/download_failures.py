"""Failed downloads of certificates, and when each may be tried again."""

from __future__ import annotations

from dataclasses import dataclass

from providers.errors import CertificateUnavailable

#: Seconds for which a first failure is remembered, so that a flood causes one request to PayPal.
#: Each further failure in a row doubles that, up to FAILURE_SECONDS_MAX. If PayPal asks for a wait,
#: it is followed up to FAILURE_SECONDS_ASKED_MAX, because closing events wait for it too.
FAILURE_SECONDS = 1.0
FAILURE_SECONDS_MAX = 30.0
FAILURE_SECONDS_ASKED_MAX = 60.0


@dataclass(frozen=True)
class DownloadFailure:
    """A download that failed, and the time before which it is not tried again."""

    error: Exception
    pause_seconds: float
    until: float

    @classmethod
    def after(cls, before: DownloadFailure | None, error: Exception, now: float) -> DownloadFailure:
        """Return the failure that follows `before`; its pause doubles, within bounds."""
        pause = FAILURE_SECONDS
        if before is not None:
            pause = min(2 * before.pause_seconds, FAILURE_SECONDS_MAX)
        asked_for = error.retry_after_seconds if isinstance(error, CertificateUnavailable) else None
        wait = max(pause, min(asked_for or 0.0, FAILURE_SECONDS_ASKED_MAX))
        return cls(error, pause, now + wait)
