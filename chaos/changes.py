"""Changes of standing: subscriptions that lapse and return, or end and are followed by new ones;
operators who freeze and lift.
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
from chaos.scene import Client, Scene, Wish
from db.engine import clock
from domain import operator_actions as operators
from domain.wallet import operations as wallet

#: Seconds between two lapses, and how long one lasts.
_LAPSE_EVERY_SECONDS = (2.0, 5.0)
_LAPSE_SECONDS = (2.5, 6.0)
#: PayPal tells instants in whole seconds: two changes of one subscription within one second could
#: not be told apart.
_APART_SECONDS = 1.1
#: How many lapses are cancellations, after which only a new subscription opens again; and how many
#: of the new ones are made before the old one is cancelled, whose end must then close nothing.
_CANCELLED = 0.35
_OVERLAPPING = 0.3
#: Seconds between two freezes by hand, and how long one lasts.
_FREEZE_EVERY_SECONDS = (1.0, 4.0)
_FREEZE_SECONDS = (0.2, 2.0)
#: How many lapses and freezes are left as they are, until the organization's next: not of the hot
#: ones, whose spending would end with them.
_LEFT = 0.1


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """This function will give the threads' names and what they do until they are stopped."""
    yield "lapses", scene.post.telling(partial(_lapse, scene))
    yield "operator", partial(_freeze, scene)


def _lapse(scene: Scene) -> None:
    chance = scene.chance("lapses")
    #: Each organization's newest subscription, and none where it was cancelled.
    standing: dict[str, str | None] = {
        client.organization_id: client.subscription_id for client in scene.clients
    }
    while not scene.stopping.wait(chance.uniform(*_LAPSE_EVERY_SECONDS)):
        client = chance.choice(scene.clients)
        returns = chance.random() >= _LEFT or client.hot
        subscription_id = standing[client.organization_id]
        if subscription_id is None or chance.random() < _CANCELLED:
            new = _cancel(scene, client, subscription_id, chance, returns=returns)
            standing[client.organization_id] = new
        else:
            about = (client.organization_id, subscription_id, chance)
            scene.post.tell("BILLING.SUBSCRIPTION.SUSPENDED", *about)
            _lapse_lasts(scene, chance)
            if returns:
                scene.post.tell("BILLING.SUBSCRIPTION.ACTIVATED", *about)


def _cancel(
    scene: Scene, client: Client, subscription_id: str | None, chance: Random, *, returns: bool
) -> str | None:
    """Ends the subscription, if there is one, and gives the new one of a customer who returns."""
    overlaps = returns and chance.random() < _OVERLAPPING
    new = _subscribe(scene, client, chance) if overlaps else None
    if subscription_id is not None:
        about = (client.organization_id, subscription_id, chance)
        scene.post.tell("BILLING.SUBSCRIPTION.CANCELLED", *about)
    _lapse_lasts(scene, chance)
    return _subscribe(scene, client, chance) if returns and not overlaps else new


def _lapse_lasts(scene: Scene, chance: Random) -> None:
    scene.stopping.wait(chance.uniform(*_LAPSE_SECONDS) - _APART_SECONDS)
    # Also for a thread that is told to stop.
    time.sleep(_APART_SECONDS)


def _subscribe(scene: Scene, client: Client, chance: Random) -> str:
    body = {"organization_id": client.organization_id, "deliver": False}
    made: str = scene.post.control("POST", "/paypal/subscriptions", body)["id"]
    scene.post.tell("BILLING.SUBSCRIPTION.ACTIVATED", client.organization_id, made, chance)
    return made


def _freeze(scene: Scene) -> None:
    chance = scene.chance("operator")
    number = 0
    while not scene.stopping.wait(chance.uniform(*_FREEZE_EVERY_SECONDS)):
        client = chance.choice(scene.clients)
        organization_id = client.organization_id
        lifts = chance.random() >= _LEFT or client.hot
        seconds = chance.uniform(*_FREEZE_SECONDS)
        scene.ask("freeze", [(organization_id, f"freeze-{number}", 0)], partial(_place, scene))
        scene.stopping.wait(seconds)
        if lifts:
            scene.ask("lift", [(organization_id, f"freeze-{number}", 0)], partial(_lift, scene))
        number += 1


def _place(scene: Scene, wishes: Sequence[Wish]) -> list[str]:
    def work(session: Session) -> None:
        now = clock(session)
        operators.freeze_by_hand(session, wishes[0][0], by="chaos", why="a drill", now=now)

    scene.database.run(work)
    return ["OK"]


def _lift(scene: Scene, wishes: Sequence[Wish]) -> list[str]:
    def lift(session: Session, now: datetime) -> None:
        operators.lift_by_hand(
            session, wishes[0][0], FreezeReason.MANUAL, by="chaos", why="the drill is over", now=now
        )

    # None stands any more where the same request lifted it before and its answer was lost.
    with contextlib.suppress(wallet.UnknownFreeze):
        scene.database.run(lambda session: lift(session, clock(session)))
    return ["OK"]
