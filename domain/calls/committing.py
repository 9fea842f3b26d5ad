"""Commit a call: pair its reservation and charge it once for a given duration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from base.outcomes import Refused
from base.problems.calls import FOREIGN_NUMBER, UNPAIRED_CALL
from db.locks import lock_call, lock_wallet
from db.models.calls import Call
from domain.calls.billing import is_cost_settled
from domain.calls.double_charges import adopted_calls_of
from domain.calls.merging import pair
from domain.calls.rows import CallNotFound, resolve_merged
from domain.calls.settlement import settle_by_api
from domain.wallet.ledger import WalletOutcome


@dataclass(frozen=True)
class CommittedCall:
    """The charged call, whose id may differ from the requested id, and the outcome."""

    call: Call
    outcome: WalletOutcome


class UnpairedCall(Refused):
    """A reservation without the provider's id may be a call that was already adopted."""

    def __init__(self, call_id: str, adopted: Call) -> None:
        super().__init__(
            UNPAIRED_CALL,
            f"Vapi has reported the call {adopted.provider_call_id}, which may be {call_id}. If it"
            " is, commit again with its vapiCallId, and it is charged once. If it is another call,"
            " commit again with the vapiCallId of that call. If the call was never made, commit 0"
            " seconds.",
            call=call_id,
        )


class ForeignNumber(Refused):
    """The call used a number or an assistant of another organization."""

    def __init__(self, call_id: str) -> None:
        super().__init__(
            FOREIGN_NUMBER,
            "The call came by a number or an assistant of another organization.",
            call=call_id,
        )


def commit_for_call(
    session: Session,
    organization_id: str,
    *,
    call_id: str,
    duration_ms: int,
    now: datetime,
    provider_call_id: str | None = None,
) -> CommittedCall:
    """Charge a call once, for the duration that the company's backend states.

    Units: `duration_ms` 0 to 43,260,000. `provider_call_id` pairs a reservation that is not paired
    yet. Replay: as `settle_by_api`.

    Raises: CallNotFound; ForeignNumber; UnpairedCall if an adopted, unpaired call of the
    organization may be this one; what `pair` and `settle_by_api` raise.
    """
    lock_wallet(session, organization_id)
    requested = lock_call(session, organization_id, call_id)
    if requested is None:
        raise CallNotFound(call_id)
    if provider_call_id is not None:
        call = pair(session, requested, provider_call_id, now)
    else:
        call = resolve_merged(session, requested)
    if duration_ms > 0 and not is_cost_settled(call):
        if call.refusal == FOREIGN_NUMBER:
            raise ForeignNumber(call_id)
        if call.provider_call_id is None:
            adopted_calls = adopted_calls_of(session, call)
            if adopted_calls:
                raise UnpairedCall(call_id, adopted_calls[0])
    outcome = settle_by_api(session, organization_id, call.id, duration_ms, now)
    return CommittedCall(call, outcome)
