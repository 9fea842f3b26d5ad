"""The expected ways in which work ends without being done.

A refusal is a result, not a failure. Any other exception is a bug or an outage.
"""

from __future__ import annotations

from base.problems.code import Code


class Refused(Exception):
    """The work is refused for good: repeating it cannot change the result."""

    def __init__(self, code: Code, detail: str = "", **ids: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.ids = ids


class NotYet(Exception):
    """The work must wait: something that it needs is in use, or it is too early.

    `delay_seconds` is the recommended wait. A postponed job does not use up an attempt.
    """

    def __init__(self, detail: str, delay_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.delay_seconds = delay_seconds


class HeldBack(NotYet):
    """A provider is not called now: its circuit is open, or its rate is used up.

    No request was sent.
    """


class OutcomeUnknown(Exception):
    """A request was sent, but no response arrived.

    The request may have taken effect, and may still take effect.
    """


class ProviderUnavailable(Exception):
    """A provider could not be reached or gave no usable answer.

    The cause is a lost connection, a 5xx, a 429, or a body that cannot be read.
    `retry_after_seconds` is the delay that the provider requested, if it requested one.
    """

    def __init__(self, detail: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds
