"""The interface of the store that keeps PayPal's certificates beyond one process."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class RememberedCertificate(NamedTuple):
    """A certificate that one of our processes fetched and verified."""

    url: str
    pem: bytes
    age_seconds: float


class CertificateMemory(Protocol):
    """A store that outlives the process. Its methods log an outage and raise nothing."""

    def load(self) -> list[RememberedCertificate]:
        """Return the newest certificates in the store."""

    def save(self, url: str, pem: bytes) -> None:
        """Store a certificate that was just fetched and verified."""


class NoMemory:
    """Remembers nothing beyond the process."""

    def load(self) -> list[RememberedCertificate]:
        return []

    def save(self, url: str, pem: bytes) -> None:
        pass
