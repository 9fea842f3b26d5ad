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
from tests.db.support import at_once, one_behind_the_other, patiently
from tests.domain.calls.support import CENT, OVER, absent, execute
from tests.domain.support import ANN, debit, later
from tests.domain.wallet.hold_support import everything


def name(line):
    return f"v-{line.id}"[:64]


def expired(line, *, paired=True, **more):
    """Reserve a call for 30 s, let its hold expire, and return how a report names it."""
    line.reserve("c1", provider=name(line) if paired else None, **more)
    ours = {} if paired else line.metadata("c1")
    if paired:
        absent(line, later(OVER))
    else:
        assert line.do(lambda s: expire_unreported(s, line.id, later(OVER))) == ["c1"]
    assert (line.hold().status, line.call().settled_by) == ("expired", "expiry")
    return ours


def going_on(line):
    """Return the call that replaces the reservation."""
    return line.call(line.call("c1").merged_into)


def charges(line):
    """List the keys and cents of the entries that charged calls."""
    rows = line.do(
        lambda s: s.execute(
            text(
                "SELECT operation_key, amount_micros FROM wallet_entries"
                " WHERE organization_id = :org AND kind = 'call' ORDER BY entry_no"
            ),
            {"org": line.id},
        ).all()
    )
    return [(key, micros / CENT) for key, micros in rows]


# A second hold


@pytest.mark.parametrize("paired", [True, False])
def test_call_is_held_for_again_when_it_talks_after_its_expiry(line, paired):
    # Given plenty of money, and a reservation whose hold has expired
    line.pay(900)
    ours = expired(line, paired=paired, appointment_id="visit")
    gone = line.hold("c1")
    # When the call is dialled nevertheless
    line.hear(name(line), "in_progress", later(940), direction="outbound", **ours)
    # Then it gets the hold of an unreserved call, is metered, and continues
    assert line.cents() == (1000, 60, 0)
    call = going_on(line)
    assert (call.status, call.end_cause, call.tick_at) == ("in_progress", None, later(940))
    assert line.tick(later(940 + 53)) == TickResult(extended=1)
    # And its report charges it once and leaves no hold; the expiry is unchanged
    for second in (1040, 1041):
        line.report(name(line), 100, later(second), direction="outbound", **ours)
    assert line.cents() == (900, 0, 0)
    assert charges(line) == [(f"call:{call.id}:commit", 100)]
    assert line.call("c1").settled_by == "merged"
    now = line.hold("c1")
    assert (now.status, now.settled_at, now.billed_micros) == ("expired", gone.settled_at, None)
    # And both IDs and the appointment find it
    for one in ("c1", call.id, "visit", name(line)):
        seen = line.do(
            lambda s, one=one: call_queries.see_call(s, call_queries.find_call(s, one, line.id))
        )
        assert (seen.call.id, seen.merged) == (call.id, ["c1"])
    assert line.commit("c1", 100, later(1050)).outcome.replayed


def test_second_hold_keeps_what_the_call_was_reserved_with(line):
    # Given a reservation for a number with a specific rate
    line.rate(Rate(120 * CENT, 1), "outbound:+44")
    line.pay(900)
    ours = expired(line, paired=False, number="+442012345678", seconds=30)
    # And a different rate since then
    line.do(
        lambda s: s.execute(
            text(
                "UPDATE call_rates SET micros_per_minute = 1, set_at = :now"
                " WHERE organization_id = :org AND route = 'outbound:+44'"
            ),
            {"org": line.id, "now": later(900)},
        )
    )
    line.hear(name(line), "in_progress", later(940), direction="outbound", **ours)
    call = going_on(line)
    assert (call.rate_route, call.their_party, call.origin) == (
        "outbound:+44",
        "…5678",
        "reserved",
    )
    # Then it costs the rate of its reservation
    line.report(
        name(line), 10, later(950), direction="outbound", their_number="+442012345678", **ours
    )
    assert line.cents() == (980, 0, 0)


