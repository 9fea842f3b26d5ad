"""Outgoing calls: reserved, dialled by Vapi, paired and committed.

The traffic acts as the company's backend. Half of the calls name Vapi's ID in a reservation. A
quarter carry our metadata. A quarter are paired only after Vapi has reported them. Some reports
contradict what Vapi reported before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

from sqlalchemy import text

from base.clock import wait_until
from chaos.contradictions import denied_report, longer_report
from chaos.outgoing_requests import (
    KNOWN_WITHIN_SECONDS,
    POLL_SECONDS,
    Outgoing,
    close_refused_reservation,
    commit,
    reserve,
)
from chaos.reports import send_report, wait_for_end
from chaos.scene import UNANSWERED, Scene

#: Threads that each process one outgoing call after another.
_DIALLERS = 4
#: Seconds from the end of a thread's call to its next call.
_CALL_GAP_SECONDS = (0.2, 1.0)
#: Seconds of conversation, and the maximum duration that Vapi enforces.
_TALK_SECONDS = (0.2, 4.0)
_MAX_DURATION_SECONDS = 20
#: Share of a call's messages that are lost, and share of calls whose report is sent twice.
_LOST_MESSAGE_SHARE = 0.15
_DOUBLED_REPORT_SHARE = 0.2
#: Share of calls with a second, longer report, and share whose first report denies the
#: conversation.
_LONGER_SHARE = 0.25
_DENIED_SHARE = 0.25
#: How a call is paired. dial_first: the backend dials before it reserves. reserve_again: a second
#: reservation pairs it. token: the call carries our metadata. late: the backend names Vapi's ID
#: only after Vapi has reported the call.
WAYS = ("dial_first", "reserve_again", "token", "late")


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each thread's name and the function that it runs until it is stopped."""
    if not scene.with_holds:
        return
    for number in range(_DIALLERS):
        yield f"dialler-{number}", partial(_dial_until_stopped, scene, number)


def _dial_until_stopped(scene: Scene, thread: int) -> None:
    chance = scene.chance(f"dialler-{thread}")
    number = 0
    while not scene.stopping.is_set():
        _run_call(scene, _draw_call(scene, chance, thread, number))
        number += 1
        scene.stopping.wait(chance.uniform(*_CALL_GAP_SECONDS))


def _draw_call(scene: Scene, chance: Random, thread: int, number: int) -> Outgoing:
    draw = chance.random()
    contradiction = "longer" if draw < _LONGER_SHARE else ""
    if 1 - draw <= _DENIED_SHARE:
        contradiction = "denied"
    way = chance.choice(WAYS)
    pairs_by = chance.choice(("talking", "reserve", "commit"))
    return Outgoing(
        client=chance.choice(scene.clients),
        call_id=f"outgoing-{thread}-{number}",
        way=way,
        contradiction=contradiction,
        pairs_by=pairs_by,
        # A late call is committed only if the commit pairs it. A call with only the token is always
        # committed: if all its messages are lost, nothing else shows what it cost.
        is_committed=(chance.random() < 0.5 or way == "token")
        if way != "late"
        else pairs_by == "commit",
        number=f"+1500555{(thread * 1500 + number) % 10_000:04d}",
        seconds=chance.randint(5, 20),
        talk_seconds=chance.uniform(*_TALK_SECONDS),
        report_seconds=chance.uniform(0.05, 2.0),
        commit_seconds=chance.uniform(0.0, 3.0),
        doubles=chance.random() < _DOUBLED_REPORT_SHARE,
    )


