"""Errors in messages from a provider and in exchanges with a provider.

`base.outcomes` defines the errors for a missing or uncertain answer.
"""

from __future__ import annotations

from base.outcomes import ProviderUnavailable


class ForgedWebhook(Exception):
    """No proof that the provider sent the message. Answer 401 and store nothing of it."""


class MalformedWebhook(Exception):
    """The provider sent the message, but nothing in it can be recorded. Answer 400."""


class ProviderSilent(ProviderUnavailable):
    """The provider did not answer: no connection, or the response to a read was lost."""


class AnswerUnreadable(ProviderUnavailable):
    """The provider's answer cannot be read. Another try will hardly help."""


class AnswerTooLarge(AnswerUnreadable):
    """The provider's answer is larger than the limit for reading it."""


class CertificateUnavailable(Exception):
    """The signing certificate is not available now. Answer 503: the provider retries.

    `retry_after_seconds` is the wait that the certificate's host asked for, or None.
    """

    def __init__(self, detail: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class CredentialsRejected(Exception):
    """The provider rejects our credentials, or they are not set. A person must act.

    This is not a refusal: the same work succeeds once the credentials are right.
    """
