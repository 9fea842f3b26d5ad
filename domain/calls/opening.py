"""Open a call: reserve its first hold and write its row with its rate.

The calling module decides whether the call may begin: admission, adoption, permission, reservations
or second_holds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from base.enums import CallStatus
from db.models.calls import Call
from domain.calls.rates import Rate
from domain.calls.rows import BEGIN_REFRESH_SECONDS, hold_end, note
from domain.wallet import holds
from domain.wallet.ledger import WalletOutcome


def open_call(
    session: Session,
    call: Call,
    rate: Rate,
    currency: str,
    *,
    seconds: int,
    now: datetime,
    expires_at: datetime | None = None,
    names_provider: bool = True,
) -> WalletOutcome:
    """Reserve a new call's hold and write its row; if refused, write nothing.

    The hold expires at `expires_at`, by default HOLD_GRACE_SECONDS after the time that it covers.
    With `names_provider`, the hold's row contains the provider's call id. Only one hold of an
    organization can contain it.
    """
    outcome = hold_for(
        session,
        call,
        rate,
        currency,
        provider_call_id=call.provider_call_id if names_provider else None,
        seconds=seconds,
        now=now,
        expires_at=expires_at,
    )
    if outcome.ok:
        insert_call(session, call, rate, currency, now)
        note(session, call, "reserved", now, f"{seconds} s")
    return outcome


def hold_for(
    session: Session,
    call: Call,
    rate: Rate,
    currency: str,
    *,
    provider_call_id: str | None,
    seconds: int,
    now: datetime,
    expires_at: datetime | None = None,
) -> WalletOutcome:
    """Reserve the price of a number of seconds for a call.

    The call may have no row yet. Replay: as `holds.reserve`.
    """
    return holds.reserve(
        session,
        call.organization_id,
        call_id=call.id,
        provider_call_id=provider_call_id,
        amount_micros=max(1, rate.cost_micros(1000 * seconds)),
        currency=currency,
        expires_at=expires_at or hold_end(now, seconds),
        now=now,
    )


def insert_call(session: Session, call: Call, rate: Rate, currency: str, now: datetime) -> None:
    """Write a new call's row, or reopen a refused one, with its first rate."""
    # If a refused call is reopened, its refusal no longer settles it.
    call.settled_at = call.settled_by = call.cost_micros = call.duration_ms = None
    call.status = CallStatus.ADMITTED
    call.currency = currency
    call.micros_per_minute = rate.micros_per_minute
    call.increment_seconds = rate.increment_seconds
    call.minimum_micros = rate.minimum_micros
    call.created_at = now
    call.tick_at = now if call.metered_from else now + timedelta(seconds=BEGIN_REFRESH_SECONDS)
    session.add(call)
    session.flush()


def insert_refused_call(
    session: Session, call: Call, currency: str, refusal: str, now: datetime
) -> None:
    """Write the row of a refused call: it is over, costs nothing and has no hold.

    Its rate is 0, because none was applied. Replay: the same reason adds no line to the timeline.
    """
    is_new = call.refusal != refusal
    call.status, call.refusal, call.currency = CallStatus.REFUSED, refusal, currency
    call.micros_per_minute, call.increment_seconds, call.minimum_micros = 0, 1, 0
    call.metered_from = call.tick_at = call.max_duration_seconds = None
    call.settled_at, call.settled_by, call.cost_micros, call.duration_ms = now, "refused", 0, 0
    call.created_at = call.created_at or now
    session.add(call)
    session.flush()
    if is_new:
        note(session, call, "refused", now, refusal)
