"""Subscriptions: the look at the provider, and the posture that follows."""

from __future__ import annotations

from sqlalchemy.orm import Session

from base.enums import Provider
from base.outcomes import Refused
from domain import subscriptions
from domain.jobs.types import LOOK_AT_SUBSCRIPTION
from domain.posture import apply_posture
from domain.subscriptions import Look
from workers.attempt import Later, Run


def enforce_organization(run: Run, organization_id: str) -> None:
    """This function will derive the organization's posture again and bring it about: healing.

    Raises: OrganizationNotFound.
    """
    apply_posture(run.own, organization_id, run.now, heal=True)


def look_at_subscription(run: Run, provider: str, external_id: str) -> None:
    """Read a subscription back from its provider and record the provider's answer.

    An answer that contradicts a newer event is asked for again later. The job is refused, with an
    alert, if the provider's answer cannot be read or names no organization of ours. Replay: reading
    changes nothing there. Raises: NotYet while another look runs.
    """
    look = run.transaction(
        lambda session: subscriptions.begin_look(
            session,
            Provider(provider),
            external_id,
            lease_seconds=LOOK_AT_SUBSCRIPTION.lease_seconds,
        )
    )
    try:
        facts = run.providers.billing(provider).get_subscription(external_id)
    except Refused as error:
        _refuse(run, look, error)
        return
    except BaseException:
        run.transaction(lambda session: subscriptions.give_back_look(session, look))
        raise

    def record(session: Session) -> Later | None:
        seconds = subscriptions.record_look(
            session,
            look,
            facts,
            run.now,
            grace_seconds=run.settings.subscription_grace_seconds,
        )
        return None if seconds is None else Later(seconds, "the answer is not believed yet")

    try:
        run.record(record)
    except Refused as error:
        _refuse(run, look, error)


def _refuse(run: Run, look: Look, refused: Refused) -> None:
    run.refuse(
        refused, lambda session: subscriptions.tell_unsettled(session, look, refused, run.now)
    )
