"""Reading calls: by each of their IDs, in pages, and added up by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest

from base.enums import CallBillingState, CallStatus, EndCause
from db.models.calls import Call
from domain.calls import admission, reconcile
from domain.calls import queries as call_queries
from domain.calls.queries import CallNotUnique, UnboundedList, find_call, list_calls
from domain.calls.rows import CallNotFound, parties
from tests.domain.calls.support import CENT, CallCustomer, after
from tests.domain.support import T0

SID = "CA" + "5" * 32
DAY = T0.date()


def found(customer: CallCustomer, any_id: str, org: str | None = None, **more) -> str | None:
    call = customer.do(lambda session: find_call(session, any_id, org, **more))
    return call.id if call else None


def listed(customer: CallCustomer, **more) -> list[str]:
    return [call.id for call in customer.do(lambda session: list_calls(session, **more))]


def costs(
    customer: CallCustomer, first: date = DAY, last: date = DAY, org: str | None = ""
) -> list:
    organization_id = customer.id if org == "" else org
    return customer.do(
        lambda session: call_queries.costs_by_day(
            session, organization_id=organization_id, first_day=first, last_day=last
        )
    )


def seen(customer: CallCustomer, call_id: str) -> call_queries.CallDetails:
    return customer.do(
        lambda session: call_queries.read_call_details(
            session, session.get_one(Call, (customer.id, call_id))
        )
    )


def paged(customer: CallCustomer, size: int, **asked) -> list[tuple[str, str]]:
    """Read all pages of a list."""
    found: list[tuple[str, str]] = []
    page = customer.do(lambda session: list_calls(session, limit=size, **asked))
    while page:
        found += [(call.organization_id, call.id) for call in page]
        after = call_queries.cursor_of(page[-1])
        page = customer.do(partial(list_calls, limit=size, after=after, **asked))
    return found


def test_a_call_is_found_by_each_of_its_ids(customer):
    # Given a call with our ID, Vapi's, Twilio's and an appointment's
    customer.reserve("c1", provider="vapi-1", appointment_id="visit-1")
    customer.report_status(customer.call(), "ringing", twilio_call_sid=SID)
    # When it is looked up by each ID, within its organization and among all
    for org in (customer.id, None):
        names = [found(customer, one, org) for one in ("c1", "vapi-1", SID, "visit-1")]
        # Then the call is found
        assert names == ["c1"] * 4


@pytest.mark.parametrize("any_id", ["", "c2", "x" * 65, "c\0", "%", "visit"])
def test_unknown_id_finds_no_call(customer, any_id):
    customer.reserve("c1", appointment_id="visit-2")
    assert found(customer, any_id, customer.id) is None


def test_another_organizations_call_is_not_found(customer, other):
    customer.reserve("own", provider="vapi-2", appointment_id="visit-3")
    assert [found(customer, one, other.id) for one in ("own", "vapi-2", "visit-3")] == [None] * 3


def test_an_id_of_two_organizations_is_not_guessed(customer, other):
    # Given two organizations that gave their calls the same ID and the same appointment
    for one in (customer, other):
        one.reserve("same", appointment_id="same-visit")
    # When it is looked up without an organization
    for any_id in ("same", "same-visit"):
        with pytest.raises(CallNotUnique) as refused:
            found(customer, any_id)
        # Then the error names both, and each is found within its organization
        assert customer.id in refused.value.detail and other.id in refused.value.detail
        assert found(customer, any_id, customer.id) == "same"


def test_an_appointments_newest_call_is_shown_but_not_acted_on(customer):
    # Given an appointment with two calls
    customer.reserve("first", appointment_id="visit-4")
    customer.reserve("second", appointment_id="visit-4", now=after(T0, 60))
    # Then reading returns the newest call, and an action must name the call
    assert found(customer, "visit-4", customer.id) == "second"
    with pytest.raises(CallNotUnique, match=r"second of .*, first of "):
        found(customer, "visit-4", customer.id, alone=True)
    assert found(customer, "first", customer.id, alone=True) == "first"


def test_our_own_id_goes_before_anothers_within_an_organization(customer):
    # Given a call whose ID is also Vapi's ID of a newer call
    customer.reserve("twice-named")
    customer.reserve("newer", provider="twice-named", now=after(T0, 60))
    assert found(customer, "twice-named", customer.id) == "twice-named"


def test_a_call_is_seen_with_its_hold_its_entries_and_its_timeline(customer):
    # Given a call that talked for 12 s, and other entries
    customer.reserve("c1", seconds=30)
    customer.reserve("c2", seconds=10)
    customer.pay(5)
    customer.report(customer.call(), 12, after(T0, 20))
    customer.report(customer.call("c2"), 3, after(T0, 20))
    # When it is read
    one = seen(customer, "c1")
    # Then it is complete, and shows nothing of the other call
    assert (one.hold.status, one.hold.captured_micros) == ("committed", 12 * CENT)
    assert [(entry.kind, entry.amount_micros) for entry in one.entries] == [("call", 12 * CENT)]
    assert [step.what for step in one.timeline] == ["reserved", "ended", "settled"]


def test_entry_of_a_late_report_is_shown_too(customer):
    # Given a hold that expired, and a report after that
    customer.reserve("c1", seconds=30, provider=None)
    customer.do(lambda session: reconcile.expire_unreported(session, customer.id, after(T0, 5000)))
    assert customer.call().settled_by == "expiry"
    ours = customer.metadata()
    customer.report_status(
        "vapi-late", "ended", after(T0, 5100), final=True, duration_ms=4000, **ours
    )
    # Then its entry is among the call's entries
    one = seen(customer, "c1")
    assert [(entry.kind, entry.amount_micros) for entry in one.entries] == [("call", 4 * CENT)]


def test_a_call_without_a_hold_and_an_end_is_seen(customer):
    customer.reserve("c1")
    one = seen(customer, "c1")
    assert (one.entries, one.hold.status) == ([], "open")


@pytest.fixture
def calls(customer):
    """One call that rings, one that talks, one that is over, and one that is charged."""
    for n, name in enumerate(("rings", "talks", "over", "charged")):
        customer.reserve(name, seconds=10, now=after(T0, n))
    customer.report_status(customer.call("rings"), "ringing", after(T0, 10))
    customer.report_status(customer.call("talks"), "in_progress", after(T0, 10))
    customer.report_status(customer.call("over"), "ended", after(T0, 10))
    customer.report(customer.call("charged"), 2, after(T0, 10))
    return customer


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["talks", "rings"]),
        ({"live": False}, ["charged", "over", "talks", "rings"]),
        ({"live": False, "unsettled": True}, ["over", "talks", "rings"]),
        ({"status": CallStatus.RINGING}, ["rings"]),
        ({"live": False, "status": CallStatus.ENDED}, ["charged", "over"]),
        ({"live": False, "status": CallStatus.ENDED, "unsettled": True}, ["over"]),
        ({"live": False, "state": CallBillingState.TALKING}, ["talks"]),
        ({"live": False, "state": CallBillingState.CHARGED}, ["charged"]),
        ({"live": False, "state": CallBillingState.MERGED}, []),
        ({"live": False, "since": after(T0, 2)}, ["charged", "over"]),
        ({"live": False, "since": after(T0, 4)}, []),
        ({"live": False, "limit": 2}, ["charged", "over"]),
    ],
)
def test_calls_are_listed_newest_first_by_filter(calls, asked, expected):
    assert listed(calls, organization_id=calls.id, **asked) == expected


def test_every_call_is_on_one_page_whatever_the_page_size(customer):
    # Given calls that share their instants of creation, and one more
    for n in range(7):
        customer.reserve(f"c{n}", seconds=10, now=after(T0, n // 3))
    whole = listed(customer, organization_id=customer.id)
    assert len(set(whole)) == 7
    for size in (1, 2, 3, 7):
        # When they are read page by page
        pages = paged(customer, size, organization_id=customer.id)
        # Then each was returned once, in the same order
        assert pages == [(customer.id, one) for one in whole]


def test_calls_of_all_organizations_are_paged_too(customer, other):
    # Given two organizations whose calls have the same IDs and instants
    for one in (customer, other):
        for n in range(3):
            one.reserve(f"all{n}", seconds=10, now=after(T0, 900 + n // 2))
    expected = sorted((o.id, f"all{n}") for o in (customer, other) for n in range(3))
    for size in (1, 2, 4):
        assert sorted(paged(customer, size, since=after(T0, 900))) == expected


def test_cursor_of_no_call_is_refused(customer):
    for cursor in ("", "x", f"{customer.id}/none"):
        with pytest.raises(CallNotFound):
            listed(customer, organization_id=customer.id, after=cursor)


def test_unbounded_list_of_calls_is_refused(customer):
    for asked in ({}, {"status": CallStatus.ENDED}, {"state": CallBillingState.CHARGED}):
        with pytest.raises(UnboundedList):
            listed(customer, live=False, **asked)


def test_a_merged_reservation_is_listed_by_its_state_alone(customer):
    # Given a reservation that was merged into the call that Vapi reported
    customer.reserve("c1", provider=None)
    customer.report_status(f"v-{customer.id}", "in_progress", direction="outbound")
    customer.reserve("c1", provider=f"v-{customer.id}")
    # Then it is listed by its state, and the call that it became is listed otherwise
    assert listed(
        customer, organization_id=customer.id, live=False, state=CallBillingState.MERGED
    ) == ["c1"]
    assert "c1" not in listed(customer, organization_id=customer.id, live=False)


def test_days_are_of_utc_and_both_are_counted(customer):
    # Given calls at the first and the last instant of a day, and just outside it
    first = datetime(2026, 3, 2, tzinfo=UTC)
    for name, at, seconds in (
        ("before", first - timedelta(microseconds=1), 1),
        ("first", first, 2),
        ("last", first + timedelta(days=1, microseconds=-1), 3),
        ("after", first + timedelta(days=1), 4),
    ):
        customer.reserve(name, seconds=10, now=at)
        customer.report(customer.call(name), seconds, at + timedelta(seconds=20))
    # When the day is added up, and all three days
    (day,) = costs(customer, first.date(), first.date())
    # Then the day counts exactly its two calls
    assert (day.calls, day.seconds, day.cost_micros, day.currency) == (2, 5, 5 * CENT, "USD")
    days = costs(customer, DAY, date(2026, 3, 3))
    assert [(one.day.day, one.cost_micros // CENT) for one in days] == [(1, 1), (2, 5), (3, 4)]


def test_seconds_are_those_of_the_sum_beside_both_costs(customer):
    for n in range(3):
        customer.reserve(f"c{n}", seconds=10)
        customer.report(customer.call(f"c{n}"), 1.5, after(T0, 20), provider_cost_micros=4_321)
    (day,) = costs(customer)
    assert (day.calls, day.seconds) == (3, 4)
    assert (day.cost_micros, day.provider_cost_micros) == (6 * CENT, 3 * 4_321)


def test_uncharged_and_withdrawn_calls_are_not_counted(customer):
    # Given a live call, an unanswered call and a withdrawn call
    customer.reserve("lives", seconds=10)
    customer.reserve("unanswered", seconds=10)
    customer.report(customer.call("unanswered"), 0, after(T0, 20))
    withdrawn = customer.admit_call()
    customer.do(lambda session: admission.withdraw(session, customer.id, withdrawn, T0))
    assert customer.call(withdrawn).settled_by == "withdrawn"
    # Then only the unanswered call, which is over and free, is counted
    (day,) = costs(customer)
    assert (day.calls, day.seconds, day.cost_micros, day.provider_cost_micros) == (1, 0, 0, 0)


def test_costs_are_listed_by_organization(customer, other):
    day = date(2026, 7, 1)
    at = datetime(2026, 7, 1, 12, tzinfo=UTC)
    for one, seconds in ((customer, 3), (other, 5)):
        one.reserve("c1", seconds=10, now=at)
        one.report(one.call(), seconds, at + timedelta(seconds=20))
    all_of_them = {one.organization_id: one.cost_micros for one in costs(customer, day, day, None)}
    assert all_of_them == {customer.id: 3 * CENT, other.id: 5 * CENT}
    assert [one.cost_micros for one in costs(customer, day, day)] == [3 * CENT]
    assert costs(customer, date(2026, 6, 1), date(2026, 6, 30), None) == []


def test_times_of_an_ending_are_in_milliseconds():
    call = Call(
        end_cause=EndCause.INSUFFICIENT_FUNDS,
        end_decided_at=T0,
        end_told_at=after(T0, 0.1234),
        ended_seen_at=after(T0, 1.9996),
    )
    assert call_queries.ending_ms(call) == (123, 2000)
    call.end_told_at = None
    assert call_queries.ending_ms(call) == (None, 2000)


def test_call_that_ended_by_itself_has_no_times_of_an_ending():
    assert call_queries.ending_ms(Call(ended_seen_at=T0)) == (None, None)


def test_caller_is_the_first_party_in_either_direction():
    for direction, expected in (("inbound", ("…0006", "…0099")), ("outbound", ("…0099", "…0006"))):
        call = Call(direction=direction, their_party="…0006", our_party="…0099")
        assert parties(call) == expected
