"""Twilio's subaccounts: what state one is in, the two it may be put into, and the calls in it.

It asks with the parent's credentials. It never closes a subaccount, which cannot be undone, and it
never sends a change twice: what became of a lost one is for the caller to read back.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected
from providers.http import RETRY_WINDOW_SECONDS, Deadline, ask_again, build_client
from providers.line import Line
from providers.twilio.transport import TWILIO_URL, Transport

#: Seconds for which a subaccount's token is remembered: a token that was rolled is found out soon.
TOKEN_TTL_SECONDS = 600.0
_TOKENS_MAX = 1024

#: The states of a call in which somebody may be talking, or be about to.
_LIVE_STATUSES = ("queued", "ringing", "in-progress")
#: Calls on one page of a list: Twilio's most.
_PAGE_SIZE = 1_000
#: Twilio's code for a call that is over already. Source: twilio.com/docs/api/errors.
_NOT_IN_PROGRESS = 21220
_CALL_SID = re.compile(r"CA[0-9a-f]{32}", re.ASCII)
_SUBACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}", re.ASCII)
#: Twilio's codes for which the answer stays no. Source: twilio.com/docs/api/errors.
_REFUSALS = {
    20404: "SUBACCOUNT_MISSING",
    21478: "SUSPENDED_BY_TWILIO",
    21479: "SUBACCOUNT_CLOSED",
}
#: The SDK is given this in place of the process's environment, where TWILIO_EDGE or TWILIO_REGION
#: would send our credentials to another host than the one configured. It must not be empty, or
#: the SDK takes the process's after all.
_NO_ENVIRONMENT = {"TWILIO_EDGE": ""}


class TwilioApi:
    """Twilio's API with the parent account's credentials; safe to share between threads."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        base_url: str = "",
        *,
        window_seconds: float = RETRY_WINDOW_SECONDS,
        line: Line | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._base_url = base_url.rstrip("/")
        self._window_seconds = window_seconds
        self._line = line
        self._clock = clock
        self._client = build_client(self._base_url or TWILIO_URL)
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def close(self) -> None:
        """This function will close the connections that stand."""
        self._client.close()

    def get_subaccount(self, sid: str) -> SubaccountFacts:
        """This function will read a subaccount's state; ABSENT when Twilio knows none of that sid.

        Raises: Refused (INVALID_ID, UNKNOWN_STATUS, TWILIO_REFUSED), ProviderUnavailable,
        CredentialsRejected.
        """
        try:
            account = self._fetch(sid)
        except Refused as error:
            if error.code == "SUBACCOUNT_MISSING":
                return SubaccountFacts(sid, TwilioStatus.ABSENT)
            raise
        status = _status_of(account)
        if status is None:
            raise Refused("UNKNOWN_STATUS", "subaccount", external_id=sid)
        return SubaccountFacts(sid, status)

    def set_subaccount_status(self, sid: str, status: TwilioStatus) -> SubaccountFacts:
        """This function will suspend or activate a subaccount; calls in progress go on.

        Replay: a state that it already has is no error. The request is sent once.
        Raises: OutcomeUnknown for a lost answer, 5xx or an answer that is not Twilio's (it may
        have happened, and may still happen); ProviderUnavailable when it did not happen;
        Refused (SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED, SUBACCOUNT_MISSING, PARENT_SUSPENDED,
        INVALID_ID, INVALID_STATUS, PARENT_ACCOUNT, TWILIO_REFUSED); CredentialsRejected.
        """
        if status not in (TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED):
            raise Refused("INVALID_STATUS", "only active and suspended are ever set")
        self._check_sid(sid)
        if sid == self._account_sid:
            raise Refused("PARENT_ACCOUNT", "the parent's own state is never changed")
        accounts = self._accounts(Deadline.after(self._window_seconds))
        try:
            account = accounts(sid).update(status=status.value)
        except TwilioException as error:
            _raise_for(error, sid)
        except (ValueError, TypeError, AttributeError):
            raise OutcomeUnknown("the answer cannot be read") from None
        changed_to = _status_of(account)
        if account.sid != sid or changed_to is None:
            raise OutcomeUnknown("the answer is about something else")
        return SubaccountFacts(sid, changed_to)

    def live_calls(self, sid: str) -> list[str]:
        """This function will list the calls that an account's subaccount has in progress or begun.

        Complete, or an error: a list that breaks off says nothing of the rest. Raises: Refused
        INVALID_ID, ProviderUnavailable (also for refused credentials, since the SDK keeps no status
        of a page that it cannot have), HeldBack.
        """
        self._check_sid(sid)
        deadline = Deadline.after(self._window_seconds)

        def ask() -> list[str]:
            calls = self._accounts(deadline)(sid).calls
            try:
                return [
                    str(call.sid)
                    for status in _LIVE_STATUSES
                    for call in calls.stream(status=status, page_size=_PAGE_SIZE)
                ]
            except TwilioException as error:
                _raise_for(error, sid)
            except (ValueError, TypeError, AttributeError, KeyError):
                raise ProviderUnavailable("the answer cannot be read") from None

        return ask_again(ask, deadline)

    def complete_call(self, sid: str, call_sid: str) -> bool:
        """This function will end a call, also one of a suspended subaccount; False if it was over.

        Replay: ending a call twice ends it once. The request is sent once. Raises: Refused
        (INVALID_ID; CALL_MISSING where the subaccount has no such call), OutcomeUnknown,
        ProviderUnavailable, CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        if not _CALL_SID.fullmatch(call_sid):
            raise Refused("INVALID_ID", "not a call's sid")
        accounts = self._accounts(Deadline.after(self._window_seconds))
        try:
            accounts(sid).calls(call_sid).update(status="completed")
        except TwilioException as error:
            if getattr(error, "code", None) == _NOT_IN_PROGRESS:
                return False
            if getattr(error, "status", None) == 404:
                raise Refused("CALL_MISSING", call_sid, external_id=sid) from None
            _raise_for(error, sid)
        except (ValueError, TypeError, AttributeError):
            raise OutcomeUnknown("the answer cannot be read") from None
        return True

    def cached_token(self, sid: str) -> str | None:
        """This function will give a token that needs no question to Twilio, or None."""
        if sid and sid == self._account_sid:
            return self._auth_token or None
        with self._lock:
            entry = self._tokens.get(sid)
            if entry is None or self._clock() >= entry[0] + TOKEN_TTL_SECONDS:
                return None
            self._tokens.move_to_end(sid)
            return entry[1]

    def subaccount_token(self, sid: str) -> str:
        """This function will give the token that signs a subaccount's callbacks.

        Remembered TOKEN_TTL_SECONDS, in memory only. It is secret: never log it. Ask only for
        subaccounts that are known to be ours, since a caller can name any.
        Raises: Refused (INVALID_ID, SUBACCOUNT_MISSING, TWILIO_REFUSED), ProviderUnavailable,
        CredentialsRejected.
        """
        known = self.cached_token(sid)
        if known is not None:
            return known
        token = self._fetch(sid).auth_token
        if not isinstance(token, str) or not token:
            raise ProviderUnavailable("the answer has no token")
        with self._lock:
            self._tokens[sid] = (self._clock(), token)
            self._tokens.move_to_end(sid)
            while len(self._tokens) > _TOKENS_MAX:
                self._tokens.popitem(last=False)
        return token

    def _fetch(self, sid: str) -> Any:
        self._check_sid(sid)
        deadline = Deadline.after(self._window_seconds)
        accounts = self._accounts(deadline)

        def ask() -> Any:
            try:
                account = accounts(sid).fetch()
            except TwilioException as error:
                _raise_for(error, sid)
            except (ValueError, TypeError, AttributeError):
                raise ProviderUnavailable("the answer cannot be read") from None
            if account.sid != sid:
                raise ProviderUnavailable("the answer is about another account")
            return account

        return ask_again(ask, deadline)

    def _accounts(self, deadline: Deadline) -> Any:
        if not self._account_sid or not self._auth_token:
            raise CredentialsRejected("TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is not set")
        # The SDK's objects are made anew for every question, since they are not meant for several
        # threads; the connections beneath them are shared.
        sdk = Client(
            self._account_sid,
            self._auth_token,
            http_client=Transport(self._client, self._base_url, deadline, self._line),
            environment=_NO_ENVIRONMENT,
        )
        return sdk.api.v2010.accounts

    def _check_sid(self, sid: str) -> None:
        if not _SUBACCOUNT_SID.fullmatch(sid):
            raise Refused("INVALID_ID", "not an account's sid")


def _status_of(account: Any) -> TwilioStatus | None:
    # ABSENT is our own word, for Twilio's not knowing the sid.
    if account.status in ("active", "suspended", "closed"):
        return TwilioStatus(account.status)
    return None


def _raise_for(error: TwilioException, sid: str) -> NoReturn:
    # The SDK has two classes of errors with nothing in common but these two fields, and puts the
    # HTTP status into `code` where the body has none.
    status, code = getattr(error, "status", None), getattr(error, "code", None)
    if code in _REFUSALS:
        raise Refused(_REFUSALS[code], external_id=sid) from None
    if status == 404:
        raise Refused("SUBACCOUNT_MISSING", external_id=sid) from None
    if status in (401, 403):
        raise CredentialsRejected(f"Twilio answered {status} with code {code}") from None
    # No word on the subaccount itself (the parent is suspended, say): it is asked again.
    raise ProviderUnavailable(f"Twilio answered {status} with code {code}") from None
