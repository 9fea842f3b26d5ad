"""An outgoing call, and the requests that the company's backend sends about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from base.outcomes import Refused
from chaos.phone_count import talked_ms
from chaos.reports import read_record
from chaos.scene import Client, Scene, TrafficRequest
from db.engine import clock
from domain.calls import committing, reservations

#: Seconds in which the product must know a fact. After that the traffic continues without it.
KNOWN_WITHIN_SECONDS = 20.0
#: Seconds between two looks at whether it does.
POLL_SECONDS = 0.4


@dataclass
class Outgoing:
    """One outgoing call: its choices, and what is known of it so far."""

    client: Client
    call_id: str
    way: str
    #: "": reports agree; "longer" or "denied": see the shares above.
    contradiction: str
    #: The step that pairs a late call: "talking", "reserve" or "commit".
    pairs_by: str
    is_committed: bool
    #: Its last four digits are unique, so that unpaired calls can be distinguished.
    number: str
    seconds: int
    talk_seconds: float
    report_seconds: float
    commit_seconds: float
    doubles: bool
    token: str = ""
    vapi_id: str = ""
    #: Vapi's record of the call, as the sandbox shows it.
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> TrafficRequest:
        """The request of the backend under this call's ID.

        The amount is 0, because the price is unknown before the call's end.
        """
        return (self.client.organization_id, self.call_id, 0)


def reserve(scene: Scene, call: Outgoing, _: Sequence[TrafficRequest]) -> list[str]:
    """Reserve for a call, with Vapi's ID if it is dialled, and keep the pairing token."""

    def work(session: Session) -> tuple[str, str]:
        reserved = reservations.reserve_for_call(
            session,
            call.client.organization_id,
            call_id=call.call_id,
            # A call has no ID before it is dialled.
            provider_call_id=call.vapi_id or None,
            estimated_seconds=call.seconds,
            number=call.number,
            now=clock(session),
        )
        return reserved.outcome.outcome, reserved.pairing_token

    outcome, token = scene.database.run(work)
    call.token = token or call.token
    return [outcome]


def commit(scene: Scene, call: Outgoing, _: Sequence[TrafficRequest]) -> list[str]:
    """Commit Vapi's duration without Vapi's ID, and again with the ID if needed.

    A late call is committed twice whatever the first answer is. If no report was known yet, the
    first commit charges the call and the second one pairs it.
    """
    ms = talked_ms(call.record)
    vapi_id = None
    outcome = _commit_once(scene, call, ms, None)
    if call.way == "late" or outcome == "UNPAIRED_CALL":
        vapi_id = call.vapi_id
        outcome = _commit_once(scene, call, ms, vapi_id)
    end = time.monotonic() + KNOWN_WITHIN_SECONDS
    while outcome == "CALL_IN_PROGRESS" and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        outcome = _commit_once(scene, call, ms, vapi_id)
    return [outcome]


def close_refused_reservation(
    scene: Scene, call: Outgoing, _: Sequence[TrafficRequest]
) -> list[str]:
    """Close a reservation that took effect although its response was a refusal.

    Commit zero if the call was not dialled, otherwise its duration.
    """
    if call.vapi_id:
        return [
            _commit_once(
                scene, call, talked_ms(read_record(scene.deliveries, call.vapi_id)), call.vapi_id
            )
        ]
    return [_commit_once(scene, call, 0, None)]


def _commit_once(scene: Scene, call: Outgoing, duration_ms: int, vapi_id: str | None) -> str:
    def work(session: Session) -> str:
        try:
            committed = committing.commit_for_call(
                session,
                call.client.organization_id,
                call_id=call.call_id,
                duration_ms=duration_ms,
                provider_call_id=vapi_id,
                now=clock(session),
            )
        except Refused as error:
            # As in the API: the pairing remains although the commit is refused.
            return error.code
        return committed.outcome.outcome

    return scene.database.run(work)
