"""Twilio's subaccounts: what state one is in, the two it may be put into, and the calls in it.

It asks with the parent's credentials. It never closes a subaccount, which cannot be undone, and it
never sends a change twice: what became of a lost one is for the caller to read back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected
from providers.http.client import RETRY_WINDOW_SECONDS, Deadline, ask_again, build_client
from providers.http.limits import Line
from providers.http.probe import Turns
from providers.twilio import calls
from providers.twilio.mapping import raise_for_error
from providers.twilio.tokens import TokenMemory
from providers.twilio.transport import TWILIO_URL, Transport

#: Seconds until one comes again who was told that another waits already: as long as waiting takes.
_TURN_SECONDS = 5.0

_SUBACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}", re.ASCII)
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
        # Two while the parent's token is being rolled: either proves a callback, and the first one
        # is what requests are sent with.
        self._auth_tokens = tuple(part.strip() for part in auth_token.split(",") if part.strip())
        self._base_url = base_url.rstrip("/")
        self._window_seconds = window_seconds
        self._line = line
        self._client = build_client(self._base_url or TWILIO_URL)
        self._turns = Turns(line, _TURN_SECONDS)
        self._tokens = TokenMemory(self._fetch_token, clock, window_seconds + 1)

    def close(self) -> None:
        """This function will close the connections that stand."""
        self._client.close()

    def get_subaccount(self, sid: str) -> SubaccountFacts:
        """Read a subaccount's state; ABSENT if Twilio knows no account of that sid.

        Raises: Refused (INVALID_ID, UNKNOWN_STATUS, SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED),
        ProviderUnavailable, CredentialsRejected, HeldBack.
        """
        try:
            with self._turns.wait():
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
        """Suspend or activate a subaccount; calls in progress go on.

        Replay: a state that it already has is no error. The request is sent once.
        Raises: OutcomeUnknown for a lost answer, 5xx or an answer that is not Twilio's (it may
        have happened, and may still happen); ProviderUnavailable when it did not happen;
        Refused (SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED, SUBACCOUNT_MISSING, INVALID_ID,
        INVALID_STATUS, PARENT_ACCOUNT); CredentialsRejected; HeldBack.
        """
        if status not in (TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED):
            raise Refused("INVALID_STATUS", "only active and suspended are ever set")
        self._check_sid(sid)
        if sid == self._account_sid:
            raise Refused("PARENT_ACCOUNT", "the parent's own state is never changed")
        accounts = self._accounts(Deadline.after(self._window_seconds))
        with self._turns.wait():
            try:
                account = accounts(sid).update(status=status.value)
            except TwilioException as error:
                raise_for_error(error, sid)
            except (ValueError, TypeError, AttributeError):
                raise OutcomeUnknown("the answer cannot be read") from None
        changed_to = _status_of(account)
        if account.sid != sid or changed_to is None:
            raise OutcomeUnknown("the answer is about something else")
        return SubaccountFacts(sid, changed_to)

    def live_calls(self, sid: str, *, window_seconds: float | None = None) -> list[str]:
        """This function will list the calls that an account has in progress or begun, each once.

        Whole, or an error. Units: `window_seconds` bounds it where the caller has less time than
        this client's own. Raises: Refused (INVALID_ID, SUBACCOUNT_MISSING), ProviderUnavailable,
        CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        deadline = self._deadline(window_seconds)
        with self._turns.wait():
            return calls.live_calls(self._sdk(deadline), sid, deadline)

    def complete_call(
        self, sid: str, call_sid: str, *, window_seconds: float | None = None
    ) -> bool:
        """This function will end a call, also one of a suspended account; False if it was over.

        Replay: ending a call twice ends it once. The request is sent once. Units: as live_calls.
        Raises: Refused (INVALID_ID; CALL_MISSING where the account has no such call),
        OutcomeUnknown, ProviderUnavailable, CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        with self._turns.wait():
            return calls.complete_call(self._sdk(self._deadline(window_seconds)), sid, call_sid)

    def call_is_live(
        self, sid: str, call_sid: str, *, window_seconds: float | None = None
    ) -> bool | None:
        """This function will tell whether a call is not over; None where the account has none such.

        Units: as live_calls. Raises: Refused (INVALID_ID, UNKNOWN_STATUS), ProviderUnavailable,
        CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        deadline = self._deadline(window_seconds)
        with self._turns.wait():
            return calls.call_is_live(self._sdk(deadline), sid, call_sid, deadline)

    def subaccount_token(self, sid: str) -> str:
        """Give the token that signs a subaccount's callbacks, fetched if it is not remembered.

        It is secret: never log it. Ask only for subaccounts that are known to be ours, since a
        caller can name any. Threads that ask at once share one request; after one that failed, the
        same error is raised for a few seconds without a request.
        Raises: Refused (INVALID_ID, SUBACCOUNT_MISSING, SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED),
        ProviderUnavailable, CredentialsRejected.
        """
        if sid and sid == self._account_sid and self._auth_tokens:
            return self._auth_tokens[0]
        return self._tokens.get(sid)

    def proof_tokens(self, sid: str) -> tuple[str, ...]:
        """Return the tokens that prove a callback of an account without a request to Twilio."""
        if sid and sid == self._account_sid:
            return self._auth_tokens
        token = self._tokens.known(sid)
        return () if token is None else (token,)

    def newer_token(self, sid: str, than: str) -> str | None:
        """Fetch a subaccount's token once more after a signature by `than` failed.

        None: Twilio said a moment ago that there is no newer one. Threads that ask at once share
        one request. Raises: as subaccount_token, also for a few seconds after a refetch that
        failed, because the signature cannot be judged then.
        """
        if sid == self._account_sid:
            return None
        return self._tokens.newer(sid, than)

    def _fetch_token(self, sid: str) -> str:
        token = self._fetch(sid).auth_token
        if not isinstance(token, str) or not token:
            raise ProviderUnavailable("the answer has no token")
        return token

    def _fetch(self, sid: str) -> Any:
        self._check_sid(sid)
        deadline = Deadline.after(self._window_seconds)
        accounts = self._accounts(deadline)

        def ask() -> Any:
            try:
                account = accounts(sid).fetch()
            except TwilioException as error:
                raise_for_error(error, sid)
            except (ValueError, TypeError, AttributeError):
                raise ProviderUnavailable("the answer cannot be read") from None
            if account.sid != sid:
                raise ProviderUnavailable("the answer is about another account")
            return account

        return ask_again(ask, deadline)

    def _deadline(self, window_seconds: float | None) -> Deadline:
        return Deadline.after(self._window_seconds if window_seconds is None else window_seconds)

    def _accounts(self, deadline: Deadline) -> Any:
        return self._sdk(deadline).api.v2010.accounts

    def _sdk(self, deadline: Deadline) -> Client:
        if not self._account_sid or not self._auth_tokens:
            raise CredentialsRejected("TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is not set")
        # The SDK's objects are made anew for every question, since they are not meant for several
        # threads; the connections beneath them are shared.
        return Client(
            self._account_sid,
            self._auth_tokens[0],
            http_client=Transport(self._client, self._base_url, deadline, self._line),
            environment=_NO_ENVIRONMENT,
        )

    def _check_sid(self, sid: str) -> None:
        if not _SUBACCOUNT_SID.fullmatch(sid):
            raise Refused("INVALID_ID", "not an account's sid")


def _status_of(account: Any) -> TwilioStatus | None:
    # ABSENT is our own word, for Twilio's not knowing the sid.
    if account.status in ("active", "suspended", "closed"):
        return TwilioStatus(account.status)
    return None
