"""Store PayPal's verified signing certificates, for processes that start later."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

#: Largest number of certificates that are loaded. PayPal uses one or two at a time.
_LOADED_MAX = 16
#: Days after which a certificate that was not fetched again is deleted.
_FORGOTTEN_DAYS = 60


class StoredCertificate(NamedTuple):
    """A certificate, its address, and the seconds since it was fetched from there."""

    url: str
    pem: bytes
    age_seconds: float


def load(session: Session) -> list[StoredCertificate]:
    """Load the most recently fetched certificates, newest first."""
    rows: Any = session.execute(
        text(
            "SELECT url, pem, extract(epoch FROM clock_timestamp() - fetched_at) AS age"
            " FROM paypal_certificates ORDER BY fetched_at DESC LIMIT :most"
        ),
        {"most": _LOADED_MAX},
    )
    return [StoredCertificate(row.url, bytes(row.pem), float(row.age)) for row in rows]


def save(session: Session, url: str, pem: bytes) -> None:
    """Store a certificate that was just fetched, and delete those no longer used."""
    session.execute(
        text(
            "INSERT INTO paypal_certificates (url, pem, fetched_at)"
            " VALUES (:url, :pem, clock_timestamp()) ON CONFLICT (url) DO UPDATE"
            " SET pem = excluded.pem, fetched_at = excluded.fetched_at"
        ),
        {"url": url, "pem": pem},
    )
    session.execute(
        text(
            "DELETE FROM paypal_certificates"
            " WHERE fetched_at < clock_timestamp() - make_interval(days => :days)"
        ),
        {"days": _FORGOTTEN_DAYS},
    )
