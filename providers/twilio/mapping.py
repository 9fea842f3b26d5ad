"""Maps Twilio's error answers to our errors, for every kind of request."""

from __future__ import annotations

import json
from typing import NoReturn

from twilio.base.exceptions import TwilioException
from twilio.http.response import Response

from base.outcomes import ProviderUnavailable, Refused
from base.problems.providers import SUBACCOUNT_CLOSED, SUBACCOUNT_MISSING, SUSPENDED_BY_TWILIO
from providers.errors import CredentialsRejected

#: Twilio's error codes after which a repeated request fails again.
#: Source: twilio.com/docs/api/errors.
_REFUSALS = {
    20404: SUBACCOUNT_MISSING,
    21478: SUSPENDED_BY_TWILIO,
    21479: SUBACCOUNT_CLOSED,
}


def raise_for_error(error: TwilioException, sid: str) -> NoReturn:
    """Raise our error for an error of the SDK about an account.

    Raises: Refused (SUBACCOUNT_MISSING, SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED),
    CredentialsRejected, ProviderUnavailable.
    """
    # The SDK has two error classes. They have only these two fields in common. If the body has no
    # code, the SDK puts the HTTP status into `code`.
    _raise_for(getattr(error, "status", None), getattr(error, "code", None), sid)


def raise_for_answer(answer: Response, sid: str) -> NoReturn:
    """Raise our error for an answer other than 200. Raises: as raise_for_error."""
    try:
        code = json.loads(answer.text)["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        code = None
    _raise_for(answer.status_code, code if isinstance(code, int) else None, sid)


def _raise_for(status: int | None, code: int | None, sid: str) -> NoReturn:
    if code in _REFUSALS:
        raise Refused(_REFUSALS[code], external_id=sid) from None
    if status == 404:
        raise Refused(SUBACCOUNT_MISSING, external_id=sid) from None
    if status in (401, 403):
        raise CredentialsRejected(f"Twilio answered {status} with code {code}") from None
    # Any other error shows nothing about the subaccount, because its parent may be suspended. The
    # job tries again.
    raise ProviderUnavailable(f"Twilio answered {status} with code {code}") from None
