"""Calls that wait because they may belong to a charged, unpaired reservation.

Each such reservation withholds one call.
"""

from __future__ import annotations

import pytest
from sqlalchemy import event

from domain.calls import withholding
from domain.calls.rows import call_of_provider
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import execute
from tests.domain.support import later


def vapi_id(customer, mark="v"):
    return f"{mark}-{customer.id}"[:64]


def charged(customer, call_id="c1", seconds=20, at=0, **more):
    """Reserve a call without Vapi's ID at an instant, and commit it before any report."""
    assert customer.reserve(call_id, seconds=30, provider=None, now=later(at), **more).outcome.ok
    customer.commit(call_id, seconds, later(at + 21))


def report_ended(customer, mark="v", seconds=20, began=1, reported=60, **more):
    """Report an ended call without our IDs and return its row."""
    fields = {
        "direction": "outbound",
        "started_at": later(began),
        "ended_at": later(began + seconds),
    }
    customer.report(vapi_id(customer, mark), seconds, later(reported), **{**fields, **more})
    return call_of(customer, mark)


def call_of(customer, mark="v"):
    return customer.do(lambda s: call_of_provider(s, vapi_id(customer, mark)))


def waiting(customer):
    """Map the waiting calls to the reservations that they wait for."""
    return {
        str(one.provider_call_id)[0]: one.withheld_for
        for one in customer.calls()
        if one.withheld_for
    }


def refresh_again(customer, mark, seconds, began=1):
    over_at = {"started_at": later(began), "ended_at": later(began + seconds)}
    customer.refresh(
        call_of(customer, mark), "ended", later(90), duration_ms=seconds * 1000, **over_at
    )


def test_one_reservation_withholds_one_call(customer):
    # Given a charged reservation that is never paired, and three calls that overlap it
    customer.pay(100)
    charged(customer)
    for mark, seconds in (("u", 5), ("v", 10), ("w", 8)):
        report_ended(customer, mark, seconds)
    # Then one waits, and the others are charged
    assert customer.cents() == (200 - 20 - 10 - 8, 0, 0)
    assert waiting(customer) == {"u": "c1"}
    (alert,) = customer.alerts("call_unsettled")
    assert (alert.subject, "c1" in alert.details["why"]) == (call_of(customer, "u").id, True)
    # And an alert reports that any of them may belong to the reservation
    (alert,) = customer.alerts("call_ambiguous")
    assert (alert.subject, alert.severity) == ("c1", "warning")
    assert alert.details["withheld"] == call_of(customer, "u").id
    assert call_of(customer, "v").oddities == call_of(customer, "w").oddities == ["may_be_reserved"]


def test_as_many_calls_wait_as_reservations_were_charged(customer):
    customer.pay(200)
    for one in ("c1", "c2"):
        charged(customer, one)
    for mark in "tuvw":
        report_ended(customer, mark, 20)
    assert customer.cents() == (300 - 40 - 40, 0, 0)
    assert waiting(customer) == {"t": "c1", "u": "c2"}


def test_call_with_the_charged_duration_waits_in_anothers_stead(customer):
    # Given a call that waits although its duration differs from the charged one
    charged(customer, seconds=20)
    report_ended(customer, "u", 5)
    assert waiting(customer) == {"u": "c1"}
    # When a call with the charged duration arrives, Then it waits, and the first one is charged
    report_ended(customer, "v", 20)
    assert (waiting(customer), customer.cents()) == ({"v": "c1"}, (80, 0, 0))
    assert customer.jobs("look_at_call") == [call_of(customer, "u").id]
    refresh_again(customer, "u", 5)
    assert customer.cents() == (75, 0, 0)
    assert [one.subject for one in customer.alerts("call_unsettled")] == [call_of(customer, "v").id]
    # And once it is paired, each of the two was charged once
    customer.commit("c1", 20, later(100), vapi_id(customer, "v"))
    assert (customer.cents(), waiting(customer)) == ((75, 0, 0), {})
    assert customer.alerts("call_unsettled") == customer.alerts("call_ambiguous") == []


