"""The sandbox's keys: kept between starts, and renewed when they no longer fit."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sandbox import keys as under_test
from sandbox.keys import load_keys


def name_in(certificate_pem: bytes) -> str:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def test_keys_are_the_same_at_the_next_start(tmp_path):
    first, second = load_keys(tmp_path), load_keys(tmp_path)
    assert second.secrets == first.secrets
    assert second.certificate_id == first.certificate_id
    assert name_in(first.certificate_pem) == "messageverificationcerts.sandbox.paypal.com"


def test_certificate_of_another_name_is_renewed(tmp_path, monkeypatch: pytest.MonkeyPatch):
    # Given a state folder of a version whose certificate had another name
    with monkeypatch.context() as older:
        older.setattr(under_test, "CERTIFICATE_NAME", "older.example")
        first = load_keys(tmp_path)
    assert name_in(first.certificate_pem) == "older.example"
    # Then the next start makes a certificate with the right name, at another address
    second = load_keys(tmp_path)
    assert name_in(second.certificate_pem) == "messageverificationcerts.sandbox.paypal.com"
    assert second.certificate_id != first.certificate_id
