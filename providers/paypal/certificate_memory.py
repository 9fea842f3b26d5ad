"""What is remembered of PayPal's certificates beyond one process."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class RememberedCertificate(NamedTuple):
    """A certificate that some process of ours once fetched and verified."""

    url: str
    pem: bytes
    age_seconds: float


class CertificateMemory(Protocol):
    """What outlives the process. Both methods log an outage instead of raising."""

    def load(self) -> list[RememberedCertificate]:
        """Return the newest certificates that were remembered."""

    def save(self, url: str, pem: bytes) -> None:
        """Remember a certificate that was just fetched and verified."""


class NoMemory:
    """Remembers nothing beyond the process."""

    def load(self) -> list[RememberedCertificate]:
        return []

    def save(self, url: str, pem: bytes) -> None:
        pass
