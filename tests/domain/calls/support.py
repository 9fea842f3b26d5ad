"""Helpers that make, report, tick and settle calls.

The tests choose business time, which starts at T0.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from base.enums import CallDirection, CallStatus, EndCause, FreezeReason
from base.facts import AdmissionRequest, CallFacts, CallReport
from base.operators import Operator
from db.engine import Database
from db.models import Alert, CallHold
from db.models.calls import Call, CallTerms, CallTimeline
from domain import operator_actions
from domain.calls import (
    admission,
    committing,
    ending,
    reconcile,
    reservations,
    settlement,
    status_updates,
)
from domain.calls import tick as ticks
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.pairing import fail_open_token
from domain.calls.rates import Rate, set_rate
from domain.calls.rows import call_and_wallet
from domain.calls.settings import Terms, set_terms
from domain.enforcement import enforce_entitlement
from domain.wallet import freezes as wallet_freezes
from tests.domain.support import ANN, T0, credit, staged, subscribe
from tests.domain.wallet.hold_support import money, set_limit
from tests.support.world import make_organization

#: A cent per second, billed by the second.
CENT = 10_000
RATE = Rate(60 * CENT, 1)
#: Seconds after which a hold of thirty seconds has expired.
OVER = 930
NO_WARNING = {"warn_before_seconds": 0}


class CallCustomer:
    """An organization with money, a rate, an assistant, a phone number and its calls."""

    def __init__(self, database: Database, org: str, *, cents: int = 100) -> None:
        self.database, self.id = database, org
        self.assistant_id = f"as-{secrets.token_hex(6)}"
        self.number_id = f"pn-{secrets.token_hex(6)}"
        subscribe(database, org)
        if cents:
            self.pay(cents)
        self.rate(RATE)
        self.terms(**NO_WARNING)
        self.entry_point(
            EntryPointKind.PHONE_NUMBER, self.number_id, assistant_id=self.assistant_id
        )

    # Setup

    def pay(self, cents: int) -> None:
        assert credit(self.database, self.id, cents * CENT).ok

    def debt(self, cents: int) -> None:
        assert set_limit(self.database, self.id, cents * CENT).ok

    def rate(self, rate: Rate, route: str = "default") -> None:
        self.do(lambda session: set_rate(session, self.id, rate, route=route, operator=ANN, now=T0))

    def terms(self, **changes: Any) -> None:
        terms = replace(Terms(), **changes)
        self.do(lambda session: set_terms(session, self.id, terms, operator=ANN, now=T0))

    def entry_point(self, kind: EntryPointKind, external_id: str, **more: Any) -> None:
        self.do(
            lambda session: add_entry_point(
                session,
                self.id,
                kind,
                external_id,
                operator=ANN,
                now=T0,
                **more,
            )
        )

    def freeze(self, now: datetime = T0, reason: FreezeReason = FreezeReason.MANUAL) -> None:
        """Freeze only the wallet; enforcement does not run."""
        self.do(lambda s: wallet_freezes.freeze(s, self.id, reason, operator=ANN, now=now))

    def freeze_manually(self, now: datetime = T0) -> None:
        """Freeze as an operator does, with enforcement."""
        self.do(lambda s: operator_actions.freeze_manually(s, self.id, operator=ANN, now=now))

    def enforce(self, now: datetime = T0) -> None:
        """Run enforcement, as the job does that a change of facts stages."""
        self.do(lambda session: enforce_entitlement(session, self.id, now))

    # Calls

    def ask(self, **changes: Any) -> AdmissionRequest:
        """Build the admission request of an incoming call."""
        given = {
            "external_id": str(uuid.uuid4()),
            "direction": CallDirection.INBOUND,
            "assistant_id": None,
            "phone_number_id": self.number_id,
            "our_number": "+15005550099",
            "their_party": "…0006",
            "twilio_call_sid": None,
            "twilio_account_sid": None,
        }
        return AdmissionRequest(**{**given, **changes})

    def admit(self, now: datetime = T0, **changes: Any) -> admission.Admission:
        ask = self.ask(**changes)
        return self.do(lambda session: admission.admit(session, ask, now))

    def admit_call(self, now: datetime = T0, **changes: Any) -> str:
        """Admit a call and return its ID."""
        made = self.admit(now, **changes)
        assert made.refusal is None and made.call_id is not None, made
        return made.call_id

    def reserve(
        self,
        call_id: str = "c1",
        *,
        seconds: int = 30,
        provider: str | None = "",
        now: datetime = T0,
        **more: Any,
    ) -> reservations.Reserved:
        """Reserve for an outgoing call. The default `provider` gives it a new provider ID."""
        provider_call_id = str(uuid.uuid4()) if provider == "" else provider
        return self.do(
            lambda session: reservations.reserve_for_call(
                session,
                self.id,
                call_id=call_id,
                provider_call_id=provider_call_id,
                estimated_seconds=seconds,
                now=now,
                **more,
            )
        )

    def metadata(self, call_id: str = "c1") -> dict[str, str]:
        """Return our IDs with the token, as the company's backend sends them to Vapi."""
        token = self.call(call_id).pairing_token or ""
        return {"organization_id": self.id, "call_id": call_id, "pairing_token": token}

    def fail_open(self, external_id: str, call_id: str = "call_given") -> dict[str, str]:
        """Return the metadata of a call that was admitted while the database was away."""
        key = self.do(lambda s: s.get_one(CallTerms, self.id).fail_open_key)
        token = fail_open_token(key, self.id, call_id, external_id)
        return {"organization_id": self.id, "call_id": call_id, "pairing_token": token}

    def commit(self, call_id: str, seconds: float, now: datetime = T0, provider: str | None = None):
        """Commit as the company's backend does."""
        return self.do(
            lambda s: committing.commit_for_call(
                s,
                self.id,
                call_id=call_id,
                duration_ms=round(seconds * 1000),
                provider_call_id=provider,
                now=now,
            )
        )

    def calls(self) -> list[Call]:
        return self.do(
            lambda s: s.query(Call).filter_by(organization_id=self.id).order_by(Call.id).all()
        )

    def call(self, call_id: str = "c1") -> Call:
        return self.do(lambda session: session.get_one(Call, (self.id, call_id)))

    def hold(self, call_id: str = "c1") -> CallHold | None:
        return self.do(lambda session: session.get(CallHold, (self.id, call_id)))

    def timeline(self, call_id: str = "c1") -> list[str]:
        rows = self.do(
            lambda s: (
                s.query(CallTimeline)
                .filter_by(organization_id=self.id, call_id=call_id)
                .order_by(CallTimeline.id)
                .all()
            )
        )
        return [row.what for row in rows]

    # Provider reports

    def facts(self, call: Call | str, status: str | None, **changes: Any) -> CallFacts:
        external_id = call if isinstance(call, str) else str(call.provider_call_id)
        given = {"phone_number_id": self.number_id, **changes}
        return CallFacts(external_id, CallStatus(status) if status else None, **given)

    def report_status(
        self,
        call: Call | str,
        status: str | None,
        now: datetime = T0,
        *,
        final: bool = False,
        talking_ms: int | None = None,
        received_at: datetime | None = None,
        **changes: Any,
    ) -> bool:
        """Apply a provider's message about a call."""
        report = CallReport(self.facts(call, status, **changes), final=final, talking_ms=talking_ms)
        return self.do(lambda s: status_updates.apply_report(s, report, received_at or now, now))

    def report(self, call: Call | str, seconds: float | None, now: datetime = T0, **more: Any):
        """Apply the provider's report after the end of a call."""
        duration_ms = None if seconds is None else round(seconds * 1000)
        return self.report_status(call, "ended", now, final=True, duration_ms=duration_ms, **more)

    def refresh(self, call: Call, status: str, now: datetime = T0, **changes: Any) -> None:
        """Apply a refresh of the call."""
        found = self.facts(call, status, **changes)
        self.do(lambda s: status_updates.apply_refresh(s, self.id, call.id, found, now))

    # Actions

    def tick(self, now: datetime) -> ticks.TickResult:
        return self.do(lambda session: ticks.tick(session, self.id, now))

    def decide(self, call_id: str, now: datetime = T0) -> bool:
        def work(session):
            call, _ = call_and_wallet(session, self.id, call_id)
            return ending.decide_ending(session, call, EndCause.OPERATOR, now)

        return self.do(work)

    def settle_by_api(self, call_id: str, seconds: float, now: datetime = T0):
        return self.do(
            lambda s: settlement.settle_by_api(s, self.id, call_id, round(seconds * 1000), now)
        )

    def settle_manually(self, call_id: str, seconds: float, now: datetime = T0, *, why: str = "x"):
        ms = round(seconds * 1000)
        return self.do(
            lambda s: settlement.settle_manually(
                s, self.id, call_id, duration_ms=ms, operator=Operator("ann", why), now=now
            )
        )

    def do(self, fn: Callable[[Any], Any]) -> Any:
        return self.database.run(fn)

    # Results

    def cents(self) -> tuple[float, float, float]:
        """Return balance, held and outstanding amount in cents; check invariants first."""
        balance, held, owed = money(self.database, self.id)
        return balance / CENT, held / CENT, owed / CENT

    def alerts(self, kind: str) -> list[Alert]:
        return self.do(
            lambda s: (
                s.query(Alert).filter_by(organization_id=self.id, kind=kind, cleared_at=None).all()
            )
        )

    def jobs(self, name: str) -> list[str]:
        """List the calls for which jobs with this name are staged."""
        found = staged(self.database, self.id, name)
        return sorted(job.kwargs.get("call_id", "") for job in found)


@pytest.fixture
def customer(shared, org):
    """An organization with one dollar and a rate of a cent per second."""
    return CallCustomer(shared, org)


@pytest.fixture
def other(shared):
    """Another organization with one dollar and the same rate."""
    return CallCustomer(shared, make_organization(shared))


def report_absent(customer: CallCustomer, now: datetime, call_id: str = "c1") -> None:
    """Record that the provider does not know the call."""
    customer.do(lambda session: reconcile.call_is_absent(session, customer.id, call_id, now))


def unknown_alerts(database: Database, external_id: str) -> list[Alert]:
    """List the open alerts about a call that belongs to no known organization."""
    return database.run(
        lambda s: (
            s.query(Alert)
            .filter_by(kind="call_unknown", subject=external_id, cleared_at=None)
            .all()
        )
    )


def execute(database: Database, statement: str, **values: Any) -> None:
    """Change rows directly, as `holdfast_app`."""
    database.run(lambda session: session.execute(text(statement), values))


def after(instant: datetime, seconds: float) -> datetime:
    return instant + timedelta(seconds=seconds)
