"""Connects Twilio's SDK to our HTTP client, timeouts and errors.

The SDK's own client has no timeout, loses Retry-After, shares one session between threads, and
cannot use another URL. This module does not interpret Twilio's error codes.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx
from twilio.http import HttpClient
from twilio.http.response import Response

from base.outcomes import OutcomeUnknown, ProviderUnavailable
from providers.http.client import Deadline, exchange
from providers.http.limits import ChannelLimits

#: The URL that the SDK requests. A stand-in's URL replaces it.
TWILIO_URL = "https://api.twilio.com"

#: The path of a resource within an account. Requests for the account itself (/Accounts/AC...json)
#: count against the parent's rate limit.
_WITHIN_AN_ACCOUNT = re.compile(r"/2010-04-01/Accounts/(AC[0-9a-f]{32})/", re.ASCII)

_logger = logging.getLogger("holdfast.twilio")


class Transport(HttpClient):  # type: ignore[misc]  # the SDK has no types
    """The transport of one request. Many threads share the client below it."""

    def __init__(
        self,
        client: httpx.Client,
        base_url: str,
        deadline: Deadline,
        limits: ChannelLimits | None = None,
    ) -> None:
        super().__init__(_logger, False)
        self._client = client
        self._base_url = base_url or TWILIO_URL
        self._deadline = deadline
        self._limits = limits

    def request(  # noqa: PLR0917  # the SDK's own signature
        self,
        method: str,
        uri: str,
        params: dict[str, object] | None = None,
        data: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Response:
        """Send the SDK's request once.

        Raises: HeldBack, ProviderUnavailable, OutcomeUnknown (only for a request that changes
        something).
        """
        if not uri.startswith(f"{TWILIO_URL}/"):
            raise ValueError("the SDK requested a host other than api.twilio.com")
        is_read = method.upper() == "GET"
        answer = exchange(
            self._client,
            method,
            f"{self._base_url}{uri[len(TWILIO_URL) :]}",
            limits=self._limits_of(uri),
            repeatable=is_read,
            deadline=self._deadline,
            params=params or None,
            data=data or None,
            headers=headers,
            auth=auth,
        )
        text = answer.body.decode("utf-8", "replace")
        if answer.status < 400 and not _is_object(text):
            # A proxy answered instead of Twilio, so it is unknown what Twilio did.
            error: type[Exception] = ProviderUnavailable if is_read else OutcomeUnknown
            raise error("the answer is not a JSON object")
        return Response(answer.status, text)

    def _limits_of(self, uri: str) -> ChannelLimits | None:
        # Twilio limits each account's requests separately (error 20429). One customer's flood holds
        # back only that customer.
        within = _WITHIN_AN_ACCOUNT.match(uri[len(TWILIO_URL) :])
        if self._limits is None or within is None or within[1] == self._limits.channel.account:
            return self._limits
        return self._limits.of_tenant(within[1])


def _is_object(text: str) -> bool:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
