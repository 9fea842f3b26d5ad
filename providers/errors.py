"""The ways in which a message or a conversation with a provider can be bad.

Those about an answer that is missing or uncertain stand in base.outcomes.
"""

from __future__ import annotations

from base.outcomes import ProviderUnavailable


class ForgedWebhook(Exception):
    """The message is not proved to come from the provider: answer 401, and keep nothing of it."""


class MalformedWebhook(Exception):
    """The message comes from the provider, but says nothing that can be recorded: answer 400."""


class ProviderSilent(ProviderUnavailable):
    """Nobody answered: no connection stood, or the answer to a question was lost."""


class AnswerUnreadable(ProviderUnavailable):
    """The provider's own answer came, and cannot be read; another try will hardly help."""


class AnswerTooLarge(AnswerUnreadable):
    """The provider's answer is larger than what is read of one."""


class CertificateUnavailable(Exception):
    """The signing certificate could not be had now: answer 503, and the provider sends again.

    `retry_after_seconds` is what its host itself asked for, if it did.
    """

    def __init__(self, detail: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class CredentialsRejected(Exception):
    """The provider does not accept our credentials, or they are not set: a person must act.

    It is no refusal: the same work succeeds once the credentials are right.
    """
