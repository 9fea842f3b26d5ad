"""Holds without a real call: reserved, extended, committed or released.

Some are so short that they expire before their commit arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from chaos.scene import UNANSWERED, Scene, TrafficRequest
from chaos.spending import pick_spender
from db.engine import clock
from domain.wallet import holds

#: Threads that each process one hold after another.
_CALLERS = 6
#: Micros of the largest reservation.
_MICROS_MAX = 50_000
#: Seconds for which a hold is valid: usually, and for a hold that expires before its commit.
_LONG_SECONDS = 3600
_SHORT_SECONDS = 1
#: Number of expired holds that one pass checks. Holds of real calls are among them.
_EXPIRED_MAX = 5_000
#: Prefix of the IDs of these calls.
_CALLER = "caller-"


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    if not scene.with_holds:
        return
    for number in range(_CALLERS):
        yield f"{_CALLER}{number}", partial(_lead, scene, f"{_CALLER}{number}")
    yield "expirer", partial(_expire, scene)


def _lead(scene: Scene, name: str) -> None:
    chance = scene.chance(name)
    number = 0
    while not scene.stopping.is_set():
        organization_id = pick_spender(scene, chance).organization_id
        call_id = f"{name}:{number}"
        number += 1
        micros = chance.randint(1, _MICROS_MAX)
        seconds = _SHORT_SECONDS if chance.random() < 0.15 else _LONG_SECONDS
        # Drawn in any case, so that a refusal changes no later choice.
        extensions, ending, cost = chance.randint(0, 2), chance.random(), chance.random()
        pauses = [chance.uniform(0.02, 0.25) for _ in range(4)]
        reserved = scene.ask(
            "reserve",
            [(organization_id, call_id, micros)],
            partial(_reserve, scene, seconds),
            in_the_calm=("release", partial(_release, scene)),
        )
        time.sleep(pauses[0])
        if "OK" in reserved:
            for nth in range(1, extensions + 1):
                request = (organization_id, f"{call_id}:{nth}", micros // 2 + 1)
                scene.ask("extend", [request], partial(_extend, scene, nth, seconds))
                time.sleep(pauses[nth])
            if ending < 0.2:
                scene.ask("release", [(organization_id, call_id, 0)], partial(_release, scene))
        if ("OK" in reserved and ending >= 0.2) or ("OK" not in reserved and ending < 0.1):
            # The cost is up to half more than the reservation. If there is no hold, it is charged
            # directly.
            bill = (organization_id, call_id, int(micros * 1.5 * cost))
            scene.ask("commit", [bill], partial(_commit, scene))
        time.sleep(pauses[3])


def _expire(scene: Scene) -> None:
    while not scene.stopping.wait(0.5):
        try:
            scene.database.run(lambda session: expire_own(session, clock(session)))
        except UNANSWERED:
            continue  # The next pass finds the same holds again.


def expire_own(session: Session, now: datetime) -> None:
    """Expire the holds of this traffic's calls that are past their end at `now`.

    The product itself returns the holds of real calls, because it reads the call from Vapi first.
    """
    found: dict[str, list[str]] = {}
    for one in holds.expired_candidates(session, now, _EXPIRED_MAX):
        if one.call_id.startswith(_CALLER):
            found.setdefault(one.organization_id, []).append(one.call_id)
    for organization_id in sorted(found):
        holds.expire(session, organization_id, call_ids=found[organization_id], now=now)


def _reserve(scene: Scene, seconds: int, requests: Sequence[TrafficRequest]) -> list[str]:
    ((organization_id, call_id, micros),) = requests

    def work(session: Session) -> str:
        now = clock(session)
        return holds.reserve(
            session,
            organization_id,
            call_id=call_id,
            amount_micros=micros,
            currency="USD",
            expires_at=now + timedelta(seconds=seconds),
            now=now,
        ).outcome

    return [scene.database.run(work)]


def _extend(scene: Scene, nth: int, seconds: int, requests: Sequence[TrafficRequest]) -> list[str]:
    ((organization_id, key, micros),) = requests
    call_id = key.rpartition(":")[0]

    def work(session: Session) -> str:
        now = clock(session)
        return holds.extend(
            session,
            organization_id,
            call_id=call_id,
            nth=nth,
            amount_micros=micros,
            expires_at=now + timedelta(seconds=seconds),
            now=now,
        ).outcome

    return [scene.database.run(work)]


def _commit(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    ((organization_id, call_id, micros),) = requests
    outcome = scene.database.run(
        lambda session: holds.commit(
            session,
            organization_id,
            call_id=call_id,
            amount_micros=micros,
            currency="USD",
            now=clock(session),
        )
    )
    return [outcome.outcome]


def _release(scene: Scene, requests: Sequence[TrafficRequest]) -> list[str]:
    ((organization_id, call_id, _),) = requests
    outcome = scene.database.run(
        lambda session: holds.release(session, organization_id, call_id=call_id, now=clock(session))
    )
    return [outcome.outcome]
