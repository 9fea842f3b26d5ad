"""Whether a callback was signed by Twilio with an account's token, and what names it.

The signature has no time in it: a message that verified once verifies for ever, so whoever records
it must know it again by external_id_of. The signed address is the configured public one, never
what a request says of itself.
"""

from __future__ import annotations

import re
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

from providers.errors import ForgedWebhook, MalformedWebhook

#: Parameters of the largest form read; Twilio sends about forty.
_PARAMETERS_MAX = 500
_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{27}=", re.ASCII)
_ACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}", re.ASCII)
_SID = re.compile(r"[A-Z]{2}[0-9A-Za-z]{1,32}", re.ASCII)
_STATUS = re.compile(r"[a-z_-]{1,20}", re.ASCII)
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


class _Form(dict[str, list[str]]):
    """What the SDK's validator needs to see every value of a repeated name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def verify(
    *, public_url: str, path_and_query: str, body: bytes, signature: str | None, token: str
) -> dict[str, list[str]]:
    """This function will prove a callback and give its form's parameters, blank ones too.

    `public_url` is scheme and host as Twilio calls us, without a slash at the end;
    `path_and_query` is verbatim. With bodySHA256 in the query the body is JSON: its hash is
    compared, and no parameters are given. X-Twilio-Webhooks-Signature-Settings is not looked at,
    so that a caller cannot choose the algorithm.
    Raises: ForgedWebhook. Source: twilio.com/docs/usage/security and the SDK's request_validator.
    """
    if not signature or not token:
        raise ForgedWebhook("the signature is missing")
    if not path_and_query.startswith("/"):
        raise ForgedWebhook("the path is odd")
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
    """Return whether a text can be a signature at all: base64 of the 20 bytes of an HMAC-SHA1."""
    return signature is not None and _SIGNATURE.fullmatch(signature) is not None


def account_sid_of(body: bytes) -> str:
    """This function will give the account a callback says it is of, to find the token by.

    Nothing is proved by it. Raises: MalformedWebhook when it names none, several or an odd one.
    """
    try:
        values = set(_form_of(body).get("AccountSid", []))
    except ValueError:
        raise MalformedWebhook("the body is not a form") from None
    if len(values) != 1:
        raise MalformedWebhook("the callback does not name one account")
    value = values.pop()
    if not _ACCOUNT_SID.fullmatch(value):
        raise MalformedWebhook("the callback's AccountSid is odd")
    return value


def external_id_of(params: dict[str, list[str]]) -> str:
    """This function will name a callback so that a repeat of it has the same name.

    Units: at most 64 characters: message and status, or call, status and SequenceNumber if there
    is one. A message that came in has only SmsStatus. Raises: MalformedWebhook.
    """
    if "MessageSid" in params:
        status_name = "MessageStatus" if "MessageStatus" in params else "SmsStatus"
        return f"{_one(params, 'MessageSid', _SID)}:{_one(params, status_name, _STATUS)}"
    if "CallSid" in params:
        name = f"{_one(params, 'CallSid', _SID)}:{_one(params, 'CallStatus', _STATUS)}"
        if "SequenceNumber" in params:
            name += f":{_one(params, 'SequenceNumber', _SEQUENCE_NUMBER)}"
        return name
    raise MalformedWebhook("the callback is about neither a message nor a call")


def _one(params: dict[str, list[str]], name: str, pattern: re.Pattern[str]) -> str:
    values = set(params.get(name, []))
    value = values.pop() if len(values) == 1 else ""
    if not pattern.fullmatch(value):
        raise MalformedWebhook(f"{name} is missing or odd")
    return value


def _form_of(body: bytes) -> _Form:
    form = _Form()
    # Blank values are signed too, and real callbacks have many.
    for name, value in parse_qsl(
        body.decode("utf-8"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX
    ):
        form.setdefault(name, []).append(value)
    return form
