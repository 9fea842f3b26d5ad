"""Verifies that a certificate is PayPal's: its name, validity, key and issuers.

PayPal serves only its own certificate, the leaf. The usual root stores no longer have the leaf's
issuer, so an operator configures the issuers. A TLS verifier would refuse the leaf, because it
requires a root and applies today's policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID

from providers.errors import CertificateUnavailable, ForgedWebhook

#: Bits of the smallest RSA key that is accepted. PayPal's keys have 2048.
_KEY_BITS_MIN = 2048
#: The most certificates above the leaf in one chain. PayPal's chain has an intermediate and a root.
_ISSUERS_MAX = 4
_ACCEPTED_HASHES = frozenset({"sha256", "sha384", "sha512"})
_EXTENSION_ERRORS = (x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True)
class TrustedCertificate:
    """A PayPal key, and the times at which its certificate and issuers are valid."""

    key: RSAPublicKey
    #: Pairs of the first and the last valid instant, one pair for each chain to the issuers.
    periods: tuple[tuple[datetime, datetime], ...]

    def check_instant(self, now: datetime) -> None:
        """Check that the certificate and at least one chain above it are valid at `now`.

        Raises: ForgedWebhook if they are not.
        """
        if not any(start <= now <= end for start, end in self.periods):
            raise ForgedWebhook("the certificate or an issuer is not valid at this time")


def load_bundle(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Read the issuers' certificates. Raises: ValueError if there is none."""
    return tuple(x509.load_pem_x509_certificates(pem))


def trusted_certificate(
    pem: bytes, name: str, issuers: tuple[x509.Certificate, ...] | None
) -> TrustedCertificate:
    """Check that the served bytes are a PayPal certificate, except for the time.

    Without issuers, TLS to PayPal's own host is the proof. Raises: CertificateUnavailable if the
    bytes are no certificate, because PayPal has served HTML instead. ForgedWebhook if the name, the
    key or the issuers are wrong.
    """
    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
        key = leaf.public_key()
        is_named = _is_issued_to(leaf, name)
    except (ValueError, UnsupportedAlgorithm, *_EXTENSION_ERRORS):
        raise CertificateUnavailable("PayPal's response is not a certificate") from None
    if not is_named:
        raise ForgedWebhook("the certificate was issued to another name")
    if not isinstance(key, RSAPublicKey) or key.key_size < _KEY_BITS_MIN:
        raise ForgedWebhook("the certificate's key is not RSA of 2048 bits or more")
    period = (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    if issuers is None:
        return TrustedCertificate(key, (period,))
    periods = tuple(_validity_periods(leaf, issuers, depth=0))
    if not periods:
        raise ForgedWebhook("the certificate does not chain to the configured issuers")
    return TrustedCertificate(key, periods)


def _is_issued_to(leaf: x509.Certificate, name: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common_names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [attribute.value for attribute in common_names] == [name]
    return name in names.get_values_for_type(x509.DNSName)


def _validity_periods(
    certificate: x509.Certificate, issuers: tuple[x509.Certificate, ...], depth: int
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the common validity of each chain above a certificate.

    A chain ends at a root, or where the bundle has no certificate with the issuer's name. The
    configuration makes every certificate in the bundle trusted, so a bundle may be a single
    intermediate. If the bundle has an issuer of that name, the chain must go through it.
    """
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if depth and certificate.issuer == certificate.subject:
        yield start, end
        return
    issuers_of_name = [issuer for issuer in issuers if issuer.subject == certificate.issuer]
    if depth and not issuers_of_name:
        yield start, end
        return
    if depth >= _ISSUERS_MAX:
        return
    for issuer in issuers_of_name:
        if _may_issue(issuer, depth) and _is_signed_by(certificate, issuer):
            for issuer_start, issuer_end in _validity_periods(issuer, issuers, depth + 1):
                yield max(start, issuer_start), min(end, issuer_end)


def _may_issue(issuer: x509.Certificate, intermediates_below: int) -> bool:
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError, *_EXTENSION_ERRORS):
        return False
    if not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < intermediates_below:
        return False
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        algorithm = certificate.signature_hash_algorithm
        if algorithm is None or algorithm.name not in _ACCEPTED_HASHES:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