def test_call_that_was_admitted_is_held_for_again_when_it_talks(line):
    # Given an admitted caller whose call Vapi did not know for long
    call_id = line.let_in(external_id=name(line))
    absent(line, later(1_000), call_id)
    assert line.hold(call_id).status == "expired"
    line.hear(name(line), "in_progress", later(1_010))
    call = line.call(line.call(call_id).merged_into)
    assert (call.origin, call.max_duration_seconds, call.end_cause) == ("admitted", 100, None)
    assert line.cents() == (100, 60, 0)
    line.report(name(line), 20, later(1_030))
    assert line.cents() == (80, 0, 0)


def test_call_that_was_withdrawn_is_held_for_again_when_it_talks(line):
    line.reserve("c1", seconds=30, provider=None)
    ours = line.metadata("c1")
    assert line.do(lambda s: withdraw(s, line.id, "c1", later(5)))
    line.hear(name(line), "in_progress", later(10), **ours)
    assert (line.cents(), going_on(line).end_cause) == ((100, 60, 0), None)
    line.report(name(line), 20, later(30), **ours)
    assert line.cents() == (80, 0, 0)


def test_call_is_held_for_again_when_a_refresh_finds_it_talking(line):
    expired(line)
    line.refresh(line.call("c1"), "in_progress", later(940), started_at=later(935))
    call = going_on(line)
    assert (call.metered_from, line.cents()) == (later(935), (100, 60, 0))
    # And a second refresh is about the same call
    line.refresh(call, "ended", later(960), duration_ms=20_000)
    assert line.cents() == (80, 0, 0)


def test_refresh_under_the_reservations_id_reaches_the_replacing_call(line):
    # Given a refresh that was staged under the reservation's ID
    expired(line)
    asked = line.call("c1")
    line.hear(name(line), "in_progress", later(940))
    # When its responses arrive after the second hold
    line.refresh(asked, "in_progress", later(941), started_at=later(940))
    assert going_on(line).status == "in_progress"
    line.refresh(asked, "ended", later(960), duration_ms=20_000)
    assert (line.cents(), going_on(line).settled_by) == ((80, 0, 0), "look")


def test_company_names_vapis_id_after_the_expiry_and_before_the_call(line):
    ours = expired(line, paired=False)
    again = line.reserve("c1", provider=name(line), now=later(935))
    assert again.outcome.outcome == "CALL_SETTLED"
    line.hear(name(line), "in_progress", later(940), **ours)
    assert (line.cents(), going_on(line).end_cause) == ((100, 60, 0), None)
    # And a repeated reservation returns the call that replaces it
    assert line.reserve("c1", provider=name(line), now=later(941)).call.id == going_on(line).id


# Refused


def test_second_hold_takes_what_is_available_if_less_than_a_step(line):
    ours = expired(line, paired=False)
    _spend(line, 75)
    line.hear(name(line), "in_progress", later(940), **ours)
    assert (line.cents(), going_on(line).end_cause) == ((25, 25, 0), None)


@pytest.mark.parametrize("why", ["frozen", "inactive", "no money"])
def test_call_is_ended_when_its_second_hold_is_refused(line, why):
    ours = expired(line, paired=False)
    if why == "no money":
        _spend(line, 100)
    else:
        line.freeze(later(935), "subscription_inactive" if why == "inactive" else "manual")
    line.hear(name(line), "in_progress", later(940), **ours)
    call = going_on(line)
    cause = "insufficient_funds" if why == "no money" else "frozen_wallet"
    assert (call.end_cause, line.jobs("end_call")) == (cause, [call.id])
    assert line.hold(call.id) is None
    # And its cost until then is charged once
    line.report(name(line), 4, later(944), **ours)
    assert charges(line) == ([] if why == "no money" else [(f"call:{call.id}:commit", 4)])
    assert line.cents()[1:] == (0, 4 if why == "no money" else 0)


