"""The clock of a real server is set while calls are live and jobs wait."""

from __future__ import annotations

import contextlib

import pytest
from sqlalchemy import text

from base.outcomes import NotYet, OutcomeUnknown
from db.engine import Database
from db.jobs import due
from db.logins import set_password
from db.migrate import migrate
from db.models import Alert
from domain.calls.rates import Rate
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.jobs.support import change, claim, stage
from tests.domain.calls.support import CallCustomer
from tests.support.stepping import MISSING, stepping_server
from tests.support.world import make_organization
from tests.workers.scenes import eventually
from workers.meter import Meter

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
HOUR = 3_600.0


@pytest.fixture(scope="module")
def server():
    with stepping_server() as made:
        migrate(made.owner_url)
        set_password(made.owner_url, "holdfast_app", PASSWORD)
        yield made


@pytest.fixture
def stepping(server):
    """Set the true time, delete all jobs, and provide a database pool."""
    server.set_clock(0)
    made = Database(derive_app_url(server.owner_url, PASSWORD), name="test", pool_size=4)
    made.run(
        lambda s: [s.execute(text(f"DELETE FROM {table}")) for table in ("job_attempts", "jobs")]
    )
    yield made
    made.close()
    server.set_clock(0)


def tick(meter):
    """Tick as the meter does: setting the clock may make the server end a transaction."""
    with contextlib.suppress(NotYet, OutcomeUnknown):
        meter.tick_once()
    return True


def talking(database, *, seconds):
    """Start a call of an organization that has money for `seconds` seconds."""
    customer = CallCustomer(database, make_organization(database), cents=seconds)
    customer.rate(Rate(600_000, 1))
    now = database.now()
    customer.reserve(seconds=seconds, now=now)
    customer.report_status(customer.call(), "in_progress", now)
    return customer


def ended(customer):
    return customer.call().end_decided_at is not None


def steps(database):
    rows = database.run(lambda s: s.query(Alert).filter_by(kind="clock_stepped").all())
    return [round(one.details["seconds"]) for one in rows if one.cleared_at is None]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_call_is_ended_in_time_when_the_clock_steps(server, stepping, ahead):
    # Given a call with money for 15 s, and a running meter
    meter = Meter(stepping)
    tick(meter)
    before = len(steps(stepping))
    customer = talking(stepping, seconds=15)
    tick(meter)
    assert not ended(customer)
    # When the clock is set an hour ahead or back
    server.set_clock(ahead)

    def is_ended():
        tick(meter)
        return ended(customer)

    # Then the call is ended before its money runs out, and an alert reports the step
    assert eventually(is_ended)
    assert eventually(lambda: tick(meter) and len(steps(stepping)) > before)
    assert steps(stepping)[-1] == pytest.approx(ahead, abs=5)


def test_call_goes_on_when_the_clock_steps_back(server, stepping):
    # Given a call with money for a long talk
    meter = Meter(stepping)
    tick(meter)
    customer = talking(stepping, seconds=3_000)
    tick(meter)
    server.set_clock(-HOUR)
    before = len(steps(stepping))
    assert eventually(lambda: tick(meter) and len(steps(stepping)) > before)
    # Then the call is not ended, and its metered time does not include the step
    assert not ended(customer)
    talked = (stepping.now() - customer.call().metered_from).total_seconds()
    assert 0 <= talked < 120


def test_suspension_is_due_in_time_when_the_clock_steps_back(server, stepping):
    # Given a retry that is due in 1.6 s, and a running meter
    meter = Meter(stepping)
    tick(meter)
    job_id = stage(stepping)
    claim(stepping, job_id)
    change(
        stepping,
        job_id,
        "lease_until = NULL, due_at = clock_timestamp() + interval '1.6 s',"
        " ring_at = clock_timestamp() + interval '1.6 s'",
    )
    # When the clock is set back by ten minutes, so the job looks like a retry with a long wait
    server.set_clock(-600)

    def is_due():
        tick(meter)
        return stepping.run(lambda s: due.take_due_safety(s, ["work"])) == [job_id]

    assert eventually(is_due)
