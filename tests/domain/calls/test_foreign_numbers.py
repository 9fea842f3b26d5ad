"""Calls reserved by one organization over another one's number: the owner pays."""

from __future__ import annotations

import pytest

from base.outcomes import Refused
from domain.calls.entry_points import EntryPointKind
from domain.calls.rates import Rate, remove_rate
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT, CallCustomer
from tests.domain.support import ANN, T0, later
from tests.support.world import make_organization


@pytest.fixture
def cheap(shared):
    """Another organization, with a very low rate."""
    made = CallCustomer(shared, make_organization(shared))
    made.rate(Rate(60, 1))
    return made


def vapi_id(customer):
    return f"v-{customer.id}"[:64]


def code_of(work):
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.code


def assert_alerted(*customers):
    for customer in customers:
        (alert,) = customer.alerts("call_foreign")
        assert alert.severity == "critical"
        assert {alert.details["reserved_by"], alert.details["owner"]} == {
            one.id for one in customers
        }


@pytest.mark.parametrize("paired_by", ["vapi's id", "token"])
def test_the_owner_of_the_number_pays_for_a_call_that_another_reserved(customer, cheap, paired_by):
    # Given a reservation of one organization, and reports that name another one's number
    cheap.reserve("c1", provider=vapi_id(customer) if paired_by == "vapi's id" else None)
    ours = {"direction": "outbound", **(cheap.metadata() if paired_by == "token" else {})}
    customer.report_status(vapi_id(customer), "in_progress", later(1), **ours)
    # Then the reservation is released, and the number's owner gets a hold
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (100, 60, 0))
    assert (cheap.call().refusal, cheap.call().settled_by) == ("FOREIGN_NUMBER", "withdrawn")
    assert_alerted(customer, cheap)
    # And the owner pays at its own rate, once
    for _ in range(2):
        customer.report(vapi_id(customer), 20, later(30), **ours)
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (80, 0, 0))
    # And no later request of the other organization reverses it
    assert code_of(lambda: cheap.commit("c1", 20, later(31))) == "FOREIGN_NUMBER"
    again = cheap.reserve("c1", provider=vapi_id(customer), now=later(32))
    assert again.outcome.outcome == "IDEMPOTENCY_CONFLICT"


def test_released_reservation_does_not_get_the_foreign_call_back(customer, cheap):
    # Given a call that rings over another organization's number
    cheap.reserve("c1", provider=vapi_id(customer))
    customer.report_status(vapi_id(customer), "ringing", later(1))
    assert (cheap.cents(), cheap.call().provider_call_id) == ((100, 0, 0), None)
    # When the company names the call again, Then it is refused
    again = cheap.reserve("c1", provider=vapi_id(customer), now=later(2))
    assert again.outcome.outcome == "IDEMPOTENCY_CONFLICT"
    customer.report(vapi_id(customer), 20, later(30))
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (80, 0, 0))


def test_reservation_is_released_when_a_later_report_names_the_number(customer, cheap):
    cheap.reserve("c1", provider=vapi_id(customer))
    cheap.report_status(vapi_id(customer), "in_progress", later(1), phone_number_id=None)
    assert cheap.call().status == "in_progress"
    customer.report_status(vapi_id(customer), "forwarding", later(5))
    customer.report(vapi_id(customer), 20, later(30))
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (80, 0, 0))


def test_refresh_reveals_another_organizations_number_too(customer, cheap):
    cheap.reserve("c1", provider=vapi_id(customer))
    call = cheap.call()
    cheap.refresh(
        call, "in_progress", later(5), phone_number_id=customer.number_id, started_at=later(1)
    )
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (100, 60, 0))
    (adopted,) = customer.calls()
    assert (adopted.status, adopted.metered_from) == ("in_progress", later(1))


def test_a_caller_is_admitted_although_another_has_reserved_the_call(customer, cheap):
    cheap.reserve("c1", provider=vapi_id(customer))
    made = customer.admit(later(1), external_id=vapi_id(customer))
    assert (made.refusal, customer.cents(), cheap.cents()) == (None, (100, 60, 0), (100, 0, 0))
    assert_alerted(customer, cheap)


def test_call_with_numbers_of_two_organizations_is_ended_without_a_charge(customer, cheap, shared):
    third = CallCustomer(shared, make_organization(shared))
    third.entry_point(EntryPointKind.ASSISTANT, third.assistant_id)
    cheap.reserve("c1", provider=vapi_id(customer))
    entry_points = {"assistant_id": third.assistant_id}
    customer.report_status(vapi_id(customer), "in_progress", later(1), **entry_points)
    call = cheap.call()
    assert (call.end_cause, cheap.jobs("end_call")) == ("foreign_number", ["c1"])
    # When its report arrives, Then an operator decides which organization pays
    customer.report(vapi_id(customer), 20, later(20), **entry_points)
    assert cheap.call().settled_at is None
    assert len(cheap.alerts("call_unsettled")) == 1
    assert code_of(lambda: cheap.commit("c1", 20, later(21))) == "FOREIGN_NUMBER"
    assert (customer.cents(), third.cents()) == ((100, 0, 0), (100, 0, 0))
    cheap.settle_manually("c1", 0, later(40))
    assert cheap.cents() == (100, 0, 0)


def test_charge_made_before_the_number_was_known_stays_and_is_alerted(customer, cheap):
    cheap.reserve("c1", provider=vapi_id(customer))
    cheap.commit("c1", 20, later(20))
    customer.report(vapi_id(customer), 20, later(21))
    assert (cheap.call().cost_micros, customer.calls()) == (20, [])
    assert len(cheap.alerts("call_foreign")) == len(customer.alerts("call_foreign")) == 1


