"""The revisions for refused and paired calls, applied to older rows."""

from __future__ import annotations

import psycopg
import pytest

from db.address import driver_url
from db.downgrade import RowsWouldBeLost
from db.migrate import migrate

#: The revision before those for refused and paired calls.
BEFORE = "0006"
#: The revision before the one that derives how a call became known.
BEFORE_ORIGIN = "0012"
#: A call, with the reason why it is being ended, if any; and its adoption in the timeline.
CALL = """
    INSERT INTO calls (organization_id, id, direction, status, currency, micros_per_minute,
        increment_seconds, minimum_micros, end_cause, end_decided_at, created_at)
    VALUES ('org', %(id)s, %(direction)s, 'in_progress', 'USD', 60, 1, 0, %(cause)s,
        CASE WHEN %(cause)s::text IS NOT NULL THEN now() END, now())
"""
ADOPTED = (
    "INSERT INTO call_timeline (organization_id, call_id, at, what)"
    " VALUES ('org', %s, now(), 'adopted')"
)


@pytest.fixture
def url(empty_url):
    """A database of the older version, with three calls."""
    migrate(empty_url, BEFORE)
    with psycopg.connect(driver_url(empty_url), autocommit=True) as owner:
        for call_id, direction, cause in (
            ("c1", "outbound", "credit_gone"),
            ("c2", "outbound", "wallet_frozen"),
            ("c3", "inbound", None),
        ):
            owner.execute(CALL, {"id": call_id, "direction": direction, "cause": cause})
        owner.execute(ADOPTED, ["c2"])
    return empty_url


def rows(url, columns):
    with psycopg.connect(driver_url(url)) as connection:
        return connection.execute(f"SELECT {columns} FROM calls ORDER BY id").fetchall()


def test_calls_of_the_previous_version_are_converted(url):
    migrate(url)
    assert rows(url, "end_cause, origin, pairing_token") == [
        ("insufficient_funds", "reserved", None),
        ("frozen_wallet", "adopted", None),
        (None, "admitted", None),
    ]


def test_calls_without_an_origin_are_converted_by_its_revision(url):
    # Given calls without origin, as workers of the older version write them
    migrate(url, BEFORE_ORIGIN)
    with psycopg.connect(driver_url(url), autocommit=True) as owner:
        owner.execute("UPDATE calls SET origin = NULL")
        owner.execute(
            "UPDATE calls SET settled_at = now() - interval '9 days', settled_by = 'report',"
            " cost_micros = 0, created_at = now() - interval '9 days' WHERE id = 'c3'"
        )
    migrate(url)
    # Then the calls that may still be paired have one
    assert rows(url, "origin") == [("reserved",), ("adopted",), (None,)]
    # And after a downgrade the derived origins are kept
    migrate(url, BEFORE_ORIGIN)
    assert rows(url, "origin") == [("reserved",), ("adopted",), (None,)]


def test_previous_version_may_continue_to_write_its_codes(url):
    migrate(url)
    with psycopg.connect(driver_url(url)) as connection:
        connection.execute("UPDATE calls SET end_cause = 'credit_gone' WHERE id = 'c1'")


def test_refused_and_merged_calls_keep_no_price_when_going_back(url):
    migrate(url)
    with psycopg.connect(driver_url(url), autocommit=True) as owner:
        owner.execute(
            "UPDATE calls SET status = 'refused', refusal = 'NO_RATE', micros_per_minute = 0,"
            " settled_by = 'refused', settled_at = now(), cost_micros = 0 WHERE id = 'c3'"
        )
        owner.execute(
            "UPDATE calls SET settled_by = 'merged', settled_at = now(), cost_micros = 0,"
            " merged_into = 'c2' WHERE id = 'c1'"
        )
        name = owner.info.dbname
    # The downgrade names what the older version cannot store and keeps it unless the operator
    # confirms the loss.
    with pytest.raises(RowsWouldBeLost) as refused:
        migrate(url, BEFORE)
    lost = {loss.subject for loss in refused.value.losses}
    assert {"calls.refusal", "calls.merged_into"} <= lost
    migrate(url, BEFORE, destroy=name)
    assert rows(url, "status, settled_by, end_cause") == [
        ("in_progress", "api", "credit_gone"),
        ("in_progress", None, "wallet_frozen"),
        ("ended", "withdrawn", None),
    ]
