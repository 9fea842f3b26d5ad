"""Twilio's status callbacks: forms signed with the account's own auth token.

The signature covers the public address and the fields.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlencode, urlsplit

from sandbox.core import Sandbox
from sandbox.delivery import Parcel
from sandbox.twilio.calls import TwilioCall, rfc2822_now
from sandbox.twilio.state import VERSION, Account


def sign(auth_token: str, url: str, params: dict[str, str]) -> str:
    """Return X-Twilio-Signature: HMAC-SHA1 over the address and the sorted fields.

    Source: Twilio's page on the security of webhooks. The RequestValidator of Twilio's SDK
    computes the same signature.
    """
    text = url + "".join(name + params[name] for name in sorted(params))
    digest = hmac.new(auth_token.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def callback(sandbox: Sandbox, account: Account, url: str, params: dict[str, str]) -> Parcel:
    """Build a signed callback.

    The signature covers `url`, the address that Twilio was configured with; blank means the
    ingress. If `url` is an https address, a proxy is assumed in front of the ingress, and the form
    goes to the same path of the target.
    """
    public_url = url or sandbox.webhook_url("twilio")
    form = {"AccountSid": account.sid, "ApiVersion": VERSION} | params
    return Parcel(
        provider="twilio",
        event_id=form.get("CallSid") or form.get("MessageSid") or "",
        event_type=form.get("CallStatus") or form.get("MessageStatus") or "",
        transmission_id="",
        url=_reachable_url(sandbox, public_url),
        headers={
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "User-Agent": "TwilioProxy/1.1",
            "X-Twilio-Signature": sign(account.auth_token, public_url, form),
        },
        body=urlencode(form).encode(),
    )


def send_status_callbacks(sandbox: Sandbox, call: TwilioCall, url: str) -> None:
    """Send a callback for every later change of the call's status, once each.

    `url` has the same meaning as in callback(). A callback is never repeated. A receiver that
    missed one has to read the call from the API.
    """
    call.callback_url = url

    def send_callback(call: TwilioCall) -> None:
        account = sandbox.twilio.accounts[call.shown["account_sid"]]
        form = _voice_form(call, call.callbacks)
        call.callbacks += 1
        sandbox.courier.post(callback(sandbox, account, url, form), retry=False)

    call.watchers.append(send_callback)


def _voice_form(call: TwilioCall, sequence: int) -> dict[str, str]:
    shown = call.shown
    form = {
        "CallSid": shown["sid"],
        "CallStatus": shown["status"],
        "Direction": shown["direction"],
        "From": shown["from"],
        "To": shown["to"],
        "Caller": shown["from"],
        "Called": shown["to"],
        # Twilio sends unknown values as blanks, and signs those fields too.
        "CallerCity": "",
        "CalledCity": "",
        "FromZip": "",
        "ToZip": "",
        "Timestamp": rfc2822_now(),
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(sequence),
    }
    if call.over:
        seconds = int(shown["duration"])
        # CallDuration is in seconds. Duration is in minutes, rounded up.
        form |= {"CallDuration": str(seconds), "Duration": str(-(-seconds // 60))}
    return form


def _reachable_url(sandbox: Sandbox, public_url: str) -> str:
    parts = urlsplit(public_url)
    if parts.scheme != "https":
        return public_url
    query = f"?{parts.query}" if parts.query else ""
    return f"{sandbox.target}{parts.path}{query}"
