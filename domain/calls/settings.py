"""Call terms of an organization: steps, margins, warnings, texts, fault policy.

An organization that has set no terms gets the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from base.enums import FaultPolicy
from base.operators import Operator
from base.outcomes import Refused
from base.problems.calls import INVALID_TERMS
from db.locks import lock_wallet
from db.models import Wallet
from db.models.calls import CallTerms
from domain.operator_notes import record_action
from domain.wallet.ledger import WalletNotFound

#: The longest spoken text, in characters.
TEXT_LENGTH_MAX = 500
#: The shortest and the longest maximum duration that Vapi accepts, in seconds. Source: Vapi's API,
#: maxDurationSeconds.
DURATION_SECONDS_MIN = 10
DURATION_SECONDS_MAX = 43_200
#: The lowest and the highest value of each numeric term.
_TERM_BOUNDS = {
    "step_seconds": (1, 3_600),
    "margin_seconds": (1, 60),
    "warn_before_seconds": (0, 3_600),
    "max_duration_seconds": (DURATION_SECONDS_MIN, DURATION_SECONDS_MAX),
    "fail_open_seconds": (10, 3_600),
    "fault_waived_minutes": (0, 720),
}


class InvalidCallTerms(Refused):
    """A term is out of its bounds."""

    def __init__(self, why: str) -> None:
        super().__init__(INVALID_TERMS, why)


@dataclass(frozen=True)
class Terms:
    """The terms of an organization's calls."""

    #: Seconds of talk time that the first hold and each extension cover.
    step_seconds: int = 60
    #: A call is ended this many seconds before its hold is used up, so that the end is within the
    #: hold. The tick adds LEAD_SECONDS to this.
    margin_seconds: int = 5
    #: A call is warned once, this many seconds before its credit ends. 0 means never.
    warn_before_seconds: int = 60
    max_duration_seconds: int = 3_600
    #: Whether a call is admitted if the database does not answer in time. Such a call may last
    #: `fail_open_seconds`.
    fail_open: bool = False
    fail_open_seconds: int = 60
    fault_policy: FaultPolicy = FaultPolicy.WAIVE
    #: If a fault of Vapi ended a call, its first minutes are not charged, up to this number.
    #: Applies only to FaultPolicy.WAIVE.
    fault_waived_minutes: int = 10
    refusal_text: str = "We cannot take your call at the moment. Please try again later."
    warning_text: str = "This call will end soon."
    ending_text: str = "This call has to end now. Goodbye."


def terms_of(session: Session, organization_id: str) -> Terms:
    """Return an organization's terms, or the defaults."""
    row = session.get(CallTerms, organization_id, populate_existing=True)
    if row is None:
        return Terms()
    return Terms(
        step_seconds=row.step_seconds,
        margin_seconds=row.margin_seconds,
        warn_before_seconds=row.warn_before_seconds,
        max_duration_seconds=row.max_duration_seconds,
        fail_open=row.fail_open,
        fail_open_seconds=row.fail_open_seconds,
        fault_policy=FaultPolicy(row.fault_policy),
        fault_waived_minutes=row.fault_waived_minutes,
        refusal_text=row.refusal_text,
        warning_text=row.warning_text,
        ending_text=row.ending_text,
    )


def set_terms(
    session: Session, organization_id: str, terms: Terms, *, operator: Operator, now: datetime
) -> None:
    """Set an organization's call terms; live calls use them from now on.

    Replay: the same terms again update only operator, reason and time. Raises: InvalidCallTerms,
    WalletNotFound.
    """
    _check_terms(terms)
    if session.get(Wallet, organization_id) is None:
        raise WalletNotFound(organization_id)
    values = {
        **asdict(terms),
        "fault_policy": str(terms.fault_policy),
        "set_by": operator.name,
        "set_why": operator.reason,
        "set_at": now,
    }
    session.execute(
        insert(CallTerms)
        .values(organization_id=organization_id, **values)
        .on_conflict_do_update(index_elements=("organization_id",), set_=values)
    )
    record_action(session, "call_terms.set", organization_id, operator=operator, now=now)


def change_terms(
    session: Session,
    organization_id: str,
    changes: Mapping[str, Any],
    *,
    operator: Operator,
    now: datetime,
) -> Terms:
    """Change only the named terms; return all terms.

    Locks the wallet, so that two concurrent changes of different terms are both kept. Raises: as
    `set_terms`.
    """
    if lock_wallet(session, organization_id) is None:
        raise WalletNotFound(organization_id)
    terms = replace(terms_of(session, organization_id), **changes)
    set_terms(session, organization_id, terms, operator=operator, now=now)
    return terms


def _check_terms(terms: Terms) -> None:
    for name, (lowest, highest) in _TERM_BOUNDS.items():
        if not lowest <= getattr(terms, name) <= highest:
            raise InvalidCallTerms(f"{name} must be {lowest} to {highest}")
    for name in ("refusal_text", "warning_text", "ending_text"):
        text = getattr(terms, name)
        if not 0 < len(text.strip()) <= TEXT_LENGTH_MAX or "\0" in text:
            raise InvalidCallTerms(f"{name} must have 1 to {TEXT_LENGTH_MAX} characters")
