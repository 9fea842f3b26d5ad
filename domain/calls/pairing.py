"""Pairing: which of our calls a provider's report is about, by the provider's id or by ours."""

from __future__ import annotations

from sqlalchemy.orm import Session

from base.facts import CallFacts
from db.call_models import Call
from db.locks import lock_call, lock_wallet
from domain.calls.doors import leads_elsewhere
from domain.calls.rows import call_of_provider


def find_reported(session: Session, facts: CallFacts) -> Call | None:
    """Find the call that a report is about, and lock it after its wallet."""
    known = call_of_provider(session, facts.external_id)
    if known is not None:
        return _locked(session, known.organization_id, known.id)
    if not facts.organization_id or not facts.call_id or is_anothers(session, facts):
        return None
    named = _locked(session, facts.organization_id, facts.call_id)
    if named is None or named.provider_call_id not in (None, facts.external_id):
        return None
    return named


def is_anothers(session: Session, facts: CallFacts) -> bool:
    """Return whether a report names a number or an assistant of another organization than its ids.

    Whoever begins a call may give any ids along, but cannot choose whose number or assistant it is.
    """
    return leads_elsewhere(
        session,
        facts.organization_id,
        assistant_id=facts.assistant_id,
        phone_numbers=(facts.phone_number_id,),
    )


def _locked(session: Session, organization_id: str, call_id: str) -> Call | None:
    lock_wallet(session, organization_id)
    return lock_call(session, organization_id, call_id)
