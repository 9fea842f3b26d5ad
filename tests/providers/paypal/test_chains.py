from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA224, SHA384, SHA512

from providers.errors import CertificateUnavailable, ForgedWebhook
from providers.paypal.chains import load_bundle, trusted_certificate
from tests.providers.support import LIVE_NAME, NOW, Issued, issue, sample

SANDBOX_NAME = "messageverificationcerts.sandbox.paypal.com"


@pytest.fixture(scope="module")
def intermediate(root: Issued) -> Issued:
    return issue("An intermediate", root, ca=True, path_length=0)


@pytest.fixture(scope="module")
def below(intermediate: Issued) -> Issued:
    return issue(LIVE_NAME, intermediate)


def check(leaf: Issued, *issuers: Issued, name: str = LIVE_NAME, now: datetime = NOW) -> None:
    bundle = load_bundle(b"".join(issuer.pem for issuer in issuers)) if issuers else None
    trusted_certificate(leaf.pem, name, bundle).check_instant(now)


def test_chain_to_a_configured_issuer_is_accepted(root, leaf, intermediate, below):
    check(leaf)
    check(leaf, root)
    check(below, root, intermediate)
    check(below, intermediate)


@pytest.mark.parametrize(
    ("cert", "name", "at"),
    [
        ("live-2024_CERT-360caa42-fca2a594-1a5f47cb", LIVE_NAME, datetime(2024, 7, 30, tzinfo=UTC)),
        (
            "sandbox-2015_CERT-360caa42-fca2a594-a5cafa77",
            SANDBOX_NAME,
            datetime(2015, 5, 12, tzinfo=UTC),
        ),
    ],
)
def test_paypals_real_certificates_chain_to_digicerts(cert, name, at):
    # Given the certificates of real deliveries, and the issuers from PayPal's SDK
    pem = sample(f"paypal/certs/{cert}.pem").read_bytes()
    bundle = load_bundle(
        sample("paypal/certs/DigiCertSHA2ExtendedValidationServerCA.crt.pem").read_bytes()
        + b"\n"
        + sample("paypal/certs/DigiCertHighAssuranceEVRootCA.crt.pem").read_bytes()
    )
    # When checked at the time of the delivery, Then they are valid; in 2026 they have expired
    certificate = trusted_certificate(pem, name, bundle)
    certificate.check_instant(at)
    with pytest.raises(ForgedWebhook):
        certificate.check_instant(datetime(2026, 10, 1, tzinfo=UTC))
    # And neither is accepted for the other environment
    with pytest.raises(ForgedWebhook):
        trusted_certificate(pem, LIVE_NAME if name == SANDBOX_NAME else SANDBOX_NAME, bundle)


def test_certificate_with_another_name_is_forged(root, leaf):
    for name in ("paypal.com", f"x.{LIVE_NAME}", SANDBOX_NAME, f"{LIVE_NAME}.evil.example"):
        with pytest.raises(ForgedWebhook):
            check(leaf, name=name)
    # Given PayPal's name as the common name, but another name in the extension that takes
    # precedence
    with pytest.raises(ForgedWebhook):
        check(issue(LIVE_NAME, root, key=leaf.key, san="evil.example"))
    check(issue(LIVE_NAME, root, key=leaf.key, san=None))
    with pytest.raises(ForgedWebhook):
        check(issue("*.paypal.com", root, key=leaf.key))


def test_issuer_with_the_same_name_and_another_key_is_forged(root, leaf):
    impostor = issue("A root", ca=True)
    with pytest.raises(ForgedWebhook):
        check(leaf, impostor)
    with pytest.raises(ForgedWebhook):
        check(issue(LIVE_NAME, impostor, key=leaf.key), root)
    # Given both in the bundle, as when an issuer renews its key, Then the right one is found
    check(leaf, impostor, root)


def test_issuer_that_may_not_issue_is_forged(root, leaf, intermediate, below):
    # Given an ordinary certificate of the same issuer that signs another one
    ordinary = issue("ordinary.example", root)
    with pytest.raises(ForgedWebhook):
        check(issue(LIVE_NAME, ordinary, key=leaf.key), root, ordinary)
    # Given an intermediate below one that may have none below it
    deeper = issue("A deeper one", intermediate, ca=True)
    with pytest.raises(ForgedWebhook):
        check(issue(LIVE_NAME, deeper, key=leaf.key), root, intermediate, deeper)


@pytest.mark.parametrize("is_issuer_allowed", [True, False])
def test_issuer_is_accepted_if_its_key_usage_allows_certificates(root, is_issuer_allowed):
    issuer = issue("An issuer", root, ca=True, may_sign_certificates=is_issuer_allowed)
    leaf = issue(LIVE_NAME, issuer)
    if is_issuer_allowed:
        check(leaf, root, issuer)
        return
    with pytest.raises(ForgedWebhook, match="does not chain"):
        check(leaf, root, issuer)


@pytest.mark.parametrize(
    ("algorithm", "is_strong"), [(SHA224(), False), (SHA384(), True), (SHA512(), True)]
)
def test_certificate_is_accepted_if_its_signature_hash_is_strong(root, algorithm, is_strong):
    leaf = issue(LIVE_NAME, root, algorithm=algorithm)
    if is_strong:
        check(leaf, root)
        return
    with pytest.raises(ForgedWebhook, match="does not chain"):
        check(leaf, root)


def test_chain_of_up_to_four_issuers_is_accepted(root):
    # One key signs all of them, since only the number of issuers matters
    chain = [root]
    for number in range(4):
        chain.append(issue(f"Issuer {number}", chain[-1], key=root.key, ca=True))
    check(issue(LIVE_NAME, chain[3], key=root.key), *chain)
    with pytest.raises(ForgedWebhook, match="does not chain"):
        check(issue(LIVE_NAME, chain[4], key=root.key), *chain)


def test_issuers_that_issue_each_other_are_forged(root):
    first = issue("The other", ca=True)
    one = issue("The one", first, ca=True)
    other = issue("The other", one, key=first.key, ca=True)
    with pytest.raises(ForgedWebhook, match="does not chain"):
        check(issue(LIVE_NAME, one, key=root.key), one, other)


def test_self_signed_certificate_is_forged(root):
    with pytest.raises(ForgedWebhook):
        check(issue(LIVE_NAME), root)


def test_every_certificate_of_the_chain_must_be_valid(root, below, intermediate):
    brief = issue(
        "An intermediate", root, key=intermediate.key, ca=True, start=NOW - timedelta(9), days=5
    )
    check(below, root, intermediate)
    check(below, root, brief, now=NOW - timedelta(7))
    with pytest.raises(ForgedWebhook):
        check(below, root, brief)
    # Given an expired root in the bundle, Then a chain may not end below it
    old_root = issue("A root", key=root.key, ca=True, start=NOW - timedelta(900), days=300)
    with pytest.raises(ForgedWebhook):
        check(below, old_root, intermediate)


def test_weak_or_unknown_key_is_forged(root):
    with pytest.raises(ForgedWebhook):
        check(issue(LIVE_NAME, root, bits=1024))
    curve = issue(LIVE_NAME, root, key=ec.generate_private_key(ec.SECP256R1()))  # type: ignore[arg-type]
    with pytest.raises(ForgedWebhook):
        check(curve)


def test_page_instead_of_a_certificate_leaves_it_undecided():
    with pytest.raises(CertificateUnavailable):
        trusted_certificate(b"<html>", LIVE_NAME, None)


def test_bundle_without_certificates_is_an_error():
    with pytest.raises(ValueError, match=r"."):
        load_bundle(b"")
