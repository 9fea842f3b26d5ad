"""Twilio's API, version 2010-04-01: accounts and their status, calls and messages.

Source: Twilio's published specification (twilio_api_v2010) and its pages on error codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, Json, Rejected, json_answer, same_secret
from sandbox.gate import Handler
from sandbox.twilio.calls import TwilioCall
from sandbox.twilio.pages import page
from sandbox.twilio.state import STATUSES, VERSION, Account

#: An operation on an account. It runs after the caller's credentials were checked.
Act = Callable[[Sandbox, ApiRequest, Account], Answer]


def _error(status: int, code: int, message: str) -> Rejected:
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return Rejected(json_answer(body, status))


def _not_found(request: ApiRequest) -> Rejected:
    return _error(404, 20404, f"The requested resource {request.path} was not found")


def _authenticated_account(sandbox: Sandbox, request: ApiRequest) -> Account:
    sid, token = request.basic()
    account = sandbox.twilio.accounts.get(sid)
    if account is None or not same_secret(token, account.auth_token):
        raise _error(401, 20003, "Authenticate")
    return account


def _for_parent(act: Act) -> Handler:
    """Require the parent's credentials, and act on the parent account itself."""

    def checked(sandbox: Sandbox, request: ApiRequest) -> Answer:
        caller = _authenticated_account(sandbox, request)
        if caller is not sandbox.twilio.parent:
            raise _error(401, 20003, "Authenticate")
        return act(sandbox, request, caller)

    return checked


def _for_account(act: Act, *, parent_only: bool = False) -> Handler:
    """Require the parent's credentials, or those of the active subaccount in the path.

    The parent may act on all accounts, a subaccount only on itself. With `parent_only`, only the
    parent may.
    """

    def checked(sandbox: Sandbox, request: ApiRequest) -> Answer:
        account = sandbox.twilio.accounts.get(request.params["account"])
        if account is not None:
            account.requests += 1
        caller = _authenticated_account(sandbox, request)
        if caller is not sandbox.twilio.parent and (
            parent_only or caller is not account or caller.status != "active"
        ):
            raise _error(401, 20003, "Authenticate")
        if account is None:
            raise _not_found(request)
        return act(sandbox, request, account)

    return checked


def create_account(sandbox: Sandbox, request: ApiRequest, parent: Account) -> Answer:
    """Answer POST Accounts.json with a new subaccount and its token."""
    name = request.form().get("FriendlyName", "")
    return json_answer(sandbox.twilio.add_subaccount(name, "api").to_dict(), 201)


def list_accounts(sandbox: Sandbox, request: ApiRequest, parent: Account) -> Answer:
    """Answer GET Accounts.json, optionally filtered by status."""
    accounts = [account.to_dict() for account in sandbox.twilio.accounts.values()]
    return page(request, "accounts", accounts, filters={"Status": "status"})


def fetch_account(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer GET Accounts/{Sid}.json."""
    return json_answer(account.to_dict())


def update_account(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer POST Accounts/{Sid}.json: change the name, the status or both.

    Replay: setting the current status again is no error.
    """
    form = request.form()
    status = form.get("Status")
    if status is not None:
        _check_status(sandbox, account, status)
    if "FriendlyName" in form:
        account.friendly_name = form["FriendlyName"]
    if status is not None:
        account.set_status(status, "api")
    return json_answer(account.to_dict())


def _check_status(sandbox: Sandbox, account: Account, status: str) -> None:
    prefix = "Unable to update Status"
    if status not in STATUSES:
        raise _error(400, 21475, f"{prefix}, invalid Status.")
    if account is sandbox.twilio.parent:
        raise _error(400, 21477, f"{prefix} for parent accounts")
    if account.status == "closed":
        raise _error(400, 21479, f"{prefix} for subaccount, it has been closed.")
    if account.suspended_by_twilio:
        raise _error(400, 21478, f"{prefix} for subaccount, it has been suspended by Twilio")


def list_calls(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer GET Calls.json, optionally filtered by status, To or From."""
    calls = _items_of_account(account, (call.shown for call in sandbox.twilio.calls.values()))
    return page(request, "calls", calls, filters={"Status": "status", "To": "to", "From": "from"})


def fetch_call(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer GET Calls/{CallSid}.json."""
    return json_answer(_find_call(sandbox, account, request).shown)


def update_call(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer POST Calls/{CallSid}.json: end a call, even of a suspended account.

    The status canceled ends only a call that is not yet in progress; completed ends any live call.
    """
    call = _find_call(sandbox, account, request)
    status = request.form().get("Status")
    if status in ("completed", "canceled"):
        if call.over:
            raise _error(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "completed" or call.shown["status"] != "in-progress":
            call.set_status(status)
    return json_answer(call.shown)


def create_message(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer POST Messages.json. An account that is not active cannot send."""
    if account.status != "active":
        raise _error(403, 20005, "Account not active")
    form = request.form()
    if not form.get("To"):
        raise _error(400, 21604, "A 'To' phone number is required.")
    if not (form.get("From") or form.get("MessagingServiceSid")):
        raise _error(400, 21603, "A 'From' phone number is required.")
    if not (form.get("Body") or form.get("MediaUrl") or form.get("ContentSid")):
        raise _error(400, 21602, "Message body is required.")
    return json_answer(sandbox.twilio.add_message(account, form), 201)


def list_messages(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer GET Messages.json, optionally filtered by To."""
    messages = _items_of_account(account, sandbox.twilio.messages.values())
    return page(request, "messages", messages, filters={"To": "to"})


def fetch_message(sandbox: Sandbox, request: ApiRequest, account: Account) -> Answer:
    """Answer GET Messages/{MessageSid}.json."""
    message = sandbox.twilio.messages.get(request.params["sid"])
    if message is None or message["account_sid"] != account.sid:
        raise _not_found(request)
    return json_answer(message)


def not_found(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Refuse a path that the stand-in does not serve."""
    raise _not_found(request)


def _items_of_account(account: Account, items: Iterable[Json]) -> list[Json]:
    return [item for item in items if item["account_sid"] == account.sid]


def _find_call(sandbox: Sandbox, account: Account, request: ApiRequest) -> TwilioCall:
    call = sandbox.twilio.calls.get(request.params["sid"])
    if call is None or call.shown["account_sid"] != account.sid:
        raise _not_found(request)
    return call


def operations() -> list[tuple[str, str, Handler]]:
    """List Twilio's operations: method, path, handler."""
    accounts = f"/{VERSION}/Accounts"
    account = f"{accounts}/{{account}}"
    return [
        ("POST", f"{accounts}.json", _for_parent(create_account)),
        ("GET", f"{accounts}.json", _for_parent(list_accounts)),
        ("GET", f"{account}/Calls.json", _for_account(list_calls)),
        ("GET", f"{account}/Calls/{{sid}}.json", _for_account(fetch_call)),
        ("POST", f"{account}/Calls/{{sid}}.json", _for_account(update_call)),
        ("GET", f"{account}/Messages.json", _for_account(list_messages)),
        ("POST", f"{account}/Messages.json", _for_account(create_message)),
        ("GET", f"{account}/Messages/{{sid}}.json", _for_account(fetch_message)),
        ("GET", f"{account}.json", _for_account(fetch_account)),
        ("POST", f"{account}.json", _for_account(update_account, parent_only=True)),
    ]
