"""Lists the live calls of a Twilio account, reads a call, and ends a call.

A list is complete, or an error is raised. A truncated list would leave out a live call, and the
caller would treat that call as over. The SDK's own lists end silently if a page does not name the
next one, so they are not used.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any
from urllib.parse import urlencode

from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from base.problems.payments import UNKNOWN_STATUS
from base.problems.providers import CALL_MISSING, INVALID_ID
from providers.http.client import Deadline, send_with_retries
from providers.twilio.mapping import raise_for_answer, raise_for_error
from providers.twilio.transport import TWILIO_URL

#: The statuses in which people talk or may soon talk, in the order in which a call passes through
#: them. A call that moves on while the lists are read is found in the later list.
_LIVE_STATUSES_IN_ORDER = ("queued", "ringing", "in-progress")
_LIVE_STATUSES = frozenset(_LIVE_STATUSES_IN_ORDER)
#: The statuses of a call that is over. Source: Twilio's specification, call_enum_status.
_OVER_STATUSES = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
#: Calls on one page of a list: the most that Twilio allows.
_PAGE_SIZE = 1_000
#: Twilio's code for a call that is already over. Source: twilio.com/docs/api/errors.
_NOT_IN_PROGRESS_CODE = 21220
_NOT_FOUND_STATUS = 404
_CALL_SID = re.compile(r"CA[0-9a-f]{32}", re.ASCII)


def live_calls(sdk: Client, sid: str, deadline: Deadline) -> list[str]:
    """List the calls of an account that are not over, each once, from all pages.

    Raises: Refused SUBACCOUNT_MISSING, ProviderUnavailable (also if a page does not name the next
    one), CredentialsRejected, HeldBack.
    """
    base = f"/2010-04-01/Accounts/{sid}/Calls.json?"
    call_sids: dict[str, None] = {}
    for status in _LIVE_STATUSES_IN_ORDER:
        path: str | None = base + urlencode({"Status": status, "PageSize": _PAGE_SIZE})
        while path is not None:
            page = send_with_retries(partial(_fetch_page, sdk, path, sid), deadline)
            call_sids.update(dict.fromkeys(_sids_of(page)))
            path = _next_path(page, base)
    return list(call_sids)


def complete_call(sdk: Client, sid: str, call_sid: str) -> bool:
    """End a call, also in a suspended account; False if the call was already over.

    Raises: Refused (INVALID_ID; CALL_MISSING if the account has no such call), OutcomeUnknown,
    ProviderUnavailable, CredentialsRejected, HeldBack.
    """
    _check_sid(call_sid)
    try:
        call = sdk.api.v2010.accounts(sid).calls(call_sid).update(status="completed")
    except TwilioException as error:
        if getattr(error, "code", None) == _NOT_IN_PROGRESS_CODE:
            return False
        if getattr(error, "status", None) == _NOT_FOUND_STATUS:
            raise Refused(CALL_MISSING, call_sid, external_id=sid) from None
        raise_for_error(error, sid)
    except (ValueError, TypeError, AttributeError):
        raise OutcomeUnknown("the answer cannot be read") from None
    if call.sid != call_sid:
        raise OutcomeUnknown("the answer describes another resource")
    return True


def call_is_live(sdk: Client, sid: str, call_sid: str, deadline: Deadline) -> bool | None:
    """Return whether a call is not over yet; None if the account has no such call.

    Raises: Refused (INVALID_ID, UNKNOWN_STATUS), ProviderUnavailable, CredentialsRejected,
    HeldBack.
    """
    _check_sid(call_sid)

    def ask() -> bool | None:
        try:
            call = sdk.api.v2010.accounts(sid).calls(call_sid).fetch()
        except TwilioException as error:
            if getattr(error, "status", None) == _NOT_FOUND_STATUS:
                return None
            raise_for_error(error, sid)
        except (ValueError, TypeError, AttributeError):
            raise ProviderUnavailable("the answer cannot be read") from None
        if call.sid != call_sid:
            raise ProviderUnavailable("the answer is about another call")
        status = call.status
        # The SDK does not check the type. A list or an object would fail in the set lookup.
        if not isinstance(status, str) or status not in _LIVE_STATUSES | _OVER_STATUSES:
            raise Refused(UNKNOWN_STATUS, "call", external_id=call_sid)
        return status in _LIVE_STATUSES

    return send_with_retries(ask, deadline)


def _fetch_page(sdk: Client, path: str, sid: str) -> dict[str, Any]:
    answer = sdk.request("GET", f"{TWILIO_URL}{path}")
    if answer.status_code != 200:
        raise_for_answer(answer, sid)
    # The transport accepts only JSON objects.
    page: dict[str, Any] = json.loads(answer.text)
    return page


def _sids_of(page: dict[str, Any]) -> list[str]:
    calls = page.get("calls")
    if not isinstance(calls, list):
        raise ProviderUnavailable("the answer is not a list of calls")
    sids = [call.get("sid") if isinstance(call, dict) else None for call in calls]
    if not all(isinstance(sid, str) and _CALL_SID.fullmatch(sid) for sid in sids):
        raise ProviderUnavailable("the answer is not a list of calls")
    return [str(sid) for sid in sids]


def _next_path(page: dict[str, Any], base: str) -> str | None:
    # The last page has null here. If the member is missing, the rest of the list may be lost.
    path = page.get("next_page_uri", "")
    if path is None:
        return None
    # Our credentials are sent to this path, so it must stay within this account's calls.
    if not isinstance(path, str) or not path.startswith(base):
        raise ProviderUnavailable("the answer does not name the next page")
    return path


def _check_sid(call_sid: str) -> None:
    if not _CALL_SID.fullmatch(call_sid):
        raise Refused(INVALID_ID, "not a call's sid")
