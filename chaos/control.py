"""The run's own connection to the sandbox's control API, which no fault touches."""

from __future__ import annotations

import httpx


def control_client(base_url: str, *, timeout_seconds: float) -> httpx.Client:
    """Open a client that uses a new connection for each request.

    The sandbox closes a connection that was idle for 5 s. If a request is sent at that moment, the
    client gets a reset and cannot know whether the request arrived. Such a reset once ended a
    traffic thread, and the run counted the thread's work as lost.
    """
    return httpx.Client(
        base_url=base_url,
        timeout=timeout_seconds,
        trust_env=False,
        limits=httpx.Limits(max_keepalive_connections=0),
    )