def test_call_is_lent_the_debt_limit_when_nothing_is_available(line):
    line.debt(50)
    ours = expired(line, paired=False)
    _spend(line, 100)
    line.hear(name(line), "in_progress", later(940), **ours)
    call = going_on(line)
    assert (call.end_cause, call.tick_at) == (None, later(940))
    line.tick(later(940))
    assert (line.call(call.id).debt_micros, line.call(call.id).end_cause) == (50 * CENT, None)
    # And new money is held for it
    line.pay(100)
    line.tick(later(985))
    assert (line.call(call.id).end_cause, line.hold(call.id).status) == (None, "open")
    line.report(name(line), 60, later(1_000), **ours)
    assert line.cents() == (40, 0, 0)


def test_call_that_was_to_end_gets_no_second_hold(line):
    line.reserve("c1", provider=None)
    ours = line.metadata()
    assert line.decide("c1", later(5))
    line.do(lambda s: expire_unreported(s, line.id, later(OVER)))
    line.hear(name(line), "in_progress", later(940), **ours)
    assert (line.cents(), line.call("c1").merged_into) == ((100, 0, 0), None)


@pytest.mark.parametrize("is_report", [True, False])
def test_call_that_is_over_takes_no_second_hold(line, is_report):
    # Given a call that is over: by a final report whose status is still in progress, or by an
    # earlier message
    ours = expired(line, paired=False)
    if is_report:
        line.hear(name(line), "in_progress", later(960), final=True, duration_ms=20_000, **ours)
        assert line.cents() == (80, 0, 0)
    else:
        execute(
            line.database,
            "UPDATE calls SET status = 'ended', ended_seen_at = settled_at, provider_call_id = :v"
            " WHERE organization_id = :org",
            v=name(line),
            org=line.id,
        )
        line.hear(name(line), "in_progress", later(960), **ours)
        assert line.cents() == (100, 0, 0)
    assert (line.call("c1").merged_into, line.call("c1").status) == (None, "ended")


def test_late_message_of_a_call_that_is_over_takes_no_second_hold(line):
    ours = expired(line, paired=False)
    line.report(name(line), 20, later(1_000), **ours)
    line.hear(name(line), "in_progress", later(1_001), **ours)
    assert (line.cents(), line.call("c1").merged_into) == ((80, 0, 0), None)


# Concurrency


def test_two_reports_at_once_take_one_second_hold(line):
    ours = expired(line, paired=False)
    statuses = ["in_progress", "in_progress", "ringing", "forwarding"]
    jobs = [
        patiently(lambda status=status: line.hear(name(line), status, later(940), **ours))
        for status in statuses * 2
    ]
    assert at_once(jobs) == [True] * 8
    assert (line.cents(), len(line.calls())) == ((100, 60, 0), 2)
    line.report(name(line), 20, later(960), **ours)
    assert line.cents() == (80, 0, 0)


def test_report_finds_the_call_that_another_report_makes_meanwhile(line, monkeypatch):
    # Given a report that has found no call of the provider yet
    ours = expired(line, paired=False)
    named = pairing._reservation_named

    def after_another(session, facts):
        monkeypatch.setattr(pairing, "_reservation_named", named)
        assert line.hear(name(line), "in_progress", later(940), **ours)
        return named(session, facts)

    monkeypatch.setattr(pairing, "_reservation_named", after_another)
    # When another report moves the reservation to the call, then the first one finds that call
    assert line.hear(name(line), "ringing", later(941), **ours)
    assert (line.cents(), len(line.calls())) == ((100, 60, 0), 2)


def test_report_behind_a_report_is_about_the_call_that_goes_on(shared, shared_urls, line):
    expired(line)

    def first(session):
        _hear_in(session, line, "in_progress", later(940))

    heard = one_behind_the_other(
        shared, shared_urls.owner_url, first, lambda: line.hear(name(line), "ringing", later(941))
    )
    assert (heard, len(line.calls()), line.cents()) == (True, 2, (100, 60, 0))


