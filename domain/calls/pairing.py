"""Pairing: find the call that a provider report is about, and prove the match.

A report belongs to the call that has the report's provider call id. If there is none, it belongs to
the call whose ids and token are in the report's metadata. The token proves that the company or
Holdfast supplied the ids. Any visitor can start a web call in a browser with any ids, so metadata
never pairs a web call.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime
from hashlib import sha256

from sqlalchemy.orm import Session

from base.enums import CallDirection
from base.facts import CallFacts
from base.problems.calls import FOREIGN_NUMBER
from db.locks import lock_call, lock_wallet
from db.models.calls import Call, CallTerms
from domain.calls.foreign import is_foreign, owner_of, release_foreign_reservation
from domain.calls.rows import call_of_provider

_TOKEN_BYTES = 24


def new_pairing_token() -> str:
    """Generate an unguessable token of 32 URL-safe characters."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def fail_open_token(key: str, organization_id: str, call_id: str, provider_call_id: str) -> str:
    """Sign the ids of one call that is admitted without the database."""
    ids = "\0".join((organization_id, call_id, provider_call_id))
    return hmac.new(key.encode(), ids.encode(), sha256).hexdigest()


def find_reported(session: Session, facts: CallFacts, now: datetime) -> Call | None:
    """Find the call that a report is about; lock its wallet, then the call.

    If the reported call uses another organization's number or assistant, its reservation is
    released. The organization that owns them then pays (see domain/calls/foreign).
    """
    candidate = call_of_provider(session, facts.external_id)
    if candidate is None:
        candidate = _named_reservation(session, facts)
    if candidate is None and facts.call_id:
        # Another report may have paired the reservation after the first read. The call then has the
        # provider's call id.
        candidate = call_of_provider(session, facts.external_id)
    if candidate is None:
        return None
    if is_foreign(session, candidate, facts):
        return release_foreign_reservation(session, candidate, owner_of(session, facts), facts, now)
    lock_wallet(session, candidate.organization_id)
    call = lock_call(session, candidate.organization_id, candidate.id)
    # Check again under the lock. Meanwhile another report may have paired the reservation with
    # another provider call, or merged it into another row.
    if call is None or (call.provider_call_id != facts.external_id and not _may_pair(call, facts)):
        paired_call = call_of_provider(session, facts.external_id)
        if paired_call is None or paired_call.organization_id != candidate.organization_id:
            return None
        return lock_call(session, paired_call.organization_id, paired_call.id)
    return call


def fail_open_organization(session: Session, facts: CallFacts) -> str | None:
    """Return the organization of a call that was admitted without the database.

    The metadata must contain a signature for this one call at the provider. Return None if it does
    not, and for outbound and web calls.
    """
    if facts.direction not in (None, CallDirection.INBOUND):
        return None
    if not (facts.organization_id and facts.call_id and facts.pairing_token):
        return None
    terms = session.get(CallTerms, facts.organization_id, populate_existing=True)
    if terms is None:
        return None
    expected = fail_open_token(
        terms.fail_open_key, facts.organization_id, facts.call_id, facts.external_id
    )
    return facts.organization_id if _is_same_token(expected, facts.pairing_token) else None


def _named_reservation(session: Session, facts: CallFacts) -> Call | None:
    if not (facts.organization_id and facts.call_id and facts.pairing_token):
        return None
    key = (facts.organization_id, facts.call_id)
    reservation = session.get(Call, key, populate_existing=True)
    return reservation if reservation is not None and _may_pair(reservation, facts) else None


def _may_pair(call: Call, facts: CallFacts) -> bool:
    """Return whether a report's token and direction fit an unpaired reservation."""
    is_unpaired = (
        call.provider_call_id is None
        and call.merged_into is None
        and call.refusal != FOREIGN_NUMBER
    )
    # A reservation is an outbound call, so a web call never fits.
    fits_direction = facts.direction in (None, call.direction)
    token = call.pairing_token
    return (
        is_unpaired
        and fits_direction
        and token is not None
        and _is_same_token(token, facts.pairing_token or "")
    )


def _is_same_token(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
