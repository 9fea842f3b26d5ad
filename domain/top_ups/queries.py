"""Read an organization's automatic top-up and its newest decisions. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db.models import TopUpDecision, TopUpSettings
from domain.top_ups.decisions import decisions_of
from domain.top_ups.rule import State
from domain.top_ups.settings import settings_of

#: Number of newest decisions that are read with the settings.
_DECISIONS = 10


@dataclass(frozen=True)
class TopUpSettingsView:
    """The terms of automatic top-up, and the operator's reason for them."""

    crossed_at: datetime | None
    next_check_at: datetime | None
    provider: str
    payment_method_id: str
    below_micros: int
    amount_micros: int
    day_cap_micros: int
    day_count_max: int
    set_by: str
    set_at: datetime
    reason: str


@dataclass(frozen=True)
class DecisionView:
    """A decision to top up. Once it is charged, its amount is the charged amount."""

    decision_id: str
    amount_micros: int
    currency: str
    state: str
    decided_at: datetime
    ended_at: datetime | None
    payment_id: str | None
    decline_code: str | None


@dataclass(frozen=True)
class TopUpView:
    """Automatic top-up: on, crossed (on, and a top-up is due), off or never_set.

    `settings` is None if automatic top-up was never set.
    """

    state: str
    settings: TopUpSettingsView | None
    decisions: list[DecisionView]


def read_top_up(session: Session, organization_id: str) -> TopUpView:
    """Read an organization's automatic top-up with its newest decisions."""
    settings = settings_of(session, organization_id)
    return TopUpView(
        _state(settings),
        None if settings is None else _settings(settings),
        [_decision(row) for row in decisions_of(session, organization_id, _DECISIONS)],
    )


def _state(settings: TopUpSettings | None) -> str:
    if settings is None:
        return "never_set"
    if not settings.enabled:
        return "off"
    return "on" if settings.armed else "crossed"


def _settings(row: TopUpSettings) -> TopUpSettingsView:
    return TopUpSettingsView(
        row.crossed_at,
        row.asks_at,
        row.provider,
        row.payment_method,
        row.below_micros,
        row.amount_micros,
        row.day_cap_micros,
        row.day_cap_count,
        row.set_by,
        row.set_at,
        row.set_why,
    )


def _decision(row: TopUpDecision) -> DecisionView:
    charging = row.state == State.DECIDED and row.charging_at is not None
    return DecisionView(
        row.id,
        row.charged_micros or row.amount_micros,
        row.currency,
        "charging" if charging else row.state,
        row.decided_at,
        row.ended_at,
        row.payment_external_id,
        row.decline_code,
    )