@pytest.fixture
def unrated(shared):
    """An organization with a number and money, and without any rate."""
    made = CallCustomer(shared, make_organization(shared))
    made.do(lambda s: remove_rate(s, made.id, "default", operator=ANN, now=T0))
    return made


def assert_ended_unpriced(owner, cheap):
    """Check that the number's owner has the ended call, an alert and no charge."""
    (call,) = owner.calls()
    assert (call.end_cause, owner.jobs("end_call")) == ("no_rate", [call.id])
    (alert,) = unknown_of(owner, call)
    assert (alert.severity, alert.details["why"]) == ("critical", "no rate")
    assert_alerted(owner, cheap)
    assert (cheap.cents(), owner.cents()) == ((100, 0, 0), (100, 0, 0))
    assert (cheap.call().refusal, cheap.call().settled_by) == ("FOREIGN_NUMBER", "withdrawn")
    return call


def unknown_of(owner, call):
    alerts = owner.alerts("call_unknown")
    return [one for one in alerts if one.subject == call.provider_call_id]


@pytest.mark.parametrize("revealed_by", ["report", "answer", "token"])
def test_foreign_call_is_ended_and_alerted_when_the_owner_has_no_rate(unrated, cheap, revealed_by):
    # Given a reservation, and a conversation over the number of an organization without rate
    cheap.reserve("c1", provider=None if revealed_by == "token" else vapi_id(unrated))
    ours = {"direction": "outbound", **(cheap.metadata() if revealed_by == "token" else {})}
    if revealed_by == "answer":
        found = {"phone_number_id": unrated.number_id, "started_at": later(1), **ours}
        cheap.refresh(cheap.call(), "in_progress", later(5), **found)
    else:
        unrated.report_status(vapi_id(unrated), "in_progress", later(5), **ours)
    call = assert_ended_unpriced(unrated, cheap)
    # When its report arrives, Then an operator decides what it costs
    for second in (20, 21):
        unrated.report(vapi_id(unrated), 15, later(second), **ours)
    (alert,) = unrated.alerts("call_unsettled")
    assert (alert.subject, unrated.call(call.id).settled_at) == (call.id, None)
    assert code_of(lambda: cheap.commit("c1", 15, later(22))) == "FOREIGN_NUMBER"
    # And once there is a rate, the next refresh charges the owner, once
    unrated.rate(Rate(60 * CENT, 1))
    for second in (30, 31):
        unrated.refresh(unrated.call(call.id), "ended", later(second), duration_ms=15_000, **ours)
    assert (cheap.cents(), unrated.cents()) == ((100, 0, 0), (85, 0, 0))
    assert unrated.alerts("call_unsettled") == unknown_of(unrated, call) == []


def test_foreign_call_without_a_rate_is_settled_manually_at_a_later_rate(unrated, cheap):
    cheap.reserve("c1", provider=vapi_id(unrated))
    unrated.report(vapi_id(unrated), 15, later(20), direction="outbound")
    (call,) = unrated.calls()
    assert code_of(lambda: unrated.settle_manually(call.id, 15, later(30))) == "NO_RATE"
    unrated.rate(Rate(60 * CENT, 1))
    unrated.settle_manually(call.id, 15, later(31))
    assert (cheap.cents(), unrated.cents()) == ((100, 0, 0), (85, 0, 0))
    assert unrated.alerts("call_unsettled") == unknown_of(unrated, call) == []


def test_foreign_call_that_never_talks_costs_nothing_without_a_rate(unrated, cheap):
    cheap.reserve("c1", provider=vapi_id(unrated))
    unrated.report_status(vapi_id(unrated), "ringing", later(1), direction="outbound")
    # The reservation is released; the call does not talk yet, so nothing is ended
    assert (cheap.cents(), unrated.calls()) == ((100, 0, 0), [])
    unrated.report(vapi_id(unrated), 0, later(20), direction="outbound", never_connected=True)
    (call,) = unrated.calls()
    assert (call.cost_micros, call.settled_by, unrated.cents()) == (0, "report", (100, 0, 0))
    assert unrated.alerts("call_unsettled") == unknown_of(unrated, call) == []


def test_caller_of_a_foreign_number_is_refused_when_the_owner_has_no_rate(unrated, cheap):
    # Given a call that another organization reserved, which asks for the owner's assistant
    cheap.reserve("c1", provider=vapi_id(unrated))
    made = unrated.admit(later(1), external_id=vapi_id(unrated))
    assert (made.refusal, cheap.cents(), unrated.cents()) == (
        "NO_RATE",
        (100, 0, 0),
        (100, 0, 0),
    )
    # When it talks nevertheless, Then it is ended and an alert is raised
    unrated.report_status(vapi_id(unrated), "in_progress", later(2), direction="inbound")
    assert_ended_unpriced(unrated, cheap)


def test_many_reports_of_a_foreign_call_at_once_make_one_call(customer, cheap):
    cheap.reserve("c1", provider=vapi_id(customer))
    applied = at_once(
        [with_retries(lambda: customer.report_status(vapi_id(customer), "in_progress", later(1)))]
        * 8
    )
    assert applied == [True] * 8
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (100, 60, 0))
    assert len(customer.calls()) == 1


def test_a_reservation_by_its_own_number_is_charged_as_ever(customer):
    customer.reserve("c1", provider=vapi_id(customer))
    customer.report_status(vapi_id(customer), "in_progress", T0)
    customer.report(vapi_id(customer), 20, later(20))
    assert (customer.cents(), customer.alerts("call_foreign")) == ((80, 0, 0), [])
    assert customer.call().cost_micros == 20 * CENT