def _run_call(scene: Scene, call: Outgoing) -> None:
    """Run one call from its reservation to its end, its commit and its last report."""
    if call.way == "dial_first":
        _dial(scene, call)
    is_reserved = _send_until_answered(scene, call, "book", reserve)
    if not call.vapi_id:
        if not is_reserved:
            return
        _dial(scene, call)
    if is_reserved and call.way == "reserve_again":
        _send_until_answered(scene, call, "pair", reserve)
    if is_reserved and call.way == "late" and call.pairs_by == "talking":
        # Any report makes the call known; the call may have ended by then.
        _wait_until_known(scene, call, "true")
        _send_until_answered(scene, call, "pair", reserve)
    _end(scene, call)
    if not is_reserved:
        # The backend lets the call go on without a hold. Only Vapi's report shows its cost, so the
        # report is sent until it is accepted.
        send_report(scene, call.vapi_id, {})
        return
    time.sleep(call.commit_seconds)
    if call.way == "late" and call.pairs_by != "talking":
        time.sleep(call.report_seconds)
    if call.way == "late" and call.pairs_by == "reserve":
        _send_until_answered(scene, call, "pair", reserve)
    if call.is_committed:
        _send_until_answered(scene, call, "bill", commit)
    if call.contradiction == "longer" and _wait_until_known(scene, call, "settled_at IS NOT NULL"):
        _contradict(scene, call, "longer", longer_report(call.record))


def _send_until_answered(
    scene: Scene, call: Outgoing, kind: str, act: Callable[..., list[str]]
) -> bool:
    """Repeat one request until it is answered, and return whether it succeeded.

    If a reservation was refused but may have taken effect, it is committed with nothing later.
    """
    give_back = (
        ("give_back", partial(close_refused_reservation, scene, call)) if kind == "book" else None
    )
    return "OK" in scene.ask(kind, [call.request], partial(act, scene, call), give_back)


def _dial(scene: Scene, call: Outgoing) -> None:
    organization_id, call_id, _ = call.request
    metadata = {}
    if call.way == "token":
        metadata = {
            "holdfast_organization": organization_id,
            "holdfast_call": call_id,
            "holdfast_token": call.token,
        }
    order = {
        "direction": "outbound",
        "to": call.number,
        "number_id": call.client.number_id,
        "queued_seconds": 0,
        "ring_seconds": 0.1,
        # If a report is to deny the conversation, the traffic itself ends the call.
        "talk_seconds": None if call.contradiction == "denied" else call.talk_seconds,
        "max_duration_seconds": _MAX_DURATION_SECONDS,
        "metadata": metadata,
        "report": call.contradiction != "denied",
        "report_after_seconds": call.report_seconds,
        "behaviour": {"double_reports": call.doubles, "lose_probability": _LOST_MESSAGE_SHARE},
    }
    scene.journal.record_request("dial", organization_id, call_id)
    call.vapi_id = scene.deliveries.control("POST", "/vapi/calls", order)["id"]
    scene.journal.record_answer("dial", organization_id, call_id, call.vapi_id)
    scene.request_count += 1


def _end(scene: Scene, call: Outgoing) -> None:
    """Wait for the call's end at Vapi.

    If a report is to deny the conversation, first end the call, and then send that report.
    """
    is_talking = False
    if call.contradiction == "denied":
        is_talking = _wait_until_known(scene, call, "status = 'in_progress'")
        time.sleep(call.talk_seconds)
        scene.deliveries.control("POST", f"/vapi/calls/{call.vapi_id}/end", {})
    call.record = wait_for_end(scene.deliveries, call.vapi_id, 3 * _MAX_DURATION_SECONDS)
    if is_talking:
        _contradict(scene, call, "denied", denied_report(call.record))


# -- contradicting reports --------------------------------------------------------------------


def _contradict(scene: Scene, call: Outgoing, kind: str, fields: dict[str, Any]) -> None:
    organization_id, call_id, _ = call.request
    scene.journal.record_request(kind, organization_id, call_id)
    if send_report(scene, call.vapi_id, fields):
        scene.journal.record_answer(kind, organization_id, call_id, "OK")


def _wait_until_known(scene: Scene, call: Outgoing, condition: str) -> bool:
    """Wait until the product knows a fact about the call, and return whether it does.

    The traffic's next step then certainly follows that fact.
    """
    query = text(
        f"SELECT coalesce(bool_and({condition}), false) FROM calls"  # noqa: S608
        " WHERE organization_id = :organization AND provider_call_id = :call"
    )
    values = {"organization": call.client.organization_id, "call": call.vapi_id}

    def is_known() -> bool:
        try:
            return bool(scene.database.run(lambda session: session.scalar(query, values)))
        except UNANSWERED:
            return False

    return wait_until(is_known, limit_seconds=KNOWN_WITHIN_SECONDS, every_seconds=POLL_SECONDS)
