"""Vapi's API: reads a call, and controls a live call through its control URL.

This module uses our own HTTP client instead of Vapi's SDK. The SDK waits up to a minute, retries
silently, and would bypass the provider channel. A control URL is taken only from an answer of the
API itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from base.facts import CallFacts
from base.outcomes import ProviderUnavailable, Refused
from base.problems.providers import CONTROL_URL, INVALID_ID
from providers.errors import AnswerUnreadable, CredentialsRejected
from providers.http.client import (
    RETRY_WINDOW_SECONDS,
    Answer,
    Deadline,
    build_client,
    exchange,
    send_with_retries,
)
from providers.http.limits import ChannelLimits
from providers.http.probe import SilenceLimit
from providers.vapi.lean import read_call
from providers.vapi.mapping import call_facts, call_id_of

VAPI_URL = "https://api.vapi.ai"
#: A URL at Vapi: https, its domain or a host below it, no user name, no other port. The whole URL
#: is matched, so that two parsers cannot see two different hosts in it.
_VAPI_URL_FORM = re.compile(
    r"https://(?:[a-z0-9-]+\.)*vapi\.ai(?::443)?(?:[/?][!-~]*)?", re.IGNORECASE
)
_PATH_FORM = re.compile(r"/[!-~]*")
_URL_LENGTH_MAX = 2_000
#: HTTP statuses with which Vapi answers for a call that is over or that it never knew.
_GONE_STATUSES = (404, 410)
#: Vapi may also answer 200 with this call status if it never knew the call. Source: Vapi's SDK
#: 3.0.0, CallStatus.
_NOT_FOUND_CALL_STATUS = "not-found"
#: Bytes of the largest call that is read. It contains the whole conversation, and any metadata.
CALL_BYTES_MAX = 16_777_216
#: Retry delay in seconds for a safety request while another thread waits for a silent Vapi. It is
#: as long as that thread waits for an answer.
_SILENT_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class VapiCall:
    """A call as the API shows it, and its control URL while it is live.

    Anyone who knows the URL can end the call or speak into it. Never log or store it.
    """

    facts: CallFacts
    control_url: str | None

    def __repr__(self) -> str:
        return f"VapiCall({self.facts.external_id}, {self.facts.status})"


class VapiApi:
    """Vapi's API for one private key. Threads may share it."""

    def __init__(
        self,
        api_key: str,
        base_url: str = "",
        *,
        window_seconds: float = RETRY_WINDOW_SECONDS,
        limits: ChannelLimits | None = None,
        bytes_max: int = CALL_BYTES_MAX,
    ) -> None:
        self._bytes_max = bytes_max
        self._api_key = api_key
        self._base_url = (base_url or VAPI_URL).rstrip("/")
        self._origin = _origin_of(self._base_url)
        self._window_seconds = window_seconds
        self._limits = limits
        self._client = build_client(self._base_url)
        self._read_limit = SilenceLimit(limits, _SILENT_RETRY_SECONDS)
        self._command_limit = SilenceLimit(limits, _SILENT_RETRY_SECONDS)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get_call(self, external_id: str) -> VapiCall | None:
        """Read a call's current state; None if Vapi has no such call.

        Vapi answers 404, 410 or the status not-found then. Raises: Refused INVALID_ID (IDs are
        UUIDs), ProviderUnavailable (AnswerUnreadable for a call that is too large or breaks JSON's
        rules), CredentialsRejected, HeldBack. Source: GET /call/{id}.
        """
        _check_id(external_id)
        if not self._api_key:
            raise CredentialsRejected("VAPI_API_KEY is not set")
        deadline = Deadline.after(self._window_seconds)

        def ask() -> VapiCall | None:
            answer = exchange(
                self._client,
                "GET",
                f"{self._base_url}/call/{external_id}",
                limits=self._limits,
                repeatable=True,
                deadline=deadline,
                bytes_max=self._bytes_max,
                headers={"Authorization": f"Bearer {self._api_key}"},
            )
            return self._call_from(answer, external_id)

        with self._read_limit.request():
            return send_with_retries(ask, deadline)

    def say(self, control_url: str, text: str, *, then_end: bool) -> bool:
        """Make a live call speak, and end it afterwards if `then_end` is set.

        True means that Vapi accepted the command; the call may not have ended yet. False means that
        the call is over. The request is sent once.
        Raises: Refused CONTROL_URL. OutcomeUnknown for a lost response or 5xx (Vapi may still
        speak the text). ProviderUnavailable if Vapi did not accept the command. CredentialsRejected
        if the control URL requires credentials. HeldBack. Source: docs.vapi.ai, live call control.
        """
        return self._send_command(
            control_url, {"type": "say", "content": text, "endCallAfterSpoken": then_end}
        )

    def end(self, control_url: str) -> bool:
        """End a live call at once. Result and errors: as `say`."""
        return self._send_command(control_url, {"type": "end-call"})

    def _send_command(self, control_url: str, command: dict[str, Any]) -> bool:
        url = self._check_control_url(control_url)
        with self._command_limit.request():
            answer = exchange(
                self._client,
                "POST",
                url,
                limits=self._limits,
                repeatable=False,
                deadline=Deadline.after(self._window_seconds),
                json=command,
            )
        if answer.status < 300:
            return True
        if answer.status in _GONE_STATUSES:
            return False
        if answer.status in (401, 403):
            raise CredentialsRejected(f"the control URL answered {answer.status}")
        raise ProviderUnavailable(f"the control URL answered {answer.status}")

    def _call_from(self, answer: Answer, external_id: str) -> VapiCall | None:
        if answer.status in (401, 403):
            raise CredentialsRejected(f"Vapi answered {answer.status}")
        if answer.status >= 400 and answer.status not in _GONE_STATUSES:
            raise ProviderUnavailable(f"Vapi answered {answer.status}")
        try:
            call = read_call(answer.body)
        except ValueError as error:
            if answer.status < 300 and answer.body.lstrip()[:1] == b"{":
                raise AnswerUnreadable(f"the call cannot be read: {error}") from None
            # A proxy's own page is also handled here: its 404 shows nothing about the call.
            raise ProviderUnavailable("the answer is not a JSON object") from None
        if answer.status in _GONE_STATUSES:
            return None
        if call_id_of(call) != external_id.lower():
            raise ProviderUnavailable("the answer describes another call")
        if call.get("status") == _NOT_FOUND_CALL_STATUS:
            return None
        monitor = call.get("monitor")
        control_url = monitor.get("controlUrl") if isinstance(monitor, dict) else None
        return VapiCall(call_facts(call), control_url if isinstance(control_url, str) else None)

    def _check_control_url(self, control_url: str) -> str:
        """Check that a control URL is Vapi's; strip the "<" and ">" that may surround it."""
        url = control_url.strip().removeprefix("<").removesuffix(">").strip()
        if self._origin is None:
            is_at_vapi = _VAPI_URL_FORM.fullmatch(url) is not None
        else:
            path = url.removeprefix(self._origin)
            is_at_vapi = path != url and _PATH_FORM.fullmatch(path) is not None
        if not is_at_vapi or len(url) > _URL_LENGTH_MAX:
            raise Refused(CONTROL_URL, "not a URL at Vapi")
        return url


def _origin_of(base_url: str) -> str | None:
    """Return the origin of a server that replaces Vapi; None for Vapi in any region.

    An origin is scheme, host and port.
    """
    if _VAPI_URL_FORM.fullmatch(base_url):
        return None
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}"


def _check_id(external_id: str) -> None:
    try:
        is_uuid = str(UUID(external_id)) == external_id.lower()
    except ValueError:
        is_uuid = False
    if not is_uuid:
        raise Refused(INVALID_ID, "not a call id of Vapi")
