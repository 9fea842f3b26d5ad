"""Starts the sandbox as a child process and makes the settings that use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from base.settings import SettingsError
from local.ports import port_to_serve
from local.supervisor import ChildProcess, Supervisor


def start_sandbox(
    supervisor: Supervisor,
    state: Path,
    env: Mapping[str, str],
    *,
    ready_seconds: float,
    target: str = "",
    keep: bool = False,
) -> dict[str, Any]:
    """Start the sandbox on any free port and return its addresses and keys.

    Its folder is in `state`, and it sends its webhooks to `target`. With `keep`, a restart keeps
    its resources and its port. Raises: ProcessNotReady.
    """
    path = _info_file(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A killed sandbox leaves its file behind, and the new one would seem ready.
    path.unlink(missing_ok=True)
    port = _usual_port(path.with_name("port")) if keep else 0
    argv = [sys.executable, "-m", "sandbox", "--port", str(port), "--state", str(path.parent)]
    if target:
        argv += ["--target", target]
    if keep:
        argv.append("--keep")
    supervisor.start(
        ChildProcess("sandbox", argv, env, ready=path.exists, ready_seconds=ready_seconds)
    )
    return _read(path)


def sandbox_info(state: Path) -> dict[str, Any]:
    """Request the running sandbox's addresses, keys and signing settings.

    Raises: SettingsError if no sandbox was started with this state folder, or if it is gone.
    """
    try:
        info = _read(_info_file(state))
    except FileNotFoundError:
        raise SettingsError("no sandbox runs here; start one: holdfast up --sandbox") from None
    try:
        answer = httpx.get(f"{info['base_url']}/_control/info", timeout=2, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError:
        raise SettingsError(
            "the sandbox does not answer; start one: holdfast up --sandbox"
        ) from None
    answered: dict[str, Any] = answer.json()
    return answered


def sandbox_env(info: dict[str, Any]) -> dict[str, str]:
    """Map the sandbox's addresses and keys to the settings that use them.

    VAPI_HMAC_SECRET stays unset: the sandbox's Vapi authenticates with the server secret.
    """
    paypal, twilio, vapi = info["paypal"], info["twilio"], info["vapi"]
    return {
        "PAYPAL_BASE_URL": paypal["base_url"],
        "PAYPAL_CLIENT_ID": paypal["client_id"],
        "PAYPAL_CLIENT_SECRET": paypal["client_secret"],
        "PAYPAL_WEBHOOK_ID": paypal["webhook_id"],
        "PAYPAL_CA_FILE": paypal["ca_file"],
        # The sandbox signs with a certificate of the name that PayPal's own sandbox uses.
        "PAYPAL_ENVIRONMENT": "sandbox",
        "TWILIO_BASE_URL": twilio["base_url"],
        "TWILIO_ACCOUNT_SID": twilio["account_sid"],
        "TWILIO_AUTH_TOKEN": twilio["auth_token"],
        "VAPI_BASE_URL": vapi["base_url"],
        "VAPI_API_KEY": vapi["api_key"],
        "VAPI_SERVER_SECRET": vapi["server_secret"],
    }


def _info_file(state: Path) -> Path:
    """Return the file with addresses and keys; it exists once the sandbox listens."""
    return state / "sandbox" / "sandbox.json"


def _usual_port(path: Path) -> int:
    """Return the port that the file names if it is free; otherwise store another one.

    The database stores addresses of live calls, and these contain the port.
    """
    try:
        return port_to_serve("127.0.0.1", int(path.read_text()))
    except (OSError, ValueError, SettingsError):
        port = port_to_serve("127.0.0.1", 0)
        path.write_text(str(port))
        return port


def _read(path: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(path.read_text())
    return info
