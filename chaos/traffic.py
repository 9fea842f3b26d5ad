"""The traffic: a process whose threads act as customers, providers and operators.

They spend, hold, call, pay, lapse and freeze. The driver starts it as `python -m chaos.traffic`.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from functools import partial

from base.clock import wait_until
from base.log import configure
from chaos import changes, holds, outgoing, overlong, payments, phones, predial, spending
from chaos.child import Message, serve_orders
from chaos.scene import GIVE_UP_SECONDS, Scene


def start_threads(scene: Scene) -> list[threading.Thread]:
    """Start every thread of the traffic."""
    threads = [
        threading.Thread(target=partial(_run_thread, scene, name, work), name=name, daemon=True)
        for module in (spending, holds, phones, overlong, outgoing, predial, changes, payments)
        for name, work in module.threads(scene)
    ]
    for thread in threads:
        thread.start()
    return threads


def _run_thread(scene: Scene, name: str, work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException:
        scene.died.append((name, traceback.format_exc()))
        raise


def main() -> None:
    """Carry out the driver's orders: build, go, progress, stop, settle."""
    configure("WARNING")
    scenes: list[Scene] = []
    threads: list[threading.Thread] = []

    def answer(order: Message) -> Message:
        match order["do"]:
            case "build":
                scenes.append(Scene(order))
            case "go":
                threads.extend(start_threads(scenes[0]))
            case "stop":
                scenes[0].stop()
                wait_until(
                    lambda: not any(thread.is_alive() for thread in threads),
                    limit_seconds=GIVE_UP_SECONDS + 60,
                    every_seconds=0.1,
                )
            case "settle":
                return {"settled": scenes[0].settle()}
        return {
            "operations": scenes[0].request_count,
            "events": scenes[0].deliveries.queued,
            "doubled": scenes[0].deliveries.sent_twice,
            "late": scenes[0].deliveries.late,
            "running": [thread.name for thread in threads if thread.is_alive()],
            "died": scenes[0].died,
        }

    serve_orders(answer)


if __name__ == "__main__":
    main()
