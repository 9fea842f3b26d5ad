"""The settings of automatic top-up: on, with terms and a payment method, or off."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import Provider
from base.money import AMOUNT_MICROS_MAX
from base.operators import Operator
from base.outcomes import Refused
from base.problems.calls import INVALID_TERMS
from base.problems.payments import CANNOT_CHARGE, TOP_UP_NOT_SET
from db.locks import lock_organization, lock_wallet
from db.models import TopUpSettings, Wallet
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.top_ups.decisions import expire_decisions
from domain.top_ups.rule import TopUpTerms
from domain.wallet.ledger import WalletNotFound

#: Largest number of charges in 24 hours, whatever the terms.
DAY_COUNT_MAX = 100
#: Longest id of a payment method, in characters. The database checks the same limit.
_METHOD_LENGTH_MAX = 200


class CannotCharge(Refused):
    """The provider cannot charge a stored payment method, so top-up could never work."""

    def __init__(self, provider: str) -> None:
        super().__init__(CANNOT_CHARGE, provider)


class InvalidTopUpTerms(Refused):
    """The terms contradict each other or are out of bounds."""

    def __init__(self, detail: str) -> None:
        super().__init__(INVALID_TERMS, detail)


class TopUpNotSet(Refused):
    """Automatic top-up was never switched on for the organization."""

    def __init__(self, organization_id: str) -> None:
        super().__init__(TOP_UP_NOT_SET, organization_id, organization=organization_id)


@dataclass(frozen=True)
class Method:
    """The payment method: the provider, and the provider's id of the stored method."""

    provider: Provider
    external_id: str


def settings_of(session: Session, organization_id: str) -> TopUpSettings | None:
    """Return the organization's settings; None if top-up was never switched on."""
    return session.get(TopUpSettings, organization_id, populate_existing=True)


def switch_on(
    session: Session,
    organization_id: str,
    terms: TopUpTerms,
    method: Method,
    *,
    chargeable: Collection[Provider],
    operator: Operator,
    now: datetime,
) -> TopUpSettings:
    """Switch automatic top-up on, or change its terms.

    A pending decision expires if its charge has not begun, because it was made on the old terms. If
    available money is below the level, the level counts as crossed at once. Units: amounts are 1 to
    10^15 micros, charges 1 to 100 in 24 hours. Raises: CannotCharge, InvalidTopUpTerms,
    OrganizationNotFound, WalletNotFound.
    """
    if method.provider not in chargeable:
        raise CannotCharge(method.provider)
    _check(terms, method)
    _lock(session, organization_id)
    expire_decisions(session, organization_id, now, all_waiting=True)
    settings = settings_of(session, organization_id)
    if settings is None:
        settings = TopUpSettings(organization_id=organization_id)
        session.add(settings)
    settings.enabled, settings.armed, settings.crossed_at = True, True, None
    settings.provider, settings.payment_method = str(method.provider), method.external_id
    settings.below_micros, settings.amount_micros = terms.below_micros, terms.amount_micros
    settings.day_cap_micros, settings.day_cap_count = terms.day_cap_micros, terms.day_cap_count
    settings.set_by, settings.set_why, settings.set_at = operator.name, operator.reason, now
    return _written(session, settings)


def switch_off(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> TopUpSettings:
    """Switch automatic top-up off, and expire a decision that waits for its charge.

    A charge that has begun still ends with the provider's result. Replay: settings that are off are
    left unchanged. Raises: TopUpNotSet, OrganizationNotFound, WalletNotFound.
    """
    _lock(session, organization_id)
    settings = settings_of(session, organization_id)
    if settings is None:
        raise TopUpNotSet(organization_id)
    if not settings.enabled:
        return settings
    expire_decisions(session, organization_id, now, all_waiting=True)
    settings.enabled, settings.armed, settings.crossed_at = False, True, None
    settings.set_by, settings.set_why, settings.set_at = operator.name, operator.reason, now
    for kind in (AlertKind.TOP_UP_DECLINED, AlertKind.TOP_UP_CAPPED):
        clear_alerts(session, kind, organization_id, now=now)
    return _written(session, settings)


def _check(terms: TopUpTerms, method: Method) -> None:
    below, amount, day_cap, count = astuple(terms)
    if not all(1 <= micros <= AMOUNT_MICROS_MAX for micros in (below, amount, day_cap)):
        raise InvalidTopUpTerms(f"each amount is 1 to {AMOUNT_MICROS_MAX} micros")
    if amount > day_cap:
        raise InvalidTopUpTerms("one top-up is more than the cap of a day")
    if not 1 <= count <= DAY_COUNT_MAX:
        raise InvalidTopUpTerms(f"1 to {DAY_COUNT_MAX} charges a day, not {count}")
    if not method.external_id.strip() or len(method.external_id) > _METHOD_LENGTH_MAX:
        raise InvalidTopUpTerms(f"a payment method's id has 1 to {_METHOD_LENGTH_MAX} characters")


def _lock(session: Session, organization_id: str) -> None:
    lock_organization(session, organization_id)
    if lock_wallet(session, organization_id) is None:
        raise WalletNotFound(organization_id)


def _written(session: Session, settings: TopUpSettings) -> TopUpSettings:
    """Read the row again after the database's triggers have changed it and the wallet."""
    session.flush()
    session.expire(session.get_one(Wallet, settings.organization_id))
    session.refresh(settings)
    return settings
