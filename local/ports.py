"""Find free ports, and check whether an address answers."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import httpx

from base.settings import SettingsError


def port_to_serve(host: str, port: int) -> int:
    """Return the port if it is free; for port 0, return any free port.

    Raises: SettingsError that names host and port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"HOST and PORT: cannot listen on {host}:{port}: {error.strerror}"
            ) from None
        bound_port: int = probe.getsockname()[1]
        return bound_port


def free_ports(count: int) -> list[int]:
    """Find this many different local ports on which no process listens."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def faults_at(url: str) -> list[dict[str, Any]]:
    """Return the faults that a /readyz address shows; no answer is a fault too."""
    try:
        response = httpx.get(url, timeout=5)
        content: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError):
        return [{"kind": "not_ready", "message": f"{url} does not answer"}]
    if response.status_code != 200:
        return [{"kind": "not_ready", "message": str(content.get("detail", response.status_code))}]
    faults: list[dict[str, Any]] = content.get("faults", [])
    return faults


def is_answering(url: str) -> bool:
    """Return whether a GET of the address is answered with 200 within 2 seconds."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
