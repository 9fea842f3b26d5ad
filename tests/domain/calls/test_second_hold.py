"""Calls that talk after their hold was returned: a second hold, and one charge."""

from __future__ import annotations

import pytest
from sqlalchemy import event, text

from base.facts import CallReport
from domain.calls import pairing, status_updates
from domain.calls import queries as call_queries
from domain.calls import reconcile as watch
from domain.calls.admission import withdraw
from domain.calls.rates import Rate
from domain.calls.reconcile import expire_unreported
from domain.calls.tick import TickResult
from domain.wallet import freezes as wallet_freezes
from tests.db.support import at_once, one_behind_the_other, with_retries
from tests.domain.calls.support import CENT, OVER, execute, report_absent
from tests.domain.support import ANN, debit, later
from tests.domain.wallet.hold_support import everything


def vapi_id(customer):
    return f"v-{customer.id}"[:64]


def expired(customer, *, paired=True, **more):
    """Reserve a call for 30 s, let its hold expire, and return how a report names it."""
    customer.reserve("c1", provider=vapi_id(customer) if paired else None, **more)
    ours = {} if paired else customer.metadata("c1")
    if paired:
        report_absent(customer, later(OVER))
    else:
        assert customer.do(lambda s: expire_unreported(s, customer.id, later(OVER))) == ["c1"]
    assert (customer.hold().status, customer.call().settled_by) == ("expired", "expiry")
    return ours


def going_on(customer):
    """Return the call that replaces the reservation."""
    return customer.call(customer.call("c1").merged_into)


def charges(customer):
    """List the keys and cents of the entries that charged calls."""
    rows = customer.do(
        lambda s: s.execute(
            text(
                "SELECT operation_key, amount_micros FROM wallet_entries"
                " WHERE organization_id = :org AND kind = 'call' ORDER BY entry_no"
            ),
            {"org": customer.id},
        ).all()
    )
    return [(key, micros / CENT) for key, micros in rows]


# A second hold


@pytest.mark.parametrize("paired", [True, False])
def test_call_is_held_for_again_when_it_talks_after_its_expiry(customer, paired):
    # Given plenty of money, and a reservation whose hold has expired
    customer.pay(900)
    ours = expired(customer, paired=paired, appointment_id="visit")
    gone = customer.hold("c1")
    # When the call is dialled nevertheless
    customer.report_status(
        vapi_id(customer), "in_progress", later(940), direction="outbound", **ours
    )
    # Then it gets the hold of an unreserved call, is metered, and continues
    assert customer.cents() == (1000, 60, 0)
    call = going_on(customer)
    assert (call.status, call.end_cause, call.tick_at) == ("in_progress", None, later(940))
    assert customer.tick(later(940 + 53)) == TickResult(extended=1)
    # And its report charges it once and leaves no hold; the expiry is unchanged
    for second in (1040, 1041):
        customer.report(vapi_id(customer), 100, later(second), direction="outbound", **ours)
    assert customer.cents() == (900, 0, 0)
    assert charges(customer) == [(f"call:{call.id}:commit", 100)]
    assert customer.call("c1").settled_by == "merged"
    now = customer.hold("c1")
    assert (now.status, now.settled_at, now.billed_micros) == ("expired", gone.settled_at, None)
    # And both IDs and the appointment find it
    for one in ("c1", call.id, "visit", vapi_id(customer)):
        seen = customer.do(
            lambda s, one=one: call_queries.read_call_details(
                s, call_queries.find_call(s, one, customer.id)
            )
        )
        assert (seen.call.id, seen.merged) == (call.id, ["c1"])
    assert customer.commit("c1", 100, later(1050)).outcome.replayed


def test_second_hold_keeps_what_the_call_was_reserved_with(customer):
    # Given a reservation for a number with a specific rate
    customer.rate(Rate(120 * CENT, 1), "outbound:+44")
    customer.pay(900)
    ours = expired(customer, paired=False, number="+442012345678", seconds=30)
    # And a different rate since then
    customer.do(
        lambda s: s.execute(
            text(
                "UPDATE call_rates SET micros_per_minute = 1, set_at = :now"
                " WHERE organization_id = :org AND route = 'outbound:+44'"
            ),
            {"org": customer.id, "now": later(900)},
        )
    )
    customer.report_status(
        vapi_id(customer), "in_progress", later(940), direction="outbound", **ours
    )
    call = going_on(customer)
    assert (call.rate_route, call.their_party, call.origin) == (
        "outbound:+44",
        "…5678",
        "reserved",
    )
    # Then it costs the rate of its reservation
    customer.report(
        vapi_id(customer),
        10,
        later(950),
        direction="outbound",
        their_number="+442012345678",
        **ours,
    )
    assert customer.cents() == (980, 0, 0)


