"""Permission to dial a contact: needs money for the call, held for a short time."""

from __future__ import annotations

import pytest

from base.facts import PermissionRequest
from base.operators import Operator
from domain.calls import permission
from domain.calls.admission import withdraw
from domain.calls.entry_points import EntryPointKind
from domain.calls.permission import PERMISSION_SECONDS, Permission
from domain.calls.rates import Rate, remove_rate
from domain.calls.reconcile import expire_unreported
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT, RATE, CallCustomer
from tests.domain.support import T0, later

UK = "+447700900123"


class Campaign(CallCustomer):
    """A customer with a campaign that requests permission for its contacts."""

    def __init__(self, database, org, *, cents):
        super().__init__(database, org, cents=cents)
        self.campaign_id = f"camp-{org}"[:64]
        self.entry_point(EntryPointKind.CAMPAIGN, self.campaign_id)

    def permit(self, contact_id="1", now=T0, number=UK) -> Permission:
        ask = PermissionRequest(self.campaign_id, contact_id, None, None, number)
        return self.do(lambda session: permission.permit(session, ask, now))

    def dialled(self, status, now=T0, number=UK, *, mark="v", **more):
        given = {"phone_number_id": None, "direction": "outbound", "campaign_id": self.campaign_id}
        given |= {"their_number": number, "their_party": f"…{number[-4:]}"}
        return self.report_status(f"{mark}-{self.id}"[:64], status, now, **{**given, **more})


@pytest.fixture
def campaign(shared, org):
    """An organization with a campaign, and money for three steps of a minute."""
    return Campaign(shared, org, cents=180)


def test_contacts_are_permitted_up_to_the_available_money(campaign):
    # Given money for three calls of one step each
    #
    # When permission for fifty contacts is requested at once
    made = at_once(
        [with_retries(lambda place=place: campaign.permit(str(place))) for place in range(50)]
    )
    # Then exactly three may be dialled, and all of the money is held
    permitted = [one for one in made if one.refusal is None]
    assert len(permitted) == len({one.call_id for one in permitted}) == 3
    assert {one.refusal for one in made if one.refusal} == {"INSUFFICIENT_FUNDS"}
    assert campaign.cents() == (180, 180, 0)
    # And after three calls of a minute nothing is outstanding
    for place in range(3):
        campaign.dialled("in_progress", T0, mark=f"v{place}")
        campaign.dialled("ended", later(60), mark=f"v{place}", final=True, duration_ms=60_000)
    assert campaign.cents() == (0, 0, 0)
    assert len(campaign.calls()) == 3


@pytest.mark.parametrize(("cents", "held"), [(9, None), (10, 10), (59, 59), (61, 60)])
def test_a_contact_is_permitted_with_money_for_the_shortest_call(shared, org, cents, held):
    campaign = Campaign(shared, org, cents=cents)
    made = campaign.permit()
    assert made.refusal == ("INSUFFICIENT_FUNDS" if held is None else None)
    assert campaign.cents() == (cents, held or 0, 0)


def test_contact_is_held_for_once_however_often_permission_is_requested(campaign):
    first = campaign.permit()
    assert [campaign.permit(now=later(5)), campaign.permit(now=later(9))] == [first, first]
    assert campaign.cents() == (180, 60, 0)
    # And still once after it is dialled
    campaign.dialled("in_progress", later(10))
    assert campaign.permit(now=later(11)) == first
    assert campaign.cents() == (180, 60, 0)


def test_the_same_contact_at_once_is_held_for_once(campaign):
    made = at_once([with_retries(campaign.permit)] * 8)
    assert {one.refusal for one in made} == {None}
    assert campaign.cents() == (180, 60, 0)


def test_a_contact_is_priced_by_its_number(campaign):
    campaign.rate(Rate(3 * RATE.micros_per_minute, 1), "outbound:+44")
    made = campaign.permit()
    assert campaign.hold(made.call_id).reserved_micros == 180 * CENT
    assert campaign.call(made.call_id).rate_route == "outbound:+44"
    campaign.dialled("ended", later(60), final=True, duration_ms=20_000)
    assert campaign.cents() == (120, 0, 0)


