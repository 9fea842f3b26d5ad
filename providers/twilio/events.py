"""What Twilio's callbacks report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from base.enums import Queue


def event_type_of(params: Mapping[str, Any]) -> str:
    """Return the type of a verified callback: message.status or call.status."""
    return "message.status" if "MessageSid" in params else "call.status"


def queue_of(event_type: str) -> Queue | None:
    """Return the queue for callbacks of a type; None if they concern nothing here.

    Vapi reports calls, and Holdfast sends no messages. Callbacks are stored as ignored.
    """
    del event_type
    return None
