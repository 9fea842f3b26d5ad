"""The run's own connection to the sandbox's control plane, which no fault touches."""

from __future__ import annotations

import httpx


def control_client(base_url: str, *, timeout_seconds: float) -> httpx.Client:
    """Open a client that uses a new connection for each request.

    The sandbox closes a connection that is idle for 5 s. A request that is sent on it at that
    moment is answered by a reset, and its sender cannot tell whether it arrived: a thread of the
    traffic died of this, and the run counted it as lost.
    """
    return httpx.Client(
        base_url=base_url,
        timeout=timeout_seconds,
        trust_env=False,
        limits=httpx.Limits(max_keepalive_connections=0),
    )