def test_call_that_waited_is_charged_when_the_reservation_is_another(customer):
    # Given a call that waits, and the reservation's real call, which is not reported yet
    charged(customer)
    call = report_ended(customer, "u", 20)
    # When the company names the real call
    customer.commit("c1", 20, later(70), vapi_id(customer, "w"))
    # Then the waiting call is refreshed and charged
    assert (customer.jobs("look_at_call"), waiting(customer)) == ([call.id], {})
    refresh_again(customer, "u", 20)
    assert (customer.cents(), customer.alerts("call_unsettled")) == ((60, 0, 0), [])
    # And the real call is not charged again
    report_ended(customer, "w", 20, reported=95)
    assert customer.cents() == (60, 0, 0)


def test_call_that_waited_is_charged_when_a_token_pairs_the_reservation(customer):
    charged(customer)
    call = report_ended(customer, "u", 20)
    report_ended(customer, "w", 20, reported=70, **customer.metadata("c1"))
    assert (customer.jobs("look_at_call"), waiting(customer)) == ([call.id], {})
    refresh_again(customer, "u", 20)
    assert customer.cents() == (60, 0, 0)


def test_call_waits_for_another_reservation_when_its_own_is_paired(customer):
    for one in ("c1", "c2"):
        charged(customer, one)
    report_ended(customer, "u", 20)
    assert waiting(customer) == {"u": "c1"}
    customer.commit("c1", 20, later(70), vapi_id(customer, "w"))
    refresh_again(customer, "u", 20)
    assert (waiting(customer), customer.cents()) == ({"u": "c2"}, (60, 0, 0))


def test_calls_exchange_their_reservations_so_that_none_is_charged_twice(customer):
    # Given reservations c1 for any number and c2 for a specific number, and a call that fits both
    # and waits for c1
    charged(customer, "c1", 10)
    charged(customer, "c2", 20, number="+15550001234")
    report_ended(customer, "u", 10, their_party="…1234")
    assert waiting(customer) == {"u": "c1"}
    # When a call arrives that fits only c1, Then the first call waits for c2
    report_ended(customer, "v", 10, their_party="…9999")
    assert waiting(customer) == {"u": "c2", "v": "c1"}
    assert customer.cents() == (70, 0, 0)
    fields = {one.subject: one.details["why"] for one in customer.alerts("call_unsettled")}
    assert "reservation c2" in fields[call_of(customer, "u").id]
    # And a third call belongs to no reservation
    report_ended(customer, "w", 10, their_party="…1234")
    assert customer.cents() == (60, 0, 0)


@pytest.mark.parametrize("differs", ["number", "before", "after", "inbound", "web"])
def test_call_that_cannot_be_a_reservation_is_charged_at_once(customer, differs):
    charged(customer, at=100, number="+15550001234")
    given = {"began": 101, "reported": 160}
    if differs == "number":
        given["their_party"] = "…9999"
    elif differs == "before":
        given["began"] = 50
    elif differs == "after":
        given["began"] = 130
    else:
        given["direction"] = differs
    report_ended(customer, "v", 5, **given)
    assert (customer.cents(), waiting(customer)) == ((75, 0, 0), {})
    assert customer.alerts("call_ambiguous") == []


def test_waiting_call_keeps_waiting_when_its_report_is_repeated(customer):
    charged(customer)
    for reported in (60, 61):
        report_ended(customer, "u", 20, reported=reported)
    refresh_again(customer, "u", 20)
    assert (waiting(customer), customer.cents()) == ({"u": "c1"}, (80, 0, 0))
    assert len(customer.alerts("call_unsettled")) == 1


def test_waiting_call_is_charged_when_its_number_turns_out_different(customer):
    charged(customer, number="+15550001234")
    report_ended(customer, "u", 5)
    assert waiting(customer) == {"u": "c1"}
    report_ended(customer, "u", 5, reported=61, their_party="…9999")
    assert (customer.cents(), waiting(customer), customer.alerts("call_unsettled")) == (
        (75, 0, 0),
        {},
        [],
    )


def test_manual_settlement_frees_the_reservation_for_another_call(customer):
    charged(customer)
    call = report_ended(customer, "u", 5)
    customer.settle_manually(call.id, 5, later(70))
    report_ended(customer, "v", 10, reported=71)
    assert (waiting(customer), customer.cents()) == ({"v": "c1"}, (75, 0, 0))


