"""Debit wallets, mostly two hot ones, through each of the three debit functions."""

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
_SPENDER_THREADS = 12
#: Share of all spending that goes to the hot organizations.
_HOT_SHARE = 0.75
#: Largest debit in micros, by whether the organization is poor.
_DEBIT_MICROS_MAX = {False: 40_000, True: 60_000}
#: The largest number of debits in one batch.
_BATCH_DEBITS_MAX = 4


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    for number in range(_SPENDER_THREADS):
        yield f"spender-{number}", partial(_spend, scene, f"spender-{number}")


def pick_spender(scene: Scene, chance: Random) -> Client:
    """Pick the organization that spends next."""
    if chance.random() < _HOT_SHARE:
        return chance.choice([one for one in scene.clients if one.hot])
    return chance.choice(scene.clients)


def _spend(scene: Scene, name: str) -> None:
    chance = scene.chance(name)
    number = 0
    while not scene.stopping.is_set():
        function_draw = chance.random()
        count = chance.randint(2, _BATCH_DEBITS_MAX) if function_draw > 0.85 else 1
        requests = []
        for _ in range(count):
            client = pick_spender(scene, chance)
            micros = chance.randint(1, _DEBIT_MICROS_MAX[client.poor])
            requests.append((client.organization_id, f"{name}:{number}", micros))
            number += 1
        if function_draw > 0.85:
            scene.ask("debit", requests, partial(_debit_in_batch, scene))
        elif function_draw > 0.6:
            scene.ask("debit", requests, partial(_debit_in_transaction, scene))
        else:
            scene.ask("debit", requests, partial(_debit_combined, scene))
        time.sleep(chance.uniform(0.0, 0.06))


def _to_debit(request: TrafficRequest) -> Debit:
    organization_id, key, micros = request
    return Debit(organization_id, key, micros, "USD", "messages")


def _debit_combined(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    return [debit_now(scene.database, _to_debit(request)).outcome for request in requests]


def _debit_in_batch(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    debits = [_to_debit(request) for request in requests]
    outcomes = scene.database.run(lambda session: debit_many(session, debits, clock(session)))
    return [one.outcome for one in outcomes]


def _debit_in_transaction(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
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
