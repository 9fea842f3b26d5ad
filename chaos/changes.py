"""Changes of entitlement: subscription lapses and operator freezes.

A subscription is suspended and activated again, or it is cancelled and a new one replaces it.
Operators freeze wallets and lift the freezes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from random import Random

from sqlalchemy.orm import Session

from base.enums import FreezeReason
from base.operators import Operator
from chaos.scene import Client, Scene, TrafficRequest
from db.engine import clock
from domain import operator_actions
from domain.wallet import freezes as wallet_freezes

#: Seconds between two lapses, and the duration of one lapse.
_LAPSE_EVERY_SECONDS = (2.0, 5.0)
_LAPSE_SECONDS = (2.5, 6.0)
#: PayPal reports times in whole seconds. Two changes of one subscription within the same second
#: could not be ordered, so this many seconds pass between them.
_CHANGE_GAP_SECONDS = 1.1
#: Share of lapses that are cancellations, after which only a new subscription restores the
#: entitlement. The second number is the share of new subscriptions that are created before the old
#: one is cancelled. The end of the old one must then not block spending.
_CANCELLED_SHARE = 0.35
_OVERLAPPING_SHARE = 0.3
#: Seconds between two freezes by an operator, and the duration of one freeze.
_FREEZE_EVERY_SECONDS = (1.0, 4.0)
_FREEZE_SECONDS = (0.2, 2.0)
#: Share of lapses and freezes that last until the organization's next change. Hot organizations
#: always return, because most spending would stop without them.
_PERMANENT_SHARE = 0.1


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    yield "lapses", scene.deliveries.wrap_producer(partial(_lapse_subscriptions, scene))
    yield "operator", partial(_freeze_wallets, scene)


def _lapse_subscriptions(scene: Scene) -> None:
    chance = scene.chance("lapses")
    #: The newest subscription of each organization; None if it was cancelled and not replaced.
    subscription_ids: dict[str, str | None] = {
        client.organization_id: client.subscription_id for client in scene.clients
    }
    while not scene.stopping.wait(chance.uniform(*_LAPSE_EVERY_SECONDS)):
        client = chance.choice(scene.clients)
        returns = chance.random() >= _PERMANENT_SHARE or client.hot
        subscription_id = subscription_ids[client.organization_id]
        if subscription_id is None or chance.random() < _CANCELLED_SHARE:
            replacement_id = _cancel(scene, client, subscription_id, chance, returns=returns)
            subscription_ids[client.organization_id] = replacement_id
        else:
            event_fields = (client.organization_id, subscription_id, chance)
            scene.deliveries.queue_event("BILLING.SUBSCRIPTION.SUSPENDED", *event_fields)
            _wait_out_lapse(scene, chance)
            if returns:
                scene.deliveries.queue_event("BILLING.SUBSCRIPTION.ACTIVATED", *event_fields)


def _cancel(
    scene: Scene, client: Client, subscription_id: str | None, chance: Random, *, returns: bool
) -> str | None:
    """Cancel the subscription, if there is one, and return the ID of its replacement.

    Return None if the customer does not return.
    """
    overlaps = returns and chance.random() < _OVERLAPPING_SHARE
    replacement_id = _subscribe(scene, client, chance) if overlaps else None
    if subscription_id is not None:
        event_fields = (client.organization_id, subscription_id, chance)
        scene.deliveries.queue_event("BILLING.SUBSCRIPTION.CANCELLED", *event_fields)
    _wait_out_lapse(scene, chance)
    return _subscribe(scene, client, chance) if returns and not overlaps else replacement_id


def _wait_out_lapse(scene: Scene, chance: Random) -> None:
    """Wait for the random duration of one lapse."""
    scene.stopping.wait(chance.uniform(*_LAPSE_SECONDS) - _CHANGE_GAP_SECONDS)
    # This pause also applies when the run is stopping, so that two changes never share a second.
    time.sleep(_CHANGE_GAP_SECONDS)


def _subscribe(scene: Scene, client: Client, chance: Random) -> str:
    body = {"organization_id": client.organization_id, "deliver": False}
    subscription_id: str = scene.deliveries.control("POST", "/paypal/subscriptions", body)["id"]
    scene.deliveries.queue_event(
        "BILLING.SUBSCRIPTION.ACTIVATED", client.organization_id, subscription_id, chance
    )
    return subscription_id


def _freeze_wallets(scene: Scene) -> None:
    chance = scene.chance("operator")
    number = 0
    while not scene.stopping.wait(chance.uniform(*_FREEZE_EVERY_SECONDS)):
        client = chance.choice(scene.clients)
        organization_id = client.organization_id
        lifts = chance.random() >= _PERMANENT_SHARE or client.hot
        seconds = chance.uniform(*_FREEZE_SECONDS)
        scene.ask(
            "freeze", [(organization_id, f"freeze-{number}", 0)], partial(_place_freeze, scene)
        )
        scene.stopping.wait(seconds)
        if lifts:
            scene.ask(
                "lift", [(organization_id, f"freeze-{number}", 0)], partial(_lift_freeze, scene)
            )
        number += 1


def _place_freeze(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    def freeze(session: Session) -> None:
        now = clock(session)
        operator_actions.freeze_manually(
            session, requests[0][0], operator=Operator("chaos", "a drill"), now=now
        )

    scene.database.run(freeze)
    return ["OK"]


def _lift_freeze(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    def lift(session: Session, now: datetime) -> None:
        operator_actions.lift_manually(
            session,
            requests[0][0],
            FreezeReason.MANUAL,
            operator=Operator("chaos", "the drill is over"),
            now=now,
        )

    # If the answer to an earlier identical request was lost, the freeze is already lifted.
    with contextlib.suppress(wallet_freezes.UnknownFreeze):
        scene.database.run(lambda session: lift(session, clock(session)))
    return ["OK"]
