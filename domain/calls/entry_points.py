"""Entry points: find a call's organization by its assistant, number or campaign.

Only ids in a verified message count, never a header that the caller sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from base.operators import Operator
from base.outcomes import Refused
from base.problems.calls import INVALID_ENTRY_POINT
from db.models import Brand, Wallet
from db.models.calls import EntryPoint
from domain.operator_notes import record_action
from domain.wallet.ledger import WalletNotFound

_ID_LENGTH_MAX = 64


class EntryPointKind(StrEnum):
    """The kinds of entry points. A phone number is given as itself or as Vapi's id."""

    ASSISTANT = "assistant"
    PHONE_NUMBER = "phone_number"
    CAMPAIGN = "campaign"


class InvalidEntryPoint(Refused):
    """An entry point's id is invalid or taken, or its brand is not the organization's."""

    def __init__(self, why: str) -> None:
        super().__init__(INVALID_ENTRY_POINT, why)


def find_entry_point(
    session: Session,
    *,
    assistant_id: str | None = None,
    phone_numbers: Iterable[str | None] = (),
    campaign_id: str | None = None,
) -> EntryPoint | None:
    """Find a call's entry point; return None if it leads to no single organization.

    If a message names several entry points, all must belong to the same organization. For example,
    one organization's phone number with another organization's assistant leads to none.
    """
    entry_points = _find_named_entry_points(session, assistant_id, phone_numbers, campaign_id)
    if len({entry_point.organization_id for entry_point in entry_points}) != 1:
        return None
    return entry_points[0]


def belongs_to_another(
    session: Session,
    organization_id: str | None,
    *,
    assistant_id: str | None = None,
    phone_numbers: Iterable[str | None] = (),
) -> bool:
    """Return whether any of these entry points belongs to another organization."""
    entry_points = _find_named_entry_points(session, assistant_id, phone_numbers, None)
    return any(entry_point.organization_id != organization_id for entry_point in entry_points)


def add_entry_point(
    session: Session,
    organization_id: str,
    kind: EntryPointKind,
    external_id: str,
    *,
    assistant_id: str | None = None,
    brand_id: str | None = None,
    operator: Operator,
    now: datetime,
) -> None:
    """Assign an entry point to an organization.

    `assistant_id` answers its inbound calls. `brand_id` names the brand whose Twilio subaccount
    carries them. Replay: the entry point gets the new assistant and brand. Raises:
    InvalidEntryPoint, WalletNotFound.
    """
    if session.get(Wallet, organization_id) is None:
        raise WalletNotFound(organization_id)
    if not 0 < len(external_id) <= _ID_LENGTH_MAX or "\0" in external_id:
        raise InvalidEntryPoint(f"an entry point's id must have 1 to {_ID_LENGTH_MAX} characters")
    if assistant_id is not None and not 0 < len(assistant_id) <= _ID_LENGTH_MAX:
        raise InvalidEntryPoint(f"an assistant's id must have 1 to {_ID_LENGTH_MAX} characters")
    if brand_id is not None:
        brand = session.get(Brand, brand_id)
        if brand is None or brand.organization_id != organization_id:
            raise InvalidEntryPoint(f"the brand {brand_id} does not belong to the organization")
    entry_point = session.get(EntryPoint, (str(kind), external_id), populate_existing=True)
    if entry_point is None:
        entry_point = EntryPoint(
            kind=str(kind),
            external_id=external_id,
            organization_id=organization_id,
            created_at=now,
        )
        session.add(entry_point)
    elif entry_point.organization_id != organization_id:
        raise InvalidEntryPoint(f"{external_id} belongs to another organization")
    entry_point.assistant_id, entry_point.brand_id = assistant_id, brand_id
    session.flush()
    record_action(session, "call_door.add", f"{kind} {external_id}", operator=operator, now=now)


def remove_entry_point(
    session: Session, kind: EntryPointKind, external_id: str, *, operator: Operator, now: datetime
) -> bool:
    """Remove an entry point; return False if there was none.

    Calls through it then belong to no organization.
    """
    removed = session.execute(
        delete(EntryPoint)
        .where(EntryPoint.kind == str(kind), EntryPoint.external_id == external_id)
        .returning(EntryPoint.external_id)
    ).one_or_none()
    if removed is not None:
        record_action(
            session, "call_door.remove", f"{kind} {external_id}", operator=operator, now=now
        )
    return removed is not None


def twilio_account_of(session: Session, entry_point: EntryPoint | None) -> str | None:
    """Return the Twilio subaccount that carries an entry point's calls, if known."""
    if entry_point is None or entry_point.brand_id is None:
        return None
    return session.scalar(
        select(Brand.twilio_subaccount_sid).where(Brand.id == entry_point.brand_id)
    )


def _find_named_entry_points(
    session: Session,
    assistant_id: str | None,
    phone_numbers: Iterable[str | None],
    campaign_id: str | None,
) -> Sequence[EntryPoint]:
    keys = [
        (str(kind), external_id)
        for kind, external_id in (
            (EntryPointKind.ASSISTANT, assistant_id),
            (EntryPointKind.CAMPAIGN, campaign_id),
            *((EntryPointKind.PHONE_NUMBER, phone_number) for phone_number in phone_numbers),
        )
        if external_id
    ]
    if not keys:
        return []
    return session.scalars(
        select(EntryPoint)
        .where(tuple_(EntryPoint.kind, EntryPoint.external_id).in_(keys))
        # Descending order puts the phone number first. It decides which assistant answers and which
        # brand carries the call.
        .order_by(EntryPoint.kind.desc(), EntryPoint.external_id)
        .execution_options(populate_existing=True)
    ).all()
