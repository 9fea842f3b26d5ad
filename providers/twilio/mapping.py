"""What Twilio's answers and errors mean in our words, whatever was asked."""

from __future__ import annotations

import json
from typing import NoReturn

from twilio.base.exceptions import TwilioException
from twilio.http.response import Response

from base.outcomes import ProviderUnavailable, Refused
from providers.errors import CredentialsRejected

#: Twilio's codes for which the answer stays no. Source: twilio.com/docs/api/errors.
_REFUSALS = {
    20404: "SUBACCOUNT_MISSING",
    21478: "SUSPENDED_BY_TWILIO",
    21479: "SUBACCOUNT_CLOSED",
}


def raise_for_error(error: TwilioException, sid: str) -> NoReturn:
    """This function will raise what an error of the SDK's means for an account.

    Raises: Refused (SUBACCOUNT_MISSING, SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED),
    CredentialsRejected, ProviderUnavailable.
    """
    # The SDK has two classes of errors with nothing in common but these two fields, and puts the
    # HTTP status into `code` where the body has none.
    _raise_for(getattr(error, "status", None), getattr(error, "code", None), sid)


def raise_for_answer(answer: Response, sid: str) -> NoReturn:
    """This function will raise what an answer other than 200 means; as raise_for_error."""
    try:
        code = json.loads(answer.text)["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        code = None
    _raise_for(answer.status_code, code if isinstance(code, int) else None, sid)


def _raise_for(status: int | None, code: int | None, sid: str) -> NoReturn:
    if code in _REFUSALS:
        raise Refused(_REFUSALS[code], external_id=sid) from None
    if status == 404:
        raise Refused("SUBACCOUNT_MISSING", external_id=sid) from None
    if status in (401, 403):
        raise CredentialsRejected(f"Twilio answered {status} with code {code}") from None
    # No word on the subaccount itself (the parent is suspended, say): it is asked again.
    raise ProviderUnavailable(f"Twilio answered {status} with code {code}") from None
