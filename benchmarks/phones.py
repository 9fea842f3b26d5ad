"""Organizations that can be called at the sandbox's Vapi, for the call benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from base.operators import Operator
from benchmarks.system import System
from db.engine import Database, clock
from domain import organizations
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.rates import Rate, set_rate
from domain.calls.settings import Terms, set_terms
from domain.enforcement import enforce_entitlement
from domain.wallet import operations as wallet

#: One cent per second, charged by the second.
RATE = Rate(micros_per_minute=600_000, increment_seconds=1)


@dataclass(frozen=True)
class Phone:
    """One organization and its number at Vapi."""

    organization_id: str
    number_id: str


def open_phone(system: System, database: Database, terms: Terms, *, seconds: int) -> Phone:
    """Create an organization with money for the given seconds of talk, and its number."""
    assistant_id = system.control("POST", "/vapi/assistants", {"name": "Voice"})["id"]
    number_id = system.control("POST", "/vapi/numbers", {"number": "+15005550111"})["id"]
    operator = Operator("bench", "a measurement")
    organization_id = database.run(
        lambda session: organizations.create_organization(
            session, name="bench", currency="USD", now=clock(session)
        )
    )
    system.subscribe(organization_id, f"I-{organization_id[-20:]}")

    def set_up(session: Session) -> None:
        now = clock(session)
        set_rate(session, organization_id, RATE, operator=operator, now=now)
        set_terms(session, organization_id, terms, operator=operator, now=now)
        add_entry_point(
            session,
            organization_id,
            EntryPointKind.PHONE_NUMBER,
            number_id,
            assistant_id=assistant_id,
            operator=operator,
            now=now,
        )
        wallet.credit(
            session,
            organization_id,
            key="funds",
            amount_micros=RATE.cost_micros(1000 * seconds),
            currency="USD",
            now=now,
        )
        enforce_entitlement(session, organization_id, now)

    database.run(set_up)
    return Phone(organization_id, number_id)
