"""Disputes: refreshes them, and places and lifts the freezes that follow."""

from __future__ import annotations

from sqlalchemy.orm import Session

from base.outcomes import Refused
from domain.payments import disputes
from domain.payments.dispute_freezes import lift_freeze, place_freeze
from workers.attempt import Run


def look_at_dispute(run: Run, provider: str, external_id: str) -> None:
    """Read a dispute from its provider and settle it in the ledger.

    If the disputed payment is not known yet, it is read too, because a dispute may arrive first.
    The job is refused and an alert raised if the payment is not ours, the ledger refuses it, or the
    provider's answer cannot be interpreted. Replay: the provider's own times decide, so a second
    refresh moves nothing.
    """
    try:
        _refresh(run, provider, external_id)
    except Refused as error:
        refused = error
        run.refuse(
            refused,
            lambda session: disputes.alert_unsettled(
                session, provider, external_id, refused, run.now
            ),
        )


def _refresh(run: Run, provider: str, external_id: str) -> None:
    billing = run.providers.billing(provider)
    facts = billing.get_dispute(external_id)
    known = run.transaction(lambda session: disputes.payment_is_known(session, facts))
    payment = None if known else billing.get_payment("capture", facts.payment_external_id)

    def record(session: Session) -> None:
        disputes.record_dispute(session, facts, payment, run.now)

    run.record(record)


def freeze_wallet(run: Run, organization_id: str, reason: str, cause: str) -> None:
    """Freeze a wallet if the cause still exists.

    Replay: an active freeze is left unchanged. Raises: Refused, as place_freeze.
    """
    place_freeze(run.job_session, organization_id, reason, cause, run.now)


def unfreeze_wallet(run: Run, organization_id: str, reason: str, cause: str) -> None:
    """Lift the freeze of one cause, unless the cause still exists.

    Replay: a lifted freeze stays lifted. Raises: Refused, as lift_freeze.
    """
    lift_freeze(run.job_session, organization_id, reason, cause, run.now)
