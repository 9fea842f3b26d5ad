"""Money in: a payment is believed only as its provider's API shows it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from domain import top_ups
from domain.payments import record_payment
from workers.run import Run


def look_at_payment(run: Run, provider: str, kind: str, external_id: str) -> None:
    """This function will read a payment back from its provider and settle it in the ledger.

    Replay: the facts are cumulative, so a second look moves nothing. Raises: Refused when the
    provider does not know it, it is not ours, or the ledger refuses it.
    """
    facts = run.providers.billing(provider).get_payment(kind, external_id)

    def record(session: Session) -> None:
        record_payment(session, facts, run.now)

    run.record(record)


def decide_top_up(run: Run, organization_id: str) -> None:
    """This function will decide whether automatic top-up charges now, or when to look again.

    Replay: while a decision is pending, none is added. Raises: OrganizationNotFound.
    """
    top_ups.decide(run.own, organization_id, run.now, chargeable=run.providers.chargeable)
