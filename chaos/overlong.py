"""Inbound calls that ignore their maximum duration and never hang up.

Only the product ends them. Their organization has money and is neither frozen nor suspended, so the
maximum duration is the only reason to end them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from chaos.scene import Client, Scene

#: Seconds between two calls.
_EVERY_SECONDS = (3.0, 6.0)
#: Share of these calls' messages that are lost. Share of the calls that ignore Vapi's order to end,
#: so that Twilio must end them.
_LOST_SHARE = 0.15
_DEAF_SHARE = 0.2


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the thread's name and the function that it runs until it is stopped."""
    if scene.with_holds and scene.overlong is not None:
        yield "overlong", partial(_start_calls, scene, scene.overlong)


def _start_calls(scene: Scene, client: Client) -> None:
    chance = scene.chance("overlong")
    while not scene.stopping.is_set():
        body = _new_call(client, deaf=chance.random() < _DEAF_SHARE)
        call_id = scene.deliveries.control("POST", "/vapi/calls", body)["id"]
        # Recorded as "phone" too, because it is charged like any other call.
        for what in ("phone", "overlong"):
            scene.journal.record_request(what, client.organization_id, call_id)
        scene.request_count += 1
        scene.stopping.wait(chance.uniform(*_EVERY_SECONDS))


def _new_call(client: Client, *, deaf: bool) -> dict[str, Any]:
    return {
        "direction": "inbound",
        "number_id": client.number_id,
        "queued_seconds": 0,
        "ring_seconds": 0.1,
        "talk_seconds": None,
        "behaviour": {
            "ignore_max_duration": True,
            "deaf": deaf,
            "lose_probability": _LOST_SHARE,
        },
    }