def test_call_that_was_admitted_is_held_for_again_when_it_talks(customer):
    # Given an admitted caller whose call Vapi did not know for long
    call_id = customer.admit_call(external_id=vapi_id(customer))
    report_absent(customer, later(1_000), call_id)
    assert customer.hold(call_id).status == "expired"
    customer.report_status(vapi_id(customer), "in_progress", later(1_010))
    call = customer.call(customer.call(call_id).merged_into)
    assert (call.origin, call.max_duration_seconds, call.end_cause) == ("admitted", 100, None)
    assert customer.cents() == (100, 60, 0)
    customer.report(vapi_id(customer), 20, later(1_030))
    assert customer.cents() == (80, 0, 0)


def test_call_that_was_withdrawn_is_held_for_again_when_it_talks(customer):
    customer.reserve("c1", seconds=30, provider=None)
    ours = customer.metadata("c1")
    assert customer.do(lambda s: withdraw(s, customer.id, "c1", later(5)))
    customer.report_status(vapi_id(customer), "in_progress", later(10), **ours)
    assert (customer.cents(), going_on(customer).end_cause) == ((100, 60, 0), None)
    customer.report(vapi_id(customer), 20, later(30), **ours)
    assert customer.cents() == (80, 0, 0)


def test_call_is_held_for_again_when_a_refresh_finds_it_talking(customer):
    expired(customer)
    customer.refresh(customer.call("c1"), "in_progress", later(940), started_at=later(935))
    call = going_on(customer)
    assert (call.metered_from, customer.cents()) == (later(935), (100, 60, 0))
    # And a second refresh is about the same call
    customer.refresh(call, "ended", later(960), duration_ms=20_000)
    assert customer.cents() == (80, 0, 0)


def test_refresh_under_the_reservations_id_reaches_the_replacing_call(customer):
    # Given a refresh that was staged under the reservation's ID
    expired(customer)
    asked = customer.call("c1")
    customer.report_status(vapi_id(customer), "in_progress", later(940))
    # When its responses arrive after the second hold
    customer.refresh(asked, "in_progress", later(941), started_at=later(940))
    assert going_on(customer).status == "in_progress"
    customer.refresh(asked, "ended", later(960), duration_ms=20_000)
    assert (customer.cents(), going_on(customer).settled_by) == ((80, 0, 0), "look")


def test_company_names_vapis_id_after_the_expiry_and_before_the_call(customer):
    ours = expired(customer, paired=False)
    again = customer.reserve("c1", provider=vapi_id(customer), now=later(935))
    assert again.outcome.outcome == "CALL_SETTLED"
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    assert (customer.cents(), going_on(customer).end_cause) == ((100, 60, 0), None)
    # And a repeated reservation returns the call that replaces it
    assert (
        customer.reserve("c1", provider=vapi_id(customer), now=later(941)).call.id
        == going_on(customer).id
    )


# Refused


def test_second_hold_takes_what_is_available_if_less_than_a_step(customer):
    ours = expired(customer, paired=False)
    _spend(customer, 75)
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    assert (customer.cents(), going_on(customer).end_cause) == ((25, 25, 0), None)


@pytest.mark.parametrize("why", ["frozen", "inactive", "no money"])
def test_call_is_ended_when_its_second_hold_is_refused(customer, why):
    ours = expired(customer, paired=False)
    if why == "no money":
        _spend(customer, 100)
    else:
        customer.freeze(later(935), "subscription_inactive" if why == "inactive" else "manual")
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    call = going_on(customer)
    cause = "insufficient_funds" if why == "no money" else "frozen_wallet"
    assert (call.end_cause, customer.jobs("end_call")) == (cause, [call.id])
    assert customer.hold(call.id) is None
    # And its cost until then is charged once
    customer.report(vapi_id(customer), 4, later(944), **ours)
    assert charges(customer) == ([] if why == "no money" else [(f"call:{call.id}:commit", 4)])
    assert customer.cents()[1:] == (0, 4 if why == "no money" else 0)