def test_report_behind_the_expiry_takes_a_second_hold(shared, shared_urls, line):
    line.reserve("c1", provider=None)
    ours = line.metadata()
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: expire_unreported(session, line.id, later(OVER)),
        lambda: line.hear(name(line), "in_progress", later(940), **ours),
    )
    assert (line.hold("c1").status, line.cents()) == ("expired", (100, 60, 0))


def test_expiry_behind_a_report_leaves_the_first_hold(shared, shared_urls, line):
    line.reserve("c1", provider=None)
    ours = line.metadata()
    done = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: _hear_in(session, line, "in_progress", later(OVER), **ours),
        lambda: line.do(lambda s: expire_unreported(s, line.id, later(OVER))),
    )
    assert (done, line.hold("c1").status, len(line.calls())) == ([], "open", 1)
    line.report(name(line), 20, later(950), **ours)
    assert charges(line) == [("call:c1:commit", 20)]


def test_answer_that_the_call_is_absent_behind_a_report_leaves_it(shared, shared_urls, line):
    expired(line)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: _hear_in(session, line, "in_progress", later(940)),
        lambda: line.do(lambda s: watch.call_is_absent(s, line.id, "c1", later(941))),
    )
    assert (line.cents(), going_on(line).settled_at) == ((100, 60, 0), None)


def test_report_behind_a_freeze_has_the_call_ended(shared, shared_urls, line):
    ours = expired(line, paired=False)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: wallet_freezes.freeze(s, line.id, "manual", operator=ANN, now=later(939)),
        lambda: line.hear(name(line), "in_progress", later(940), **ours),
    )
    assert (going_on(line).end_cause, line.cents()) == ("frozen_wallet", (100, 0, 0))


def test_reports_expiry_ticks_and_freeze_at_once_charge_once(line):
    line.reserve("c1", provider=None)
    ours = line.metadata()
    talks = patiently(lambda: line.hear(name(line), "in_progress", later(940), **ours))
    jobs = [
        patiently(lambda: line.do(lambda s: expire_unreported(s, line.id, later(OVER)))),
        patiently(lambda: line.tick(later(941))),
        patiently(lambda: line.freeze(later(941))),
    ]
    results = at_once([talks, *jobs, talks, talks])
    assert not [one for one in results if isinstance(one, BaseException)]
    at_once([patiently(lambda: line.report(name(line), 20, later(960), **ours))] * 3)
    assert line.cents() == (80, 0, 0)
    assert [cents for _, cents in charges(line)] == [20]


class Died(BaseException):
    """Simulates that the process was killed."""


def dies_after(line, statements, work):
    """Run `work`, raise Died after so many statements, and return whether it died."""
    left = [statements]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Died

    event.listen(line.database.engine, "after_cursor_execute", count)
    try:
        work()
    except Died:
        return True
    finally:
        event.remove(line.database.engine, "after_cursor_execute", count)
    return False


def test_second_hold_is_whole_or_not_there_when_the_process_dies(line):
    ours = expired(line, paired=False)
    before = _all_of(line)
    deaths = 0
    # When the process dies after its first, second, third ... statement
    while dies_after(
        line, deaths + 1, lambda: line.hear(name(line), "in_progress", later(940), **ours)
    ):
        deaths += 1
        # Then nothing of the second hold is stored, and the report can be applied again
        assert _all_of(line) == before
    assert deaths > 10
    assert (line.cents(), going_on(line).end_cause) == ((100, 60, 0), None)
    line.report(name(line), 20, later(960), **ours)
    assert line.cents() == (80, 0, 0)


def _spend(line, cents):
    assert debit(line.database, line.id, cents * CENT).ok


def _hear_in(session, line, status, now, **more):
    report = CallReport(line.facts(name(line), status, **more), final=False)
    assert status_updates.apply_report(session, report, now, now)


def _all_of(line):
    rows = line.do(
        lambda s: [
            s.execute(
                text(f"SELECT t::text FROM {table} t WHERE organization_id = :org ORDER BY 1"),
                {"org": line.id},
            ).all()
            for table in ("calls", "call_timeline", "jobs")
        ]
    )
    return [everything(line.database, line.id), rows]
