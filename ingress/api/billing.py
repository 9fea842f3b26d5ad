"""API endpoints that reserve and commit holds and read wallets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from base.facts import CALL_DURATION_MS_MAX
from base.money import exponent_of, text_from_micros
from base.outcomes import Refused
from domain.calls import committing, reservations, rows
from domain.calls.settings import DURATION_SECONDS_MAX
from domain.wallet import holds
from domain.wallet import queries as wallet_queries
from domain.wallet.queries import EntryView
from ingress.api.endpoint import AuthorizedRequest
from ingress.api.fields import milliseconds_of
from providers.vapi.mapping import OUR_CALL, OUR_ORGANIZATION, OUR_TOKEN

#: Largest number of entries on one page of transactions.
PAGE_MAX = 200


def reserve_credits(
    session: Session, request: AuthorizedRequest, now: datetime
) -> dict[str, Any] | Refused:
    """Set aside a call's estimated cost and return its pairing data for Vapi.

    Replay: while the hold is open, the same call succeeds and only its pairing may change.
    """
    fields = request.fields
    call_id = fields.text("callId")
    vapi_call_id = fields.optional_text("vapiCallId")
    minutes = fields.number("estimatedMinutes", lowest=0, highest=DURATION_SECONDS_MAX // 60)
    number = fields.optional_text("to", length_max=16)
    appointment_id = fields.optional_text("appointmentId")
    fields.nothing_else()
    reserved = reservations.reserve_for_call(
        session,
        request.bearer.organization_id,
        call_id=call_id,
        provider_call_id=vapi_call_id,
        estimated_seconds=-(-milliseconds_of(minutes * 60) // 1000),
        now=now,
        number=number,
        appointment_id=appointment_id,
    )
    if not reserved.outcome.ok or reserved.call is None:
        # Returned, not raised: a pairing made by this request is kept, even if the call is settled.
        return Refused(reserved.outcome.code)
    organization_id = request.bearer.organization_id
    hold = holds.hold_of_call(session, organization_id, reserved.call.id)
    held = hold.reserved_micros if hold else 0
    return {
        "success": True,
        "callId": call_id,
        "isDuplicate": reserved.outcome.replayed,
        "currency": reserved.call.currency,
        **_amount("reserved", held, reserved.call.currency),
        **_amount("available", reserved.outcome.available_micros, reserved.call.currency),
        "expiresAt": hold.expires_at.isoformat() if hold else None,
        "vapiCallId": reserved.call.provider_call_id,
        "pairingToken": reserved.pairing_token,
        "assistantOverrides": {
            "metadata": {
                OUR_ORGANIZATION: organization_id,
                OUR_CALL: call_id,
                OUR_TOKEN: reserved.pairing_token,
            }
        },
    }


def commit_credits(
    session: Session, request: AuthorizedRequest, now: datetime
) -> dict[str, Any] | Refused:
    """Charge a call for its duration and release the rest of its hold.

    `vapiCallId` pairs a reservation that is not paired yet. Replay: the same duration returns the
    first result; a different duration is refused with IDEMPOTENCY_CONFLICT.
    """
    fields = request.fields
    call_id = fields.text("callId")
    vapi_call_id = fields.optional_text("vapiCallId")
    seconds = fields.number("durationSeconds", lowest=0, highest=CALL_DURATION_MS_MAX // 1000)
    fields.nothing_else()
    organization_id = request.bearer.organization_id
    try:
        done = committing.commit_for_call(
            session,
            organization_id,
            call_id=call_id,
            duration_ms=milliseconds_of(seconds),
            provider_call_id=vapi_call_id,
            now=now,
        )
    except Refused as error:
        if vapi_call_id is None:
            raise
        # Returned, not raised: the pairing is kept, so that later reports charge the call once.
        return error
    balance = wallet_queries.balance(session, organization_id, now)
    held = rows.holds_of(session, done.call, rows.merged_ids(session, done.call))
    return {
        "success": True,
        "callId": call_id,
        "alreadyCommitted": done.outcome.replayed,
        "vapiCallId": done.call.provider_call_id,
        "currency": balance.currency,
        **_amount("charged", sum(one.billed_micros or 0 for one in held), balance.currency),
        **_amount("released", sum(one.released_micros for one in held), balance.currency),
        **_amount("owed", sum(one.shortfall_micros for one in held), balance.currency),
        **_amount("balance", balance.balance_micros, balance.currency),
    }


def read_wallet(session: Session, request: AuthorizedRequest, now: datetime) -> dict[str, Any]:
    """Show the wallet's balance, held, available and outstanding amounts."""
    request.fields.nothing_else()
    found = wallet_queries.balance(session, request.bearer.organization_id, now)
    return {
        "organizationId": found.organization_id,
        "currency": found.currency,
        "isFrozen": found.frozen,
        **_amount("balance", found.balance_micros, found.currency),
        **_amount("held", found.held_micros, found.currency),
        **_amount("available", found.available_micros, found.currency),
        **_amount("owed", found.owed_micros, found.currency),
    }


def read_transactions(
    session: Session, request: AuthorizedRequest, now: datetime
) -> dict[str, Any]:
    """Show one page of entries, newest first."""
    limit = request.fields.whole("limit", lowest=1, highest=PAGE_MAX, default=20)
    cursor = request.fields.whole("cursor", lowest=0, highest=2**62, default=2**62)
    request.fields.nothing_else()
    organization_id = request.bearer.organization_id
    page = wallet_queries.history(session, organization_id, after=cursor, limit=limit)
    return {
        "transactions": [_entry(one) for one in page],
        "nextCursor": str(page[-1].entry_no) if len(page) == limit else None,
    }


def _entry(entry: EntryView) -> dict[str, Any]:
    return {
        "id": str(entry.entry_no),
        "type": entry.kind,
        "direction": entry.direction,
        "currency": entry.currency,
        **_amount("amount", entry.amount_micros, entry.currency),
        **_amount("balanceAfter", entry.balance_after_micros, entry.currency),
        "referenceId": entry.idempotency_key,
        "createdAt": entry.created_at.isoformat(),
    }


def _amount(name: str, micros: int, currency: str) -> dict[str, Any]:
    """Write an amount as decimal text, in micros and in whole cents.

    The text and the micros are exact. The seeds promise cents, which are rounded down.
    """
    step = 10 ** (6 - exponent_of(currency))
    return {
        name: text_from_micros(micros, currency),
        f"{name}Micros": micros,
        f"{name}Cents": micros // step,
    }
