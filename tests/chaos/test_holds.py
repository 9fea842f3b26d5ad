"""Holds of the traffic: which of them it expires itself."""

from __future__ import annotations

from datetime import timedelta

from chaos.holds import expire_own
from domain.wallet import holds


def test_traffic_expires_its_own_holds_alone_when_all_are_over(world):
    # Given a hold of the traffic's own, and one of a real call
    organization_id = world.customer().id
    for call_id in ("caller-0:1", "call_1"):
        world.do(
            lambda session, now, call_id=call_id: holds.reserve(
                session,
                organization_id,
                call_id=call_id,
                amount_micros=100,
                currency="USD",
                expires_at=now + timedelta(hours=1),
                now=now,
            )
        )
    # When the database's clock is two hours ahead, then only the traffic's own hold expires
    world.do(lambda session, now: expire_own(session, now + timedelta(hours=2)))
    held = world.do(
        lambda session, _: [
            holds.hold_of_call(session, organization_id, one).status
            for one in ("caller-0:1", "call_1")
        ]
    )
    assert held == ["expired", "open"]
