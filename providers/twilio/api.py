"""Reads subaccounts at Twilio, sets their status, and lists and ends their calls.

All requests use the parent's credentials. The client never closes a subaccount, because that cannot
be undone. It never sends a change twice: after a lost response, the caller must read the state.
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
from base.problems.payments import UNKNOWN_STATUS
from base.problems.providers import INVALID_ID, INVALID_STATUS, PARENT_ACCOUNT, SUBACCOUNT_MISSING
from providers.errors import CredentialsRejected
from providers.http.client import RETRY_WINDOW_SECONDS, Deadline, build_client, send_with_retries
from providers.http.limits import ChannelLimits
from providers.http.probe import SilenceLimit
from providers.twilio import calls
from providers.twilio.mapping import raise_for_error
from providers.twilio.tokens import TokenMemory
from providers.twilio.transport import TWILIO_URL, Transport

#: Seconds by which a job is postponed while another thread waits for a silent provider. The
#: request of that thread takes about as long.
_SILENT_RETRY_SECONDS = 5.0

_SUBACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}", re.ASCII)
#: The SDK reads this dictionary instead of the process's environment. In the environment,
#: TWILIO_EDGE or TWILIO_REGION would send our credentials to another host than the configured one.
#: If the dictionary were empty, the SDK would read the environment.
_NO_ENVIRONMENT = {"TWILIO_EDGE": ""}


class TwilioApi:
    """Twilio's API with the parent account's credentials. Threads may share it."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        base_url: str = "",
        *,
        window_seconds: float = RETRY_WINDOW_SECONDS,
        limits: ChannelLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account_sid = account_sid
        # The setting has two tokens while an operator rotates the parent's token. A signature by
        # either of them is valid. The first token authenticates our requests.
        self._auth_tokens = tuple(part.strip() for part in auth_token.split(",") if part.strip())
        self._base_url = base_url.rstrip("/")
        self._window_seconds = window_seconds
        self._limits = limits
        self._client = build_client(self._base_url or TWILIO_URL)
        self._silence_limit = SilenceLimit(limits, _SILENT_RETRY_SECONDS)
        self._tokens = TokenMemory(self._fetch_token, clock, window_seconds + 1)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get_subaccount(self, sid: str) -> SubaccountFacts:
        """Read a subaccount's status; ABSENT if Twilio knows no account with that SID.

        Raises: Refused (INVALID_ID, UNKNOWN_STATUS, SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED),
        ProviderUnavailable, CredentialsRejected, HeldBack.
        """
        try:
            with self._silence_limit.request():
                account = self._fetch_account(sid)
        except Refused as error:
            if error.code == SUBACCOUNT_MISSING:
                return SubaccountFacts(sid, TwilioStatus.ABSENT)
            raise
        status = _status_of(account)
        if status is None:
            raise Refused(UNKNOWN_STATUS, "subaccount", external_id=sid)
        return SubaccountFacts(sid, status)

    def set_subaccount_status(self, sid: str, status: TwilioStatus) -> SubaccountFacts:
        """Suspend or activate a subaccount. Calls in progress continue.

        Replay: setting the current status again is no error. The request is sent once. Raises:
        OutcomeUnknown for a lost response, a 5xx or a response that is not Twilio's. The change may
        then have happened, or may still happen. ProviderUnavailable if it did not happen. Refused
        (SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED, SUBACCOUNT_MISSING, INVALID_ID, INVALID_STATUS,
        PARENT_ACCOUNT). CredentialsRejected; HeldBack.
        """
        if status not in (TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED):
            raise Refused(INVALID_STATUS, "only active and suspended are ever set")
        self._check_sid(sid)
        if sid == self._account_sid:
            raise Refused(PARENT_ACCOUNT, "the parent's own state is never changed")
        accounts = self._accounts_resource(Deadline.after(self._window_seconds))
        with self._silence_limit.request():
            try:
                account = accounts(sid).update(status=status.value)
            except TwilioException as error:
                raise_for_error(error, sid)
            except (ValueError, TypeError, AttributeError):
                raise OutcomeUnknown("the answer cannot be read") from None
        changed_to = _status_of(account)
        if account.sid != sid or changed_to is None:
            raise OutcomeUnknown("the answer describes another resource")
        return SubaccountFacts(sid, changed_to)

    def live_calls(self, sid: str, *, window_seconds: float | None = None) -> list[str]:
        """List the calls of an account that are queued, ringing or in progress, each once.

        The list is complete, or an error is raised. `window_seconds` limits the time of the
        request; the default is this client's own limit. Raises: Refused (INVALID_ID,
        SUBACCOUNT_MISSING), ProviderUnavailable, CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        deadline = self._deadline(window_seconds)
        with self._silence_limit.request():
            return calls.live_calls(self._sdk_client(deadline), sid, deadline)

    def complete_call(
        self, sid: str, call_sid: str, *, window_seconds: float | None = None
    ) -> bool:
        """End a call, also in a suspended account; False if the call was already over.

        Replay: ending a call twice ends it once. The request is sent once. Units: as live_calls.
        Raises: Refused (INVALID_ID; CALL_MISSING if the account has no such call), OutcomeUnknown,
        ProviderUnavailable, CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        with self._silence_limit.request():
            return calls.complete_call(
                self._sdk_client(self._deadline(window_seconds)), sid, call_sid
            )

    def call_is_live(
        self, sid: str, call_sid: str, *, window_seconds: float | None = None
    ) -> bool | None:
        """Return whether a call is not over yet; None if the account has no such call.

        Units: as live_calls. Raises: Refused (INVALID_ID, UNKNOWN_STATUS), ProviderUnavailable,
        CredentialsRejected, HeldBack.
        """
        self._check_sid(sid)
        deadline = self._deadline(window_seconds)
        with self._silence_limit.request():
            return calls.call_is_live(self._sdk_client(deadline), sid, call_sid, deadline)

    def subaccount_token(self, sid: str) -> str:
        """Return the token that signs a subaccount's callbacks; fetch it if necessary.

        The token is secret: never log it. Call this only for subaccounts that are known to be ours,
        because a sender can name any account. Threads that call at the same time share one request.
        After a failed request, the same error is raised for a few seconds without a request.
        Raises: Refused (INVALID_ID, SUBACCOUNT_MISSING, SUSPENDED_BY_TWILIO, SUBACCOUNT_CLOSED),
        ProviderUnavailable, CredentialsRejected.
        """
        if sid and sid == self._account_sid and self._auth_tokens:
            return self._auth_tokens[0]
        return self._tokens.get(sid)

    def proof_tokens(self, sid: str) -> tuple[str, ...]:
        """Return the known tokens that prove an account's callbacks; send no request."""
        if sid and sid == self._account_sid:
            return self._auth_tokens
        token = self._tokens.known(sid)
        return () if token is None else (token,)

    def newer_token(self, sid: str, than: str) -> str | None:
        """Fetch a token again after a callback's signature did not fit the token `than`.

        None means that Twilio has just confirmed that there is no newer token. Threads that ask
        at the same time share one request. Raises: as subaccount_token. It also raises for a few
        seconds after a failed refetch, because the signature cannot be judged then.
        """
        if sid == self._account_sid:
            return None
        return self._tokens.newer(sid, than)

    def _fetch_token(self, sid: str) -> str:
        token = self._fetch_account(sid).auth_token
        if not isinstance(token, str) or not token:
            raise ProviderUnavailable("the answer has no token")
        return token

    def _fetch_account(self, sid: str) -> Any:
        self._check_sid(sid)
        deadline = Deadline.after(self._window_seconds)
        accounts = self._accounts_resource(deadline)

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

        return send_with_retries(ask, deadline)

    def _deadline(self, window_seconds: float | None) -> Deadline:
        return Deadline.after(self._window_seconds if window_seconds is None else window_seconds)

    def _accounts_resource(self, deadline: Deadline) -> Any:
        return self._sdk_client(deadline).api.v2010.accounts

    def _sdk_client(self, deadline: Deadline) -> Client:
        if not self._account_sid or not self._auth_tokens:
            raise CredentialsRejected("TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is not set")
        # The SDK's objects are not thread-safe, so each request gets new ones. They share the HTTP
        # connections of `self._client`.
        return Client(
            self._account_sid,
            self._auth_tokens[0],
            http_client=Transport(self._client, self._base_url, deadline, self._limits),
            environment=_NO_ENVIRONMENT,
        )

    def _check_sid(self, sid: str) -> None:
        if not _SUBACCOUNT_SID.fullmatch(sid):
            raise Refused(INVALID_ID, "not an account's sid")


def _status_of(account: Any) -> TwilioStatus | None:
    # ABSENT is our own status for an account that Twilio does not know.
    if account.status in ("active", "suspended", "closed"):
        return TwilioStatus(account.status)
    return None
