"""PayPal's verified certificates, stored in PostgreSQL for all ingress processes."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from db import certificates
from db.engine import Database
from providers.paypal.certificate_memory import RememberedCertificate

log = get_logger(__name__)

#: SQLAlchemyError covers a missing table: this version may start before its migration.
_OUTAGES = (NotYet, OutcomeUnknown, SQLAlchemyError)


class StoredCertificates:
    """Keeps certificates in the table `paypal_certificates`.

    A database failure is only logged; the certificates are then fetched again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[RememberedCertificate]:
        """Load the newest certificates; none if the database is unavailable."""
        try:
            found = self._database.run(certificates.load)
        except _OUTAGES as error:
            log.warning("certificates_not_loaded", error=str(error))
            return []
        return [RememberedCertificate(*one) for one in found]

    def save(self, url: str, pem: bytes) -> None:
        """Store a certificate. Replay: the newer copy replaces the older one."""
        try:
            self._database.run(lambda session: certificates.save(session, url, pem))
        except _OUTAGES as error:
            log.warning("certificate_not_stored", url=url, error=str(error))
