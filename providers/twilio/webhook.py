"""Verifies that Twilio signed a callback, and names the callback.

The signature contains no time, so a callback that verified once verifies forever. Its recorder must
recognize a repeat by external_id_of. The signature is checked for the configured public URL, never
for the URL that the request claims.
"""

from __future__ import annotations

import re
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

from providers.errors import ForgedWebhook, MalformedWebhook

#: The most parameters of a form that is read. Twilio sends about forty.
_PARAMETERS_MAX = 500
_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{27}=", re.ASCII)
_ACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}", re.ASCII)
_SID = re.compile(r"[A-Z]{2}[0-9A-Za-z]{1,32}", re.ASCII)
_STATUS = re.compile(r"[a-z_-]{1,20}", re.ASCII)
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


class _Form(dict[str, list[str]]):
    """A form from which the SDK's validator reads every value of a repeated name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def verify(
    *, public_url: str, path_and_query: str, body: bytes, signature: str | None, token: str
) -> dict[str, list[str]]:
    """Verify a callback and return its form's parameters, also the blank ones.

    `public_url` is the scheme and host at which Twilio calls us, without a slash at the end.
    `path_and_query` is verbatim. If the query has bodySHA256, the body is JSON. Then the body's
    hash is compared, and no parameters are returned. X-Twilio-Webhooks-Signature-Settings is
    ignored, so that a sender cannot choose the algorithm. Raises: ForgedWebhook.
    Source: twilio.com/docs/usage/security and the SDK's request_validator.
    """
    if not signature or not token:
        raise ForgedWebhook("the signature is missing")
    if not path_and_query.startswith("/"):
        raise ForgedWebhook("the path is malformed")
    url = f"{public_url}{path_and_query}"
    try:
        hashes = parse_qs(urlsplit(url).query, max_num_fields=_PARAMETERS_MAX).get("bodySHA256")
        form = _Form() if hashes else _form_of(body)
        is_genuine = RequestValidator(token).validate(url, form, signature)
    except ValueError:
        raise ForgedWebhook("the callback cannot be read") from None
    if hashes and not compare_digest(sha256(body).hexdigest().encode(), hashes[0].encode()):
        raise ForgedWebhook("the body is not the one that was signed")
    if not is_genuine:
        raise ForgedWebhook("the signature is not Twilio's for this address, body and account")
    return dict(form)


def is_plausible(signature: str | None) -> bool:
    """Return whether a text can be a signature: base64 of an HMAC-SHA1's 20 bytes."""
    return signature is not None and _SIGNATURE.fullmatch(signature) is not None


def account_sid_of(body: bytes) -> str:
    """Return the account that a callback claims, in order to find its token.

    The claim proves nothing. Raises: MalformedWebhook if there is no AccountSid, several, or an
    invalid one.
    """
    try:
        values = set(_form_of(body).get("AccountSid", []))
    except ValueError:
        raise MalformedWebhook("the body is not a form") from None
    if len(values) != 1:
        raise MalformedWebhook("the callback does not name one account")
    value = values.pop()
    if not _ACCOUNT_SID.fullmatch(value):
        raise MalformedWebhook("the callback's AccountSid is malformed")
    return value


def external_id_of(params: dict[str, list[str]]) -> str:
    """Name a callback so that a repeat of it has the same name.

    The name has at most 64 characters. It consists of the message and its status, or of the call,
    its status and its SequenceNumber if there is one. An incoming message has only SmsStatus.
    Raises: MalformedWebhook.
    """
    if "MessageSid" in params:
        status_name = "MessageStatus" if "MessageStatus" in params else "SmsStatus"
        return f"{_value(params, 'MessageSid', _SID)}:{_value(params, status_name, _STATUS)}"
    if "CallSid" in params:
        name = f"{_value(params, 'CallSid', _SID)}:{_value(params, 'CallStatus', _STATUS)}"
        if "SequenceNumber" in params:
            name += f":{_value(params, 'SequenceNumber', _SEQUENCE_NUMBER)}"
        return name
    raise MalformedWebhook("the callback is about neither a message nor a call")


def _value(params: dict[str, list[str]], name: str, pattern: re.Pattern[str]) -> str:
    values = set(params.get(name, []))
    value = values.pop() if len(values) == 1 else ""
    if not pattern.fullmatch(value):
        raise MalformedWebhook(f"{name} is missing or malformed")
    return value


def _form_of(body: bytes) -> _Form:
    form = _Form()
    # Blank values are signed too. Real callbacks have many.
    for name, value in parse_qsl(
        body.decode("utf-8"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX
    ):
        form.setdefault(name, []).append(value)
    return form
