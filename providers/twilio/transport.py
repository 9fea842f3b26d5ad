"""The SDK's way to the network: our timeouts, our failures, and a stand-in's address.

The SDK's own client has no timeout, loses Retry-After, shares one session between threads, and
cannot be pointed elsewhere; this one decides none of what Twilio's codes mean.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
from twilio.http import HttpClient
from twilio.http.response import Response

from base.outcomes import OutcomeUnknown, ProviderUnavailable
from providers.http import Deadline, exchange

#: What the SDK asks; the only address a stand-in takes the place of.
TWILIO_URL = "https://api.twilio.com"

_logger = logging.getLogger("holdfast.twilio")


class Transport(HttpClient):  # type: ignore[misc]  # the SDK has no types
    """One question's transport: cheap to make, over a client that many threads share."""

    def __init__(self, client: httpx.Client, base_url: str, deadline: Deadline) -> None:
        super().__init__(_logger, False)
        self._client = client
        self._base_url = base_url or TWILIO_URL
        self._deadline = deadline

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
        """This function will send the SDK's request once.

        Raises: ProviderUnavailable, OutcomeUnknown (only for what changes something).
        """
        if not uri.startswith(f"{TWILIO_URL}/"):
            raise ValueError("the SDK asked another host than api.twilio.com")
        is_question = method.upper() == "GET"
        answer = exchange(
            self._client,
            method,
            f"{self._base_url}{uri[len(TWILIO_URL) :]}",
            repeatable=is_question,
            deadline=self._deadline,
            params=params or None,
            data=data or None,
            headers=headers,
            auth=auth,
        )
        text = answer.body.decode("utf-8", "replace")
        if answer.status < 400 and not _is_object(text):
            # Somebody between us and Twilio answered: what Twilio did is not known.
            lost: type[Exception] = ProviderUnavailable if is_question else OutcomeUnknown
            raise lost("the answer is not a JSON object")
        return Response(answer.status, text)


def _is_object(text: str) -> bool:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