def test_call_is_lent_the_debt_limit_when_nothing_is_available(customer):
    customer.debt(50)
    ours = expired(customer, paired=False)
    _spend(customer, 100)
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    call = going_on(customer)
    assert (call.end_cause, call.tick_at) == (None, later(940))
    customer.tick(later(940))
    assert (customer.call(call.id).debt_micros, customer.call(call.id).end_cause) == (
        50 * CENT,
        None,
    )
    # And new money is held for it
    customer.pay(100)
    customer.tick(later(985))
    assert (customer.call(call.id).end_cause, customer.hold(call.id).status) == (None, "open")
    customer.report(vapi_id(customer), 60, later(1_000), **ours)
    assert customer.cents() == (40, 0, 0)


def test_call_that_was_to_end_gets_no_second_hold(customer):
    customer.reserve("c1", provider=None)
    ours = customer.metadata()
    assert customer.decide("c1", later(5))
    customer.do(lambda s: expire_unreported(s, customer.id, later(OVER)))
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    assert (customer.cents(), customer.call("c1").merged_into) == ((100, 0, 0), None)


@pytest.mark.parametrize("is_report", [True, False])
def test_call_that_is_over_takes_no_second_hold(customer, is_report):
    # Given a call that is over: by a final report whose status is still in progress, or by an
    # earlier message
    ours = expired(customer, paired=False)
    if is_report:
        customer.report_status(
            vapi_id(customer), "in_progress", later(960), final=True, duration_ms=20_000, **ours
        )
        assert customer.cents() == (80, 0, 0)
    else:
        execute(
            customer.database,
            "UPDATE calls SET status = 'ended', ended_seen_at = settled_at, provider_call_id = :v"
            " WHERE organization_id = :org",
            v=vapi_id(customer),
            org=customer.id,
        )
        customer.report_status(vapi_id(customer), "in_progress", later(960), **ours)
        assert customer.cents() == (100, 0, 0)
    assert (customer.call("c1").merged_into, customer.call("c1").status) == (None, "ended")


def test_late_message_of_a_call_that_is_over_takes_no_second_hold(customer):
    ours = expired(customer, paired=False)
    customer.report(vapi_id(customer), 20, later(1_000), **ours)
    customer.report_status(vapi_id(customer), "in_progress", later(1_001), **ours)
    assert (customer.cents(), customer.call("c1").merged_into) == ((80, 0, 0), None)


# Concurrency


def test_two_reports_at_once_take_one_second_hold(customer):
    ours = expired(customer, paired=False)
    statuses = ["in_progress", "in_progress", "ringing", "forwarding"]
    jobs = [
        with_retries(
            lambda status=status: customer.report_status(
                vapi_id(customer), status, later(940), **ours
            )
        )
        for status in statuses * 2
    ]
    assert at_once(jobs) == [True] * 8
    assert (customer.cents(), len(customer.calls())) == ((100, 60, 0), 2)
    customer.report(vapi_id(customer), 20, later(960), **ours)
    assert customer.cents() == (80, 0, 0)


def test_report_finds_the_call_that_another_report_makes_meanwhile(customer, monkeypatch):
    # Given a report that has found no call of the provider yet
    ours = expired(customer, paired=False)
    named = pairing._named_reservation

    def after_another(session, facts):
        monkeypatch.setattr(pairing, "_named_reservation", named)
        assert customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
        return named(session, facts)

    monkeypatch.setattr(pairing, "_named_reservation", after_another)
    # When another report moves the reservation to the call, then the first one finds that call
    assert customer.report_status(vapi_id(customer), "ringing", later(941), **ours)
    assert (customer.cents(), len(customer.calls())) == ((100, 60, 0), 2)


def test_report_behind_a_report_is_about_the_call_that_goes_on(shared, shared_urls, customer):
    expired(customer)

    def first(session):
        _report_status_in(session, customer, "in_progress", later(940))

    applied = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        first,
        lambda: customer.report_status(vapi_id(customer), "ringing", later(941)),
    )
    assert (applied, len(customer.calls()), customer.cents()) == (True, 2, (100, 60, 0))


