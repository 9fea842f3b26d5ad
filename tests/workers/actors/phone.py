"""A telephone for worker tests: calls at the sandbox and their rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from base.clock import wait_until
from base.enums import EndCause
from base.operators import Operator
from db.models import Alert, CallHold
from db.models.calls import Call, CallTimeline
from domain.calls import reservations
from domain.calls.ending import decide_ending
from domain.calls.rates import Rate, set_rate
from domain.calls.rows import call_and_wallet
from domain.calls.settings import Terms, set_terms
from tests.support.sandbox import SANDBOX_SECONDS
from tests.support.world import World

#: 0.01 a second, counted by the second.
RATE = Rate(600_000, 1)


class Phone:
    """A customer whose calls run at the sandbox, through one of its subaccounts."""

    def __init__(self, world: World, micros: int = 1_000_000) -> None:
        self.world = world
        self.customer = world.customer(micros=micros)
        self.id = self.customer.id
        world.do(
            lambda session, now: set_rate(
                session, self.id, RATE, operator=Operator("me", "test"), now=now
            )
        )
        self.terms(step_seconds=10, warn_before_seconds=0)

    def terms(self, **changes) -> None:
        self.world.do(
            lambda session, now: set_terms(
                session,
                self.id,
                replace(Terms(), **changes),
                operator=Operator("me", "test"),
                now=now,
            )
        )

    def call(self, seconds: int = 30, **more) -> str:
        """Start a call in progress at the sandbox, with a hold and a refreshed row."""
        call_id = self.dial(seconds, **more)
        self.run("look_at_call", call_id)
        return call_id

    def dial(self, seconds: int = 30, *, reserved_ago: float = 0, **more) -> str:
        """Start a live call that has a hold and has not been refreshed yet.

        Units: `reserved_ago` is the age of the hold, in seconds.
        """
        made = self.world.sandbox.control(
            "POST",
            "/vapi/calls",
            {
                "twilio_sid": self.customer.sids[0],
                "deliver": False,
                "queued_seconds": 0,
                "ring_seconds": 0,
                **more,
            },
        )
        call_id = f"c-{made['id'][:8]}"
        reserved = self.world.do(
            lambda session, now: reservations.reserve_for_call(
                session,
                self.id,
                call_id=call_id,
                provider_call_id=made["id"],
                estimated_seconds=seconds,
                now=now - timedelta(seconds=reserved_ago),
            )
        )
        assert reserved.outcome.ok
        assert wait_until(
            lambda: self.seen(made["id"])["call"]["status"] != "queued",
            limit_seconds=SANDBOX_SECONDS,
        )
        return call_id

    def seen(self, provider_call_id: str) -> dict:
        return self.world.sandbox.control("GET", f"/vapi/calls/{provider_call_id}")

    def row(self, call_id: str) -> Call:
        return self.world.read(Call, organization_id=self.id, id=call_id)[0]

    def hold(self, call_id: str) -> CallHold:
        return self.world.read(CallHold, organization_id=self.id, call_id=call_id)[0]

    def timeline(self, call_id: str) -> list[str]:
        rows = self.world.read(CallTimeline, organization_id=self.id, call_id=call_id)
        return [row.what for row in sorted(rows, key=lambda row: row.id)]

    def orders(self, call_id: str) -> list[str]:
        """List the orders that the call's control URL received, obeyed or not."""
        seen = self.seen(str(self.row(call_id).provider_call_id))
        return [order["type"] for order in seen["orders"]]

    def leg(self, call_id: str) -> str:
        return str(self.seen(str(self.row(call_id).provider_call_id))["leg"]["status"])

    def alerts(self, kind: str, call_id: str) -> list[Alert]:
        """List the open alerts about a call."""
        found = self.world.read(Alert, kind=kind, subject=call_id)
        return [alert for alert in found if alert.cleared_at is None]

    def round(self) -> None:
        """Run all waiting jobs once, as if every wait were over."""
        self.world.due_now()
        self.world.run_due()

    def rounds(self, call_id: str, number: int) -> None:
        """Run jobs until `number` rounds of ending the call are recorded.

        On a busy machine a round may be postponed, because the database refuses to wait longer.
        """
        assert wait_until(
            lambda: self.round() or self.row(call_id).end_rounds >= number,
            limit_seconds=SANDBOX_SECONDS,
        )

    def run(self, job: str, call_id: str) -> str:
        job_id = self.world.stage(job, organization_id=self.id, call_id=call_id)
        return self.world.executor.execute(job_id)

    def run_twin(self, job: str, call_id: str) -> str:
        """Run a job beside others of the same call."""
        job_id = self.world.stage_twin(job, organization_id=self.id, call_id=call_id)
        return self.world.executor.execute(job_id)

    def decide(self, call_id: str) -> None:
        def work(session, now):
            call, _ = call_and_wallet(session, self.id, call_id)
            assert decide_ending(session, call, EndCause.OPERATOR, now)

        self.world.do(work)

    def run_until_over(self, call_id: str) -> None:
        def over() -> bool:
            self.world.due_now()
            self.world.run_due()
            return self.row(call_id).status == "ended"

        assert wait_until(over, limit_seconds=SANDBOX_SECONDS)
