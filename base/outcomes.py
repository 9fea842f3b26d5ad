"""The ways in which work can end other than by being done.

A refusal is an answer, not a failure. Anything that is not one of these is a bug or an outage.
"""

from __future__ import annotations


class Refused(Exception):
    """The answer is no, and it stays no: repeating the same work cannot change it."""

    def __init__(self, code: str, detail: str = "", **ids: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.ids = ids


class NotYet(Exception):
    """The work must wait: somebody else holds what it needs, or the time has not come.

    `delay_seconds` is the wait that makes sense; a postponed job uses up no attempt.
    """

    def __init__(self, detail: str, delay_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.delay_seconds = delay_seconds


class HeldBack(NotYet):
    """A provider is not called now: its circuit is open, or its limit is used up.

    Nothing was sent.
    """


class OutcomeUnknown(Exception):
    """A request left and no answer came: it may have happened, and it may still happen."""


class ProviderUnavailable(Exception):
    """A provider could not be asked or could not answer: a lost connection, 5xx or 429.

    `retry_after_seconds` is what the provider itself asked for, if it did.
    """

    def __init__(self, detail: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds
