"""The count of a campaign's permitted contacts, from given facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chaos.facts import Facts
from chaos.ingress import LIMITS
from chaos.journal import RecordedRequest, RecordedTraffic
from chaos.predial_count import HOLD_MICROS, predial

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Campaign:
    """A campaign with money for `contacts_paid` contacts, and their histories."""

    def __init__(self, contacts_paid: int) -> None:
        self.facts = Facts(
            customers=[],
            recorded=RecordedTraffic({"predial": {}, "campaign_dial": {}}),
            database=None,
            rows=lambda _: [(one,) for one in self.taken_over],
            captures=[
                {
                    "custom_id": "org",
                    "amount": {"value": f"{contacts_paid * HOLD_MICROS / 1_000_000:.6f}"},
                },
                {"custom_id": "another", "amount": {"value": "100.00"}},
            ],
            subscriptions={},
            subaccounts={},
            calls={},
            accepted=set(),
        )
        self.taken_over: list[str] = []

    def permit(self, contact_id: str, asked_at: float, answered_at: float) -> None:
        self.facts.recorded.requests["predial"]["org", contact_id] = RecordedRequest(
            0, "eligible", asked_at=asked_at, answered_at=answered_at
        )

    def dial(self, contact_id: str, ended: float, *, talked: int = 0, known: bool = True) -> None:
        call_id = f"v-{contact_id}"
        self.facts.recorded.requests["campaign_dial"]["org", contact_id] = RecordedRequest(
            0, call_id
        )
        times = {
            "startedAt": BEGAN.isoformat(),
            "endedAt": (BEGAN + timedelta(seconds=talked)).isoformat(),
        }
        self.facts.calls[call_id] = {"ended": ended, "call": times if talked else {}}
        if known:
            self.taken_over.append(call_id)

    def problems(self) -> list[tuple[str, ...]]:
        return [one.ids for one in predial(self.facts)]


def test_campaign_is_right_when_its_balance_pays_for_all_contacts():
    campaign = Campaign(2)
    campaign.permit("a", 0.0, 1.0)
    campaign.permit("b", 0.0, 1.5)
    assert campaign.problems() == []


def test_campaign_is_doubled_when_one_contact_too_many_is_permitted():
    campaign = Campaign(2)
    for place, contact_id in enumerate("abc"):
        campaign.permit(contact_id, 0.0, 1.0 + place)
    assert campaign.problems() == [("c",)]
    # A contact that may not be dialled does not count
    campaign.facts.recorded.requests["predial"]["org", "b"].outcome = None
    assert campaign.problems() == []


@pytest.mark.parametrize(("late", "expected"), [(-0.1, [("b",)]), (0.1, [])])
def test_unused_permission_counts_until_it_may_have_expired(late, expected):
    campaign = Campaign(1)
    campaign.permit("a", 0.0, 1.0)
    campaign.permit("b", LIMITS.permission_seconds - 1, LIMITS.permission_seconds + late)
    assert campaign.problems() == expected


def test_unused_permission_counts_no_more_when_the_clock_stepped_forward():
    campaign = Campaign(1)
    campaign.permit("a", 0.0, 1.0)
    campaign.permit("b", 4.0, 5.0)
    assert campaign.problems() == [("b",)]
    campaign.facts.clock_forward_at = (-1.0, 3.0)
    assert campaign.problems() == []


def test_dialled_contact_counts_until_its_call_has_ended():
    campaign = Campaign(1)
    campaign.permit("a", 0.0, 1.0)
    campaign.dial("a", ended=100.0)
    campaign.permit("b", 98.0, 99.0)
    assert campaign.problems() == [("b",)]
    campaign.dial("a", ended=98.5)
    assert campaign.problems() == []


def test_contact_counts_until_its_expiry_when_its_call_is_another():
    # Given a call that did not use the permission, and lasts beyond the permission's expiry
    campaign = Campaign(1)
    campaign.permit("a", 0.0, 1.0)
    campaign.dial("a", ended=100.0, known=False)
    campaign.permit("b", 98.0, 99.0)
    assert campaign.problems() == []


def test_balance_pays_for_fewer_contacts_when_calls_are_charged():
    # Given money for two contacts, part of which a call has used
    campaign = Campaign(2)
    campaign.permit("a", 0.0, 1.0)
    campaign.dial("a", ended=2.0, talked=1)
    campaign.permit("b", 3.0, 4.0)
    assert campaign.problems() == []
    campaign.permit("c", 3.0, 4.5)
    assert campaign.problems() == [("c",)]
