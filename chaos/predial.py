"""A campaign at Vapi that requests permission to dial its contacts.

It requests permission for many contacts at once, more than the balance pays for. It dials those
that are permitted. Some requests are sent twice, and some permissions are never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from chaos.reports import send_report, wait_for_end
from chaos.scene import Client, Scene

#: Contacts for which permission is requested at the same time.
_PARALLEL_REQUESTS = 12
#: Contacts of the first round, for more than the balance pays for, and of each later round.
_FIRST_ROUND_CONTACTS = 60
_ROUND_CONTACTS = 25
#: Seconds between two rounds.
_ROUND_GAP_SECONDS = (2.0, 5.0)
#: Share of contacts whose request is sent twice at once, and share whose request is repeated before
#: they are dialled.
_TWICE_SHARE = 0.15
_REPEATED_SHARE = 0.15
#: Share of permissions that are never used, and share of contacts that do not answer.
_UNUSED_SHARE = 0.2
_UNANSWERED_SHARE = 0.2
_TALK_SECONDS = (0.2, 1.5)
_END_WITHIN_SECONDS = 60.0
#: Share of a call's messages that are lost, and share of reports that are sent twice.
_LOST_MESSAGE_SHARE = 0.1
_DOUBLED_REPORT_SHARE = 0.2
#: Each contact has its own last four digits, by which its call is matched with its permission.
_NUMBER_COUNT = 10_000


@dataclass(frozen=True)
class _Contact:
    """One contact of the campaign, and the choices drawn for it."""

    client: Client
    campaign_id: str
    id: str
    number: str
    copies: int
    is_request_repeated: bool
    is_dialled: bool
    answers: bool
    talk_seconds: float
    doubles: bool


def threads(scene: Scene) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the thread's name and the function that it runs until it is stopped."""
    if scene.with_holds and scene.campaigner is not None:
        yield "campaign", partial(_run_campaign, scene, scene.campaigner)


def _run_campaign(scene: Scene, client: Client) -> None:
    chance = scene.chance("campaign")
    count, first = _FIRST_ROUND_CONTACTS, 0
    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        while not scene.stopping.is_set():
            contacts = [
                _draw_contact(client, scene.campaign_id, chance, first + place)
                for place in range(count)
            ]
            answers = zip(
                contacts, pool.map(partial(_request_permission, scene), contacts), strict=True
            )
            permitted = [
                contact for contact, is_eligible in answers if is_eligible and contact.is_dialled
            ]
            # The campaign dials no contact before all requests are answered, so that permissions
            # reach the limit of the balance.
            list(pool.map(partial(_dial_and_report, scene), permitted))
            count, first = _ROUND_CONTACTS, first + count
            scene.stopping.wait(chance.uniform(*_ROUND_GAP_SECONDS))


def _draw_contact(client: Client, campaign_id: str, chance: Random, number: int) -> _Contact:
    return _Contact(
        client,
        campaign_id,
        id=f"contact-{number:05d}",
        number=f"+1500666{number % _NUMBER_COUNT:04d}",
        copies=2 if chance.random() < _TWICE_SHARE else 1,
        is_request_repeated=chance.random() < _REPEATED_SHARE,
        is_dialled=chance.random() >= _UNUSED_SHARE,
        answers=chance.random() >= _UNANSWERED_SHARE,
        talk_seconds=chance.uniform(*_TALK_SECONDS),
        doubles=chance.random() < _DOUBLED_REPORT_SHARE,
    )


def _request_permission(scene: Scene, contact: _Contact) -> bool:
    """Request permission to dial the contact, and return whether it is given.

    Without a valid answer the contact may not be dialled.
    """
    body = {
        "type": "campaign.predial",
        "fields": {
            "campaignId": contact.campaign_id,
            "contact": {"id": contact.id, "number": contact.number},
        },
        "copies": contact.copies,
    }
    name = (contact.client.organization_id, contact.id)
    scene.journal.record_request("predial", *name)
    scene.request_count += 1
    is_eligible = False
    for _ in range(2 if contact.is_request_repeated else 1):
        deliveries: list[dict[str, Any]] = scene.deliveries.control("POST", "/vapi/messages", body)
        if not is_eligible and any(delivery["eligible"] for delivery in deliveries):
            is_eligible = True
            scene.journal.record_answer("predial", *name, "eligible")
    return is_eligible


def _dial_and_report(scene: Scene, contact: _Contact) -> None:
    """Dial the contact, and have its call's report sent until it is accepted."""
    call_id = _dial(scene, contact)
    wait_for_end(scene.deliveries, call_id, _END_WITHIN_SECONDS)
    send_report(scene, call_id, {})


def _dial(scene: Scene, contact: _Contact) -> str:
    order = {
        "direction": "outbound",
        "to": contact.number,
        "number_id": contact.client.number_id,
        "campaign_id": contact.campaign_id,
        "queued_seconds": 0,
        "ring_seconds": 0.1,
        "answered": contact.answers,
        "talk_seconds": contact.talk_seconds,
        "report_after_seconds": 0.1,
        "behaviour": {"double_reports": contact.doubles, "lose_probability": _LOST_MESSAGE_SHARE},
    }
    organization_id = contact.client.organization_id
    scene.journal.record_request("campaign_dial", organization_id, contact.id)
    call_id: str = scene.deliveries.control("POST", "/vapi/calls", order)["id"]
    scene.journal.record_answer("campaign_dial", organization_id, contact.id, call_id)
    # The count expects a charge for this call, as for any call by phone.
    scene.journal.record_request("phone", organization_id, call_id)
    scene.request_count += 1
    return call_id
