"""Twilio's state: the parent account, its subaccounts, their calls and messages."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sandbox.exchange import Json, iso_ms
from sandbox.store import Shelf
from sandbox.twilio.calls import TwilioCall, pack_call, rfc2822_now, unpack_call

#: API version. Every path begins with it.
VERSION = "2010-04-01"
STATUSES = ("active", "suspended", "closed")


@dataclass
class Account:
    """The parent account, which is its own owner, or one of its subaccounts."""

    sid: str
    auth_token: str
    friendly_name: str
    owner_sid: str
    status: str = "active"
    #: Whether Twilio itself suspended the account. The API can neither cause nor
    #: undo such a suspension.
    suspended_by_twilio: bool = False
    created_at: str = ""
    updated_at: str = ""
    #: Every status so far, each with `at`, `status` and `via` (api or twilio).
    history: list[Json] = field(default_factory=list)
    #: Number of API requests that named the account, refused ones included.
    requests: int = 0

    def set_status(self, status: str, via: str) -> None:
        """Set the status and add it to the history, even if it does not change."""
        self.status = status
        self.updated_at = rfc2822_now()
        self.history.append({"at": iso_ms(), "status": status, "via": via})

    def to_dict(self) -> Json:
        """Return the account as the API shows it."""
        path = f"/{VERSION}/Accounts/{self.sid}"
        return {
            "sid": self.sid,
            "friendly_name": self.friendly_name,
            "status": self.status,
            "type": "Full",
            "auth_token": self.auth_token,
            "owner_account_sid": self.owner_sid,
            "date_created": self.created_at,
            "date_updated": self.updated_at,
            "subresource_uris": {
                "calls": f"{path}/Calls.json",
                "messages": f"{path}/Messages.json",
            },
            "uri": f"{path}.json",
        }


class TwilioState:
    """Twilio's resources by Twilio's IDs."""

    def __init__(self, parent_sid: str, parent_token: str) -> None:
        now = rfc2822_now()
        self.accounts: Shelf[Account] = Shelf("twilio.accounts", asdict, _unpack_account)
        self._parent_sid = parent_sid
        self.accounts[parent_sid] = Account(
            parent_sid, parent_token, "Parent", parent_sid, created_at=now, updated_at=now
        )
        self.calls: Shelf[TwilioCall] = Shelf(
            "twilio.calls", pack_call, lambda packed: self._save_changes_of(unpack_call(packed))
        )
        self.messages: Shelf[Json] = Shelf("twilio.messages")

    @property
    def parent(self) -> Account:
        """The account that owns the others."""
        return self.accounts[self._parent_sid]

    def shelves(self) -> list[Shelf[Any]]:
        """List the resources that are kept when the sandbox restarts."""
        return [self.accounts, self.calls, self.messages]

    def add_subaccount(self, friendly_name: str, via: str) -> Account:
        """Create an active subaccount of the parent."""
        now = rfc2822_now()
        account = Account(
            sid="AC" + secrets.token_hex(16),
            auth_token=secrets.token_hex(16),
            friendly_name=friendly_name or f"SubAccount Created at {iso_ms()}",
            owner_sid=self.parent.sid,
            created_at=now,
        )
        account.set_status("active", via)
        self.accounts[account.sid] = account
        return account

    def add_call(
        self, account: Account, to: str, from_: str, status: str, direction: str = "outbound-api"
    ) -> TwilioCall:
        """Start a call. It continues until a person or the API ends it."""
        now = rfc2822_now()
        sid = "CA" + secrets.token_hex(16)
        is_answered = status == "in-progress"
        shown: Json = {
            "sid": sid,
            "account_sid": account.sid,
            "parent_call_sid": None,
            "to": to,
            "from": from_,
            "status": status,
            "direction": direction,
            "start_time": now if is_answered else None,
            "end_time": None,
            "duration": None,
            "price": None,
            "price_unit": "USD",
            "api_version": VERSION,
            "date_created": now,
            "date_updated": now,
            "subresource_uris": {},
            "uri": f"/{VERSION}/Accounts/{account.sid}/Calls/{sid}.json",
        }
        call = TwilioCall(shown, answered_at=time.monotonic() if is_answered else None)
        self.calls[sid] = self._save_changes_of(call)
        return call

    def add_message(self, account: Account, form: dict[str, str]) -> Json:
        """Queue a message."""
        now = rfc2822_now()
        sid = "SM" + secrets.token_hex(16)
        body = form.get("Body", "")
        message: Json = {
            "sid": sid,
            "account_sid": account.sid,
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "to": form["To"],
            "from": form.get("From"),
            "body": body,
            "status": "queued",
            "direction": "outbound-api",
            "num_segments": str(-(-len(body) // 160) or 1),
            "num_media": "0",
            "price": None,
            "price_unit": None,
            "error_code": None,
            "error_message": None,
            "api_version": VERSION,
            "date_created": now,
            "date_sent": None,
            "date_updated": now,
            "subresource_uris": {},
            "uri": f"/{VERSION}/Accounts/{account.sid}/Messages/{sid}.json",
        }
        self.messages[sid] = message
        return message

    def _save_changes_of(self, call: TwilioCall) -> TwilioCall:
        call.watchers.append(lambda changed_call: self.calls.note(changed_call.shown["sid"]))
        return call


def _unpack_account(packed: Json) -> Account:
    return Account(**packed)