def test_commit_is_not_refused_for_a_call_that_waits_for_another(customer):
    # Given a second reservation, and a call that waits for the first
    customer.reserve("c2", seconds=30, provider=None)
    charged(customer)
    report_ended(customer, "u", 20)
    # When the second is committed, Then it is charged, and a further call waits for it
    customer.commit("c2", 10, later(65))
    report_ended(customer, "v", 10, reported=66)
    assert (waiting(customer), customer.cents()) == ({"u": "c1", "v": "c2"}, (70, 0, 0))


def test_there_are_never_more_charges_than_calls(customer):
    # Given four charged reservations and six calls, reported at once from real threads
    customer.pay(900)
    for number in range(4):
        charged(customer, f"c{number}", 20)
    jobs = [
        with_retries(lambda mark=mark: report_ended(customer, mark, 20)) for mark in "pqrstu"
    ] * 2
    results = at_once(jobs)
    assert not [one for one in results if isinstance(one, BaseException)]
    assert customer.cents() == (1000 - 6 * 20, 0, 0)
    assert sorted(waiting(customer).values()) == ["c0", "c1", "c2", "c3"]


def test_double_charge_is_alerted_when_the_company_pairs_a_charged_call(customer):
    # Given a call that was charged because another call waits for the reservation
    charged(customer)
    report_ended(customer, "u", 20)
    report_ended(customer, "v", 20, reported=61)
    assert customer.cents() == (60, 0, 0)
    # When the company pairs the charged call with the reservation
    customer.commit("c1", 20, later(70), vapi_id(customer, "v"))
    # Then there are two charges, the other call still waits, and an alert is raised
    assert (customer.cents(), waiting(customer)) == ((60, 0, 0), {"u": "c1"})
    assert len(customer.alerts("call_charged_twice")) == 1


def test_call_waits_for_an_operator_when_too_many_reservations_match(customer, monkeypatch):
    monkeypatch.setattr(withholding, "_COMPARED_MAX", 2)
    customer.pay(100)
    for number in range(3):
        charged(customer, f"c{number}", 20)
    for mark in "uvw":
        report_ended(customer, mark, 20)
    report_ended(customer, "x", 20)
    assert customer.cents() == (200 - 60, 0, 0)
    why = [one.details["why"] for one in customer.alerts("call_unsettled")]
    assert sum("more than 2 charged" in one for one in why) == 1


#: Reservations of half a day, all charged, none paired.
_CROWD = """
    INSERT INTO calls (organization_id, id, direction, status, origin, currency, micros_per_minute,
        increment_seconds, minimum_micros, duration_ms, cost_micros, settled_by, settled_at,
        created_at)
    SELECT :org, 'crowd' || n, 'outbound', 'admitted', 'reserved', 'USD', 600000, 1, 0, 20000,
        200000, 'api', t + interval '20 seconds', t
    FROM (SELECT n, :now + n * interval '2 seconds' AS t FROM generate_series(-20000, -20) n) x
"""


@pytest.fixture
def crowd(customer):
    """An organization with twenty thousand charged reservations before its call."""
    execute(customer.database, _CROWD, org=customer.id, now=later(0))
    return customer


def report_watched(customer, when, listener):
    """Report a call while a listener receives each statement."""
    event.listen(customer.database.engine, when, listener)
    try:
        fields = {"direction": "outbound", "started_at": later(60), "ended_at": later(80)}
        customer.report(vapi_id(customer), 20, later(90), **fields)
    finally:
        event.remove(customer.database.engine, when, listener)
    assert customer.cents() == (80, 0, 0)


def test_reservations_that_ended_before_are_not_fetched(crowd):
    fetched = []

    def count(connection, cursor, *_: object) -> None:
        fetched.append(cursor.rowcount)

    report_watched(crowd, "after_cursor_execute", count)
    assert max(fetched) < 100


def test_reservations_that_ended_before_are_not_read(crowd):
    plans = []

    def explain(connection, cursor, statement, parameters, *_: object) -> None:
        if "held_by" in statement and "EXPLAIN" not in statement:
            asked = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement
            plans.append(connection.exec_driver_sql(asked, parameters).scalar_one()[0]["Plan"])

    report_watched(crowd, "before_cursor_execute", explain)
    pages = [one["Shared Hit Blocks"] + one["Shared Read Blocks"] for one in plans]
    assert pages
    assert max(pages) < 50
