"""The sandbox's own keys, made at the first start and kept in the state folder.

Only the owner can read the files. Never put a real account's key into the folder.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.exchange import random_id

#: Common name and only alternative name of the certificate that signs PayPal's webhooks: the name
#: that PayPal's own sandbox uses. Source: the certificates of real deliveries.
CERTIFICATE_NAME = "messageverificationcerts.sandbox.paypal.com"
#: A certificate that expires within this time is renewed at the next start. PayPal renews its
#: certificate too.
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class Secrets:
    """The secrets that the four stand-ins share with their clients."""

    paypal_client_id: str
    paypal_client_secret: str
    paypal_webhook_id: str
    twilio_account_sid: str
    twilio_auth_token: str
    stripe_api_key: str
    stripe_webhook_secret: str
    vapi_api_key: str
    vapi_server_secret: str
    vapi_hmac_secret: str


@dataclass(frozen=True)
class Keys:
    """The shared secrets, and the key and certificate that sign PayPal's webhooks."""

    secrets: Secrets
    signer: rsa.RSAPrivateKey
    certificate_pem: bytes
    #: Last part of the certificate's address. A renewed certificate has another address.
    certificate_id: str
    ca_file: Path


def load_keys(folder: Path) -> Keys:
    """Read the keys from the folder, and generate the missing ones."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key, ca = _load_ca(folder)
    signer, leaf = _load_leaf(folder, ca_key, ca)
    return Keys(
        secrets=_load_secrets(folder / "secrets.json"),
        signer=signer,
        certificate_pem=leaf.public_bytes(serialization.Encoding.PEM),
        certificate_id=f"CERT-{leaf.fingerprint(hashes.SHA256()).hex()[:24]}",
        ca_file=(folder / "paypal-ca.pem").resolve(),
    )


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)


def _load_secrets(path: Path) -> Secrets:
    stored: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    generated = Secrets(
        paypal_client_id="A" + random_id(39),
        paypal_client_secret="E" + random_id(39),
        paypal_webhook_id=random_id(17),
        twilio_account_sid="AC" + secrets.token_hex(16),
        twilio_auth_token=secrets.token_hex(16),
        stripe_api_key="sk_test_" + secrets.token_hex(16),
        stripe_webhook_secret="whsec_" + secrets.token_hex(16),
        vapi_api_key=secrets.token_hex(16),
        vapi_server_secret=secrets.token_hex(16),
        vapi_hmac_secret=secrets.token_hex(32),
    )
    # A folder from an older version lacks the newer secrets. The missing ones are added, and the
    # stored ones keep their values.
    complete = Secrets(**asdict(generated) | stored)
    if asdict(complete) != stored:
        write_private(path, json.dumps(asdict(complete)).encode())
    return complete


def _load_ca(folder: Path) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    certificate_file = folder / "paypal-ca.pem"
    if certificate_file.exists():
        key = _read_key(folder / "paypal-ca.key")
        return key, x509.load_pem_x509_certificate(certificate_file.read_bytes())
    key = _create_key(folder / "paypal-ca.key")
    name = _distinguished_name("Holdfast Sandbox Issuer")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _certificate_builder(name, name, key.public_key(), days=3650)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def _load_leaf(
    folder: Path, ca_key: rsa.RSAPrivateKey, ca: x509.Certificate
) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    certificate_file = folder / "paypal-signer.pem"
    if certificate_file.exists():
        leaf = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        expires_soon = leaf.not_valid_after_utc - _RENEW_BEFORE <= datetime.now(UTC)
        if leaf.subject == _distinguished_name(CERTIFICATE_NAME) and not expires_soon:
            return _read_key(folder / "paypal-signer.key"), leaf
    key = _create_key(folder / "paypal-signer.key")
    usage = x509.KeyUsage(True, False, True, False, False, False, False, False, False)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    leaf = (
        _certificate_builder(
            _distinguished_name(CERTIFICATE_NAME), ca.subject, key.public_key(), days=365
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(CERTIFICATE_NAME)]), False)
        .add_extension(issuer_key, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(certificate_file, leaf.public_bytes(serialization.Encoding.PEM))
    return key, leaf


def _certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _distinguished_name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Holdfast Sandbox"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _create_key(path: Path) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, pem)
    return key


def _read_key(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError(f"{path.name} is not an RSA key")
    return key
