"""Debits through each of the three functions, mostly on two hot wallets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

from chaos.scene import Client, Scene, TrafficRequest
from db.engine import clock
from domain.wallet import operations as wallet
from domain.wallet.debits import Debit, debit_many, debit_now

#: Threads that debit at the same time.
_SPENDERS = 12
#: Share of all spending that goes to the hot organizations.
_HOT_SHARE = 0.75
#: Micros of the largest debit: of an organization with much money, and of a poor one.
_MICROS_MAX = {False: 40_000, True: 60_000}
#: The largest number of debits in one batch.
_MANY_MAX = 4


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    for number in range(_SPENDERS):
        yield f"spender-{number}", partial(_spend, scene, f"spender-{number}")


def pick(scene: Scene, chance: Random) -> Client:
    """Pick the organization that spends next."""
    if chance.random() < _HOT_SHARE:
        return chance.choice([one for one in scene.clients if one.hot])
    return chance.choice(scene.clients)


def _spend(scene: Scene, name: str) -> None:
    chance = scene.chance(name)
    number = 0
    while not scene.stopping.is_set():
        entry_point = chance.random()
        count = chance.randint(2, _MANY_MAX) if entry_point > 0.85 else 1
        requests = []
        for _ in range(count):
            client = pick(scene, chance)
            micros = chance.randint(1, _MICROS_MAX[client.poor])
            requests.append((client.organization_id, f"{name}:{number}", micros))
            number += 1
        if entry_point > 0.85:
            scene.ask("debit", requests, partial(_many, scene))
        elif entry_point > 0.6:
            scene.ask("debit", requests, partial(_single, scene))
        else:
            scene.ask("debit", requests, partial(_combined, scene))
        time.sleep(chance.uniform(0.0, 0.06))


def _debit(request: TrafficRequest) -> Debit:
    organization_id, key, micros = request
    return Debit(organization_id, key, micros, "USD", "messages")


def _combined(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    return [debit_now(scene.database, _debit(request)).outcome for request in requests]


def _many(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    debits = [_debit(request) for request in requests]
    outcomes = scene.database.run(lambda session: debit_many(session, debits, clock(session)))
    return [one.outcome for one in outcomes]


def _single(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    ((organization_id, key, micros),) = requests
    outcome = scene.database.run(
        lambda session: wallet.debit(
            session,
            organization_id,
            key=key,
            amount_micros=micros,
            currency="USD",
            now=clock(session),
        )
    )
    return [outcome.outcome]
