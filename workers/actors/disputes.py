"""Disputes: the look at the provider, and the freezes that follow from what is known."""

from __future__ import annotations

from sqlalchemy.orm import Session

from base.outcomes import Refused
from domain.payments import disputes
from domain.payments.dispute_freezes import lift_freeze, place_freeze
from workers.attempt import Run


def look_at_dispute(run: Run, provider: str, external_id: str) -> None:
    """This function will read a dispute back from its provider and settle it in the ledger.

    A payment not heard of yet is read back too, so that a dispute may come before it. It is
    refused, and an alert raised for a person, when it is nobody's of ours, the ledger refuses it,
    or the provider's words are unknown. Replay: the provider's own times decide, so a second look
    moves nothing.
    """
    try:
        _look(run, provider, external_id)
    except Refused as error:
        refused = error
        run.refuse(
            refused,
            lambda session: disputes.tell_unsettled(
                session, provider, external_id, refused, run.now
            ),
        )


def _look(run: Run, provider: str, external_id: str) -> None:
    billing = run.providers.billing(provider)
    facts = billing.get_dispute(external_id)
    known = run.transaction(lambda session: disputes.payment_is_known(session, facts))
    payment = None if known else billing.get_payment("capture", facts.payment_external_id)

    def record(session: Session) -> None:
        disputes.record_dispute(session, facts, payment, run.now)

    run.record(record)


def freeze_wallet(run: Run, organization_id: str, reason: str, cause: str) -> None:
    """This function will freeze a wallet if the cause still stands.

    Replay: a freeze that stands is left as it is. Raises: Refused, as place_freeze says.
    """
    place_freeze(run.own, organization_id, reason, cause, run.now)


def unfreeze_wallet(run: Run, organization_id: str, reason: str, cause: str) -> None:
    """This function will lift one cause's freeze unless the cause still stands.

    Replay: what is lifted stays lifted. Raises: Refused, as lift_freeze says.
    """
    lift_freeze(run.own, organization_id, reason, cause, run.now)
