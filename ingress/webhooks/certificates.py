"""The certificates known to be PayPal's, remembered in PostgreSQL for every ingress process."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from db import certificates
from db.engine import Database
from providers.paypal.certificate_memory import RememberedCertificate

log = get_logger(__name__)

#: The last one is a table that is not there yet: this version may start before its migration.
_OUTAGES = (NotYet, OutcomeUnknown, SQLAlchemyError)


class StoredCertificates:
    """Keeps them in the table paypal_certificates. An outage is logged: they are fetched anew."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[RememberedCertificate]:
        """Return the newest certificates; none while the database is away."""
        try:
            found = self._database.run(certificates.load)
        except _OUTAGES as error:
            log.warning("certificates_not_loaded", error=str(error))
            return []
        return [RememberedCertificate(*one) for one in found]

    def save(self, url: str, pem: bytes) -> None:
        """Store a certificate. Replay: the newer fetch takes the older one's place."""
        try:
            self._database.run(lambda session: certificates.save(session, url, pem))
        except _OUTAGES as error:
            log.warning("certificate_not_stored", url=url, error=str(error))