def test_without_a_rate_no_contact_is_permitted(campaign):
    campaign.do(
        lambda s: remove_rate(s, campaign.id, "default", operator=Operator("a", "b"), now=T0)
    )
    assert campaign.permit().refusal == "NO_RATE"
    assert campaign.calls() == []


def test_no_contact_of_an_organization_that_may_not_spend_is_permitted(campaign):
    campaign.freeze()
    assert campaign.permit().refusal == "FROZEN_WALLET"


def test_a_contact_without_an_id_is_not_permitted(campaign):
    assert campaign.permit("").refusal == "NO_CONTACT"


def test_campaign_without_an_organization_is_not_permitted(campaign):
    campaign.campaign_id = "another"
    assert campaign.permit() == Permission(None, None, "UNKNOWN_ENTRY_POINT")


def test_a_permission_that_is_not_used_expires_soon_and_counts_as_no_call(campaign):
    made = campaign.permit()
    assert (
        campaign.do(lambda s: expire_unreported(s, campaign.id, later(PERMISSION_SECONDS - 1)))
        == []
    )
    over = later(PERMISSION_SECONDS)
    assert campaign.do(lambda s: expire_unreported(s, campaign.id, over)) == [made.call_id]
    assert campaign.cents() == (180, 0, 0)
    assert campaign.call(made.call_id).settled_by == "withdrawn"
    # And the contact may be permitted again
    again = campaign.permit(now=over)
    assert (again.refusal, again.call_id != made.call_id) == (None, True)


def test_the_call_that_is_dialled_takes_its_permission_over(campaign):
    made = campaign.permit()
    assert campaign.dialled("ringing", later(20))
    (call,) = campaign.calls()
    assert (call.id, call.status) == (made.call_id, "ringing")
    assert campaign.timeline(call.id)[-2:] == ["dialled", "ringing"]
    # And its hold lasts as long as that of any other call
    assert campaign.hold(call.id).expires_at > later(900)
    assert campaign.alerts("door_unasked") == []


def test_unanswered_dialled_call_releases_its_hold(campaign):
    campaign.permit()
    campaign.dialled("ended", later(30), final=True, duration_ms=0, never_connected=True)
    assert campaign.cents() == (180, 0, 0)
    assert len(campaign.calls()) == 1


def test_a_call_of_another_number_or_campaign_takes_nothing_over(campaign):
    made = campaign.permit()
    campaign.dialled("in_progress", later(5), number="+15005550999")
    campaign.dialled("in_progress", later(5), mark="w", campaign_id="another")
    assert campaign.call(made.call_id).provider_call_id is None


def test_a_call_by_another_organizations_number_takes_nothing_over(campaign, other):
    made = campaign.permit()
    campaign.dialled("in_progress", later(5), phone_number_id=other.number_id)
    assert campaign.call(made.call_id).provider_call_id is None


def test_campaign_call_without_permission_is_adopted(campaign):
    campaign.dialled("in_progress", T0)
    (call,) = campaign.calls()
    assert (call.direction, campaign.hold(call.id).reserved_micros) == ("outbound", 60 * CENT)


def test_freeze_ends_a_permitted_call_only_once_it_is_dialled(campaign):
    # Given a permission, and then a freeze
    made = campaign.permit()
    campaign.freeze_manually(later(5))
    assert campaign.call(made.call_id).end_cause == "frozen_wallet"
    assert campaign.jobs("end_call") == []
    assert campaign.permit(now=later(6)).refusal == "CALL_SETTLED"
    # When the call is dialled nevertheless, it is ended
    campaign.dialled("in_progress", later(10))
    assert campaign.jobs("end_call") == [made.call_id]


def test_late_permission_is_withdrawn_unless_it_was_requested_again(campaign):
    made = campaign.permit()
    assert campaign.do(lambda s: withdraw(s, campaign.id, made.call_id, later(3)))
    assert campaign.cents() == (180, 0, 0)
    again = campaign.permit(now=later(4))
    campaign.permit(now=later(5))
    assert not campaign.do(lambda s: withdraw(s, campaign.id, again.call_id, later(6)))
    assert campaign.cents() == (180, 60, 0)
