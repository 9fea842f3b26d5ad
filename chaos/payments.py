"""The provider's side of the traffic: payments, refunds and event delivery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import httpx

from chaos.deliveries import PendingEvent
from chaos.scene import Client, Scene

#: Threads that deliver events at the same time.
_SENDERS = 6
#: Seconds between two payments or refunds.
_EVERY_SECONDS = (0.1, 0.5)
_REFUND_SHARE = 0.2
#: US cents of a payment: to an organization with much money, and to a poor one.
_CENTS = {False: (300, 3_000), True: (3, 30)}
#: Seconds before a refused event is sent again.
_AGAIN_SECONDS = (0.2, 1.5)


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    yield "payments", scene.deliveries.wrap_producer(partial(_pay, scene))
    for number in range(_SENDERS):
        yield f"sender-{number}", partial(_send, scene, f"sender-{number}")


def _pay(scene: Scene) -> None:
    chance = scene.chance("payments")
    deliveries = scene.deliveries
    #: What was paid, and how much of it is not refunded yet, in cents.
    paid: list[tuple[Client, str, int]] = []
    while not scene.stopping.is_set():
        refund, share = chance.random() < _REFUND_SHARE, chance.random()
        client = chance.choice(scene.clients)
        cents = chance.randint(*_CENTS[client.poor])
        if refund and paid:
            client, capture_id, left = paid.pop(chance.randrange(len(paid)))
            cents = max(1, int(left * share))
            body = {"value": _dollars(cents), "deliver": False}
            made = deliveries.control("POST", f"/paypal/captures/{capture_id}/refund", body)
            deliveries.queue_event(
                "PAYMENT.CAPTURE.REFUNDED", client.organization_id, made["id"], chance
            )
            if left > cents:
                paid.append((client, capture_id, left - cents))
        else:
            body = {
                "organization_id": client.organization_id,
                "value": _dollars(cents),
                "deliver": False,
            }
            made = deliveries.control("POST", "/paypal/captures", body)
            deliveries.queue_event(
                "PAYMENT.CAPTURE.COMPLETED", client.organization_id, made["id"], chance
            )
            paid.append((client, made["id"], cents))
        scene.stopping.wait(chance.uniform(*_EVERY_SECONDS))


def _send(scene: Scene, name: str) -> None:
    chance = scene.chance(name)
    deliveries = scene.deliveries
    while not (scene.stopping.is_set() and deliveries.is_over) and not scene.has_given_up:
        event = deliveries.take_due_event()
        if event is None:
            time.sleep(0.02)
            continue
        again: PendingEvent | None = event
        try:
            sent = deliveries.control(
                "POST",
                f"/paypal/events/{event.event_id}/redeliver",
                {"copies": event.copies, "retry": False},
            )
            codes = [one["status_code"] for one in sent]
            deliveries.sent_twice += len(codes) - 1
            again = _note(scene, event, codes)
        except httpx.HTTPError as error:
            scene.journal.record_no_answer(
                "webhook", event.organization_id, event.event_id, repr(error)
            )
        finally:
            deliveries.put_back(again, chance.uniform(*_AGAIN_SECONDS))


def _note(scene: Scene, event: PendingEvent, codes: list[int | None]) -> PendingEvent | None:
    name = (event.organization_id, event.event_id)
    accepted = any(code is not None and 200 <= code < 300 for code in codes)
    if accepted and not event.accepted:
        event.accepted = True
        scene.journal.record_answer("webhook", *name, "OK")
        if event.repeated:
            return event
    elif not event.accepted:
        scene.journal.record_no_answer("webhook", *name, str(codes))
        return event
    return None


def _dollars(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
