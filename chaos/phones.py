"""Inbound calls at the sandbox's Vapi, which the product admits or refuses.

Some hang up soon, some never hang up, and some ignore the order to end. Vapi reports some calls
twice and loses some messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import httpx

from chaos.scene import Client, Scene

#: Threads that each make one inbound call after another.
_PHONES = 2
#: Seconds between two calls of a thread.
_EVERY_SECONDS = (0.3, 1.2)
#: Seconds of a conversation, and the share of callers that never hang up. Such a call ends at
#: Vapi's maximum duration or at ours.
_TALK_SECONDS = (0.2, 5.0)
_ENDLESS_SHARE = 0.15
#: Share of calls that ignore the order to end, share of their messages that are lost, and share of
#: calls whose report is sent twice.
_DEAF_SHARE = 0.1
_LOST_SHARE = 0.15
_DOUBLED_SHARE = 0.2


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    if not scene.with_holds:
        return
    for number in range(_PHONES):
        yield f"phone-{number}", partial(_notify, scene, f"phone-{number}")


def _notify(scene: Scene, name: str) -> None:
    chance = scene.chance(name)
    while not scene.stopping.is_set():
        client = chance.choice(scene.clients)
        asked = _call(client, chance)
        try:
            made = scene.deliveries.control("POST", "/vapi/calls", asked)
        except httpx.HTTPStatusError as error:
            # Twilio rejects callers of a suspended subaccount before Vapi learns of them.
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
        else:
            scene.journal.record_request("phone", client.organization_id, made["id"])
            scene.request_count += 1
        scene.stopping.wait(chance.uniform(*_EVERY_SECONDS))


def _call(client: Client, chance: Random) -> dict[str, Any]:
    # Drawn in any case, so that one call's properties change no later choice.
    endless, seconds = chance.random() < _ENDLESS_SHARE, chance.uniform(*_TALK_SECONDS)
    return {
        "direction": "inbound",
        "number_id": client.number_id,
        "queued_seconds": 0,
        "ring_seconds": chance.uniform(0, 0.3),
        "talk_seconds": None if endless else seconds,
        "report_after_seconds": chance.uniform(0.05, 2.0),
        "behaviour": {
            "deaf": chance.random() < _DEAF_SHARE,
            "double_reports": chance.random() < _DOUBLED_SHARE,
            "lose_probability": _LOST_SHARE,
        },
    }