def test_report_behind_the_expiry_takes_a_second_hold(shared, shared_urls, customer):
    customer.reserve("c1", provider=None)
    ours = customer.metadata()
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: expire_unreported(session, customer.id, later(OVER)),
        lambda: customer.report_status(vapi_id(customer), "in_progress", later(940), **ours),
    )
    assert (customer.hold("c1").status, customer.cents()) == ("expired", (100, 60, 0))


def test_expiry_behind_a_report_leaves_the_first_hold(shared, shared_urls, customer):
    customer.reserve("c1", provider=None)
    ours = customer.metadata()
    done = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: _report_status_in(session, customer, "in_progress", later(OVER), **ours),
        lambda: customer.do(lambda s: expire_unreported(s, customer.id, later(OVER))),
    )
    assert (done, customer.hold("c1").status, len(customer.calls())) == ([], "open", 1)
    customer.report(vapi_id(customer), 20, later(950), **ours)
    assert charges(customer) == [("call:c1:commit", 20)]


def test_answer_that_the_call_is_absent_behind_a_report_leaves_it(shared, shared_urls, customer):
    expired(customer)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: _report_status_in(session, customer, "in_progress", later(940)),
        lambda: customer.do(lambda s: watch.call_is_absent(s, customer.id, "c1", later(941))),
    )
    assert (customer.cents(), going_on(customer).settled_at) == ((100, 60, 0), None)


def test_report_behind_a_freeze_has_the_call_ended(shared, shared_urls, customer):
    ours = expired(customer, paired=False)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: wallet_freezes.freeze(s, customer.id, "manual", operator=ANN, now=later(939)),
        lambda: customer.report_status(vapi_id(customer), "in_progress", later(940), **ours),
    )
    assert (going_on(customer).end_cause, customer.cents()) == ("frozen_wallet", (100, 0, 0))


def test_reports_expiry_ticks_and_freeze_at_once_charge_once(customer):
    customer.reserve("c1", provider=None)
    ours = customer.metadata()
    talks = with_retries(
        lambda: customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    )
    jobs = [
        with_retries(lambda: customer.do(lambda s: expire_unreported(s, customer.id, later(OVER)))),
        with_retries(lambda: customer.tick(later(941))),
        with_retries(lambda: customer.freeze(later(941))),
    ]
    results = at_once([talks, *jobs, talks, talks])
    assert not [one for one in results if isinstance(one, BaseException)]
    at_once([with_retries(lambda: customer.report(vapi_id(customer), 20, later(960), **ours))] * 3)
    assert customer.cents() == (80, 0, 0)
    assert [cents for _, cents in charges(customer)] == [20]


class Died(BaseException):
    """Simulates that the process was killed."""


def dies_after(customer, statements, work):
    """Run `work`, raise Died after so many statements, and return whether it died."""
    left = [statements]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Died

    event.listen(customer.database.engine, "after_cursor_execute", count)
    try:
        work()
    except Died:
        return True
    finally:
        event.remove(customer.database.engine, "after_cursor_execute", count)
    return False


def test_second_hold_is_whole_or_not_there_when_the_process_dies(customer):
    ours = expired(customer, paired=False)
    before = _all_of(customer)
    deaths = 0
    # When the process dies after its first, second, third ... statement
    while dies_after(
        customer,
        deaths + 1,
        lambda: customer.report_status(vapi_id(customer), "in_progress", later(940), **ours),
    ):
        deaths += 1
        # Then nothing of the second hold is stored, and the report can be applied again
        assert _all_of(customer) == before
    assert deaths > 10
    assert (customer.cents(), going_on(customer).end_cause) == ((100, 60, 0), None)
    customer.report(vapi_id(customer), 20, later(960), **ours)
    assert customer.cents() == (80, 0, 0)


def _spend(customer, cents):
    assert debit(customer.database, customer.id, cents * CENT).ok


def _report_status_in(session, customer, status, now, **more):
    report = CallReport(customer.facts(vapi_id(customer), status, **more), final=False)
    assert status_updates.apply_report(session, report, now, now)


def _all_of(customer):
    rows = customer.do(
        lambda s: [
            s.execute(
                text(f"SELECT t::text FROM {table} t WHERE organization_id = :org ORDER BY 1"),
                {"org": customer.id},
            ).all()
            for table in ("calls", "call_timeline", "jobs")
        ]
    )
    return [everything(customer.database, customer.id), rows]
