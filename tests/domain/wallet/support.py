"""Helpers that freeze, unfreeze, override and rebuild wallets."""

from __future__ import annotations

import secrets

import psycopg
from sqlalchemy import text

from base.enums import FreezeReason
from base.operators import Operator
from db.address import driver_url
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallets
from tests.domain.support import ANN, T0

MANUAL = FreezeReason.MANUAL


def freeze(database, org, reason=MANUAL, **more):
    return database.run(
        lambda session: wallet_freezes.freeze(
            session, org, reason, **{"operator": ANN, "now": T0, **more}
        )
    )


def unfreeze(database, org, reason=MANUAL, **more):
    return database.run(
        lambda session: wallet_freezes.unfreeze(
            session, org, reason, **{"operator": ANN, "now": T0, **more}
        )
    )


def override(database, org, until, reason=MANUAL, now=T0):
    database.run(
        lambda session: wallet_freezes.override(
            session, org, reason, until=until, operator=Operator("ann", "emergency"), now=now
        )
    )


def rebuild(database, org):
    return database.run(
        lambda session: wallets.rebuild(session, org, operator=Operator("ann", "disk"), now=T0)
    )


def as_owner(urls, statement, *, broken=False):
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        if broken:
            owner.execute("SET session_replication_role = replica")
        owner.execute(statement)


def bare_organization(database):
    org = f"org_{secrets.token_hex(8)}"
    database.run(
        lambda session: session.execute(
            text("INSERT INTO organizations VALUES (:id, 'bare', now())"), {"id": org}
        )
    )
    return org
