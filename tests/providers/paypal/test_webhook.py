from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from base.outcomes import ProviderUnavailable
from base.settings import Settings, SettingsError
from providers.errors import CertificateUnavailable, ForgedWebhook, MalformedWebhook
from providers.paypal.api import PayPalApi
from providers.paypal.certificates import CERTIFICATES_PATH
from providers.paypal.webhook import (
    PayPalWebhookVerifier,
    VerifiedWebhook,
    is_signed,
    transmission_of,
)
from tests.providers.support import (
    NOW,
    SAMPLES,
    WEBHOOK_ID,
    Issued,
    Loopback,
    Reply,
    json_reply,
    sample,
    sign,
    with_same_crc32,
)

BODY = (
    '{"id":"WH-1","create_time":"2026-05-04T11:00:00Z","event_type":"PAYMENT.CAPTURE.COMPLETED",'
    '"summary":"9 €","resource":{"id":"3C1"}}'
).encode()
DIGICERT = ("DigiCertSHA2ExtendedValidationServerCA", "DigiCertHighAssuranceEVRootCA")
SIGNED = sorted(path.stem for path in (SAMPLES / "paypal" / "signed").glob("*.body"))


@pytest.fixture
def url(loopback: Loopback, leaf: Issued) -> str:
    loopback.answer = lambda asked: Reply(200, leaf.pem)
    return f"{loopback.url}{CERTIFICATES_PATH}CERT-1"


@pytest.fixture
def verifier(loopback: Loopback, url: str, api: PayPalApi) -> Iterator[PayPalWebhookVerifier]:
    settings = Settings(paypal_base_url=loopback.url, paypal_webhook_id=WEBHOOK_ID)
    built = PayPalWebhookVerifier.from_settings(settings, api)
    yield built
    built.close()


def delivery(name: str) -> tuple[dict[str, str], bytes, str, bytes]:
    meta = json.loads(sample(f"paypal/signed/{name}.meta.json").read_text())
    body = sample(f"paypal/signed/{name}.body").read_bytes()
    pem = sample(f"paypal/{meta['cert_file']}").read_bytes()
    return meta["headers"], body, meta["webhook_id"], pem


def proved(verifier: PayPalWebhookVerifier, headers: dict[str, str], body: bytes, *, now: datetime):
    return verifier.verify(transmission_of(headers), body, now=now)


def key_of(pem: bytes):
    return x509.load_pem_x509_certificate(pem).public_key()


@pytest.mark.parametrize("name", SIGNED or ["absent"])
def test_every_real_signed_sample_verifies(name):
    # Given a message that PayPal signed, and the certificate it names
    headers, body, webhook_id, pem = delivery(name)
    transmission = transmission_of(headers)
    # Then it is valid for its own webhook and body only
    assert is_signed(key_of(pem), transmission, webhook_id, body)
    assert not is_signed(key_of(pem), transmission, WEBHOOK_ID, body)
    assert not is_signed(key_of(pem), transmission, webhook_id, body + b" ")


def test_real_delivery_is_verified_at_its_own_time(loopback, api, tmp_path):
    # Given the sandbox's delivery of 2015, its certificate, and DigiCert's issuers
    headers, body, webhook_id, pem = delivery("sandbox_payment_sale_completed_2015a")
    loopback.answer = lambda asked: Reply(200, pem)
    at = datetime(2015, 5, 12, 18, 15, tzinfo=UTC)
    issuers = tmp_path / "issuers.pem"
    issuers.write_bytes(
        b"\n".join(sample(f"paypal/certs/{name}.crt.pem").read_bytes() for name in DIGICERT)
    )
    settings = Settings(
        paypal_base_url=loopback.url,
        paypal_webhook_id=webhook_id,
        paypal_environment="sandbox",
        paypal_ca_file=issuers,
    )
    verifier = PayPalWebhookVerifier.from_settings(settings, api)
    here = {**headers, "PAYPAL-CERT-URL": f"{loopback.url}{CERTIFICATES_PATH}CERT-1"}
    # When verified at its time, Then it is accepted as PayPal's
    verified = proved(verifier, here, body, now=at)
    assert verified.external_id == "WH-2W7266712B616591M-36507203HX6402335"
    assert verified.event_type == "PAYMENT.SALE.COMPLETED"
    # And not eleven years later
    with pytest.raises(ForgedWebhook):
        proved(verifier, here, body, now=NOW)
    verifier.close()


@pytest.mark.parametrize("name", [name for name in SIGNED if name.startswith("sim_")] or ["absent"])
def test_simulator_message_is_refused_under_our_webhook_id(name, loopback, verifier):
    # Given a message of the simulator, signed with PayPal's live certificate
    headers, body, _, pem = delivery(name)
    loopback.answer = lambda asked: Reply(200, pem)
    here = {key.lower(): value for key, value in headers.items()}
    here["paypal-cert-url"] = f"{loopback.url}{CERTIFICATES_PATH}CERT-1"
    at = datetime.fromisoformat(here["paypal-transmission-time"])
    # When verified at its time, Then it is refused, because it was signed for another webhook
    with pytest.raises(ForgedWebhook, match="signature"):
        proved(verifier, here, body, now=at)


@pytest.mark.parametrize(
    "webhook_id", ["WEBHOOK_ID", "webhook_id", "", "a b", "x" * 51, "a|b", "a-b", "a_b"]
)
def test_simulators_webhook_id_is_refused_as_a_setting(webhook_id, verifier):
    with pytest.raises(SettingsError):
        PayPalWebhookVerifier(webhook_id=webhook_id, certificates=verifier.certificates)


def test_verifier_requires_a_webhook_id(api):
    with pytest.raises(SettingsError, match="PAYPAL_WEBHOOK_ID"):
        PayPalWebhookVerifier.from_settings(Settings(), api)


def test_signed_message_is_verified(verifier, url, leaf):
    headers = sign(leaf.key, BODY, url=url)
    assert proved(verifier, headers, BODY, now=NOW) == VerifiedWebhook(
        external_id="WH-1",
        event_type="PAYMENT.CAPTURE.COMPLETED",
        transmission_id="b2384410-f8d2-11e4-8bf3-77339302725b",
    )
    # And the case of header names does not matter
    shouted = {key.title(): value for key, value in headers.items()}
    assert proved(verifier, shouted, BODY, now=NOW).external_id == "WH-1"


def test_another_body_with_the_same_crc32_passes_the_verifier(verifier, url, leaf):
    # Given a genuine message, and a body with the same CRC32 that names another payment
    headers = sign(leaf.key, BODY, url=url)
    forged = with_same_crc32(BODY.replace(b"3C1", b"9X9"), zlib.crc32(BODY))
    assert zlib.crc32(forged) == zlib.crc32(BODY)
    assert json.loads(forged)["resource"]["id"] == "9X9"
    # When the forged body is verified with the genuine signature, Then it passes: the signature
    # covers only a CRC32. The inbox refuses it, because the transmission ID is already stored with
    # another body.
    genuine, other = (proved(verifier, headers, body, now=NOW) for body in (BODY, forged))
    assert genuine.transmission_id == other.transmission_id


@pytest.mark.parametrize(
    "time",
    ["2026-05-04t11:59:58z", "2026-05-04T11:58:60Z", "2026-05-04T11:59:58.12345678901Z"],
)
def test_webhook_is_verified_in_every_format_of_its_time(time, verifier, url, leaf):
    headers = sign(leaf.key, BODY, url=url, time=time)
    assert proved(verifier, headers, BODY, now=NOW).event_type == "PAYMENT.CAPTURE.COMPLETED"


@pytest.mark.parametrize("length", [1, 255])
def test_signature_of_another_length_is_forged_without_a_request(
    length, verifier, url, leaf, loopback
):
    headers = sign(leaf.key, BODY, url=url)
    headers["PAYPAL-TRANSMISSION-SIG"] = base64.b64encode(b"x" * length).decode()
    with pytest.raises(ForgedWebhook):
        proved(verifier, headers, BODY, now=NOW)
    assert loopback.asked == []


HEADERS = [
    "PAYPAL-TRANSMISSION-ID",
    "PAYPAL-TRANSMISSION-TIME",
    "PAYPAL-TRANSMISSION-SIG",
    "PAYPAL-CERT-URL",
    "PAYPAL-AUTH-ALGO",
]


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("value", [None, "", "x" * 501, "é", "a|b", " ", "0"])
def test_missing_or_invalid_header_is_forged_without_a_request(
    name, value, verifier, url, leaf, loopback
):
    headers = sign(leaf.key, BODY, url=url)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(ForgedWebhook):
        proved(verifier, headers, BODY, now=NOW)
    if not (name == "PAYPAL-TRANSMISSION-ID" and value == "0"):  # A valid id that was not signed.
        with pytest.raises(ForgedWebhook):
            verifier.needs_request(transmission_of(headers))
        assert loopback.asked == []


@pytest.mark.parametrize(
    ("name", "character"), [("PAYPAL-TRANSMISSION-SIG", "A"), ("PAYPAL-CERT-URL", "x")]
)
def test_header_of_more_than_500_characters_is_forged(name, character, url, leaf):
    headers = sign(leaf.key, BODY, url=url)
    assert transmission_of({**headers, name: character * 500}).id
    # Base64 has blocks of four characters, so only the length is wrong
    with pytest.raises(ForgedWebhook, match="is malformed"):
        transmission_of({**headers, name: character * 504})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYPAL-TRANSMISSION-ID", "b2384410-f8d2-11e4-8bf3-77339302725c"),
        ("PAYPAL-TRANSMISSION-TIME", "2026-05-04T11:59:59Z"),
        ("PAYPAL-TRANSMISSION-TIME", "2026-05-04T11:59:58.000Z"),
        ("PAYPAL-TRANSMISSION-SIG", base64.b64encode(b"x" * 256).decode()),
        ("PAYPAL-TRANSMISSION-SIG", base64.b64encode(b"x").decode()),
        ("PAYPAL-TRANSMISSION-SIG", "not base64!"),
        ("PAYPAL-AUTH-ALGO", "SHA1withRSA"),
        ("PAYPAL-AUTH-ALGO", "sha256withrsa"),
        ("PAYPAL-AUTH-ALGO", "none"),
    ],
)
def test_altered_header_is_forged(name, value, verifier, url, leaf):
    headers = {**sign(leaf.key, BODY, url=url), name: value}
    with pytest.raises(ForgedWebhook):
        proved(verifier, headers, BODY, now=NOW)


def test_header_with_two_values_is_forged(verifier, url, leaf):
    headers = {**sign(leaf.key, BODY, url=url), "paypal-cert-url": f"{url}2"}
    with pytest.raises(ForgedWebhook):
        proved(verifier, headers, BODY, now=NOW)


def test_message_signed_by_another_key_is_forged(verifier, url, root):
    with pytest.raises(ForgedWebhook):
        proved(verifier, sign(root.key, BODY, url=url), BODY, now=NOW)


@pytest.mark.parametrize(
    ("age", "accepted"),
    [
        (timedelta(0), True),
        (timedelta(days=3, hours=1), True),
        (timedelta(days=3, hours=1, seconds=1), False),
        (timedelta(hours=-1), True),
        (timedelta(hours=-1, seconds=-1), False),
    ],
)
def test_transmission_is_accepted_while_paypal_repeats_it(
    age, accepted, verifier, url, leaf, loopback
):
    time = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = sign(leaf.key, BODY, url=url, time=time)
    if accepted:
        proved(verifier, headers, BODY, now=NOW)
        return
    with pytest.raises(ForgedWebhook):
        proved(verifier, headers, BODY, now=NOW)
    assert loopback.asked == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"not json", b'{"id":"1","id":"2"}'])
def test_empty_message_is_malformed_if_verified_and_forged_otherwise(
    body, verifier, url, leaf, root
):
    with pytest.raises(MalformedWebhook):
        proved(verifier, sign(leaf.key, body, url=url), body, now=NOW)
    # The signature is checked first.
    with pytest.raises(ForgedWebhook):
        proved(verifier, sign(root.key, body, url=url), body, now=NOW)


def test_only_the_first_message_needs_the_network(verifier, url, leaf, loopback):
    headers = sign(leaf.key, BODY, url=url)
    assert verifier.needs_request(transmission_of(headers))
    proved(verifier, headers, BODY, now=NOW)
    assert not verifier.needs_request(transmission_of(headers))
    asked = len(loopback.asked)
    proved(verifier, headers, BODY, now=NOW)
    assert len(loopback.asked) == asked


def test_certificate_url_of_another_host_is_refused(verifier, leaf, loopback):
    evil = f"{loopback.url}@evil.example{CERTIFICATES_PATH}CERT-1"
    with pytest.raises(ForgedWebhook):
        proved(verifier, sign(leaf.key, BODY, url=evil), BODY, now=NOW)
    assert loopback.asked == []


def test_missing_certificate_leaves_the_message_undecided(verifier, url, leaf, loopback):
    loopback.answer = lambda asked: Reply(503)
    with pytest.raises(CertificateUnavailable):
        proved(verifier, sign(leaf.key, BODY, url=url), BODY, now=NOW)


@pytest.fixture
def asking(loopback: Loopback, url: str, api: PayPalApi) -> Iterator[PayPalWebhookVerifier]:
    settings = Settings(
        paypal_base_url=loopback.url, paypal_webhook_id=WEBHOOK_ID, paypal_verification="api"
    )
    built = PayPalWebhookVerifier.from_settings(settings, api)
    yield built
    built.close()


def answer_verification(loopback: Loopback, reply: Reply | None) -> None:
    loopback.answer = lambda asked: (
        json_reply({"access_token": "T", "expires_in": 32400})
        if asked.path == "/v1/oauth2/token"
        else reply
    )


def test_verification_request_contains_the_body_byte_for_byte(asking, loopback, url, leaf):
    # Given a body that changes if it is parsed and written again, and a PayPal that accepts it
    body = BODY.replace(b'"summary":', b'"price": 1.0,  "summary":')
    answer_verification(loopback, json_reply({"verification_status": "SUCCESS"}))
    headers = sign(leaf.key, body, url=url)
    # When it is verified
    assert asking.needs_request(transmission_of(headers))
    assert proved(asking, headers, body, now=NOW).external_id == "WH-1"
    # Then PayPal received the original body, our webhook's id, and the transmission
    question = loopback.asked[-1].body
    assert body in question
    asked = json.loads(question)
    assert asked["webhook_id"] == WEBHOOK_ID
    assert asked["webhook_event"] == json.loads(body)
    assert asked["transmission_time"] == headers["PAYPAL-TRANSMISSION-TIME"]
    assert asked["transmission_sig"] == headers["PAYPAL-TRANSMISSION-SIG"]
    assert loopback.paths(CERTIFICATES_PATH) == []


def test_certificate_of_another_host_is_forged_without_a_request(asking, loopback, url, leaf):
    # Given a PayPal that would accept it
    answer_verification(loopback, json_reply({"verification_status": "SUCCESS"}))
    elsewhere = url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(ForgedWebhook):
        proved(asking, sign(leaf.key, BODY, url=elsewhere), BODY, now=NOW)
    assert loopback.asked == []


def test_message_is_forged_when_paypal_answers_failure(asking, loopback, url, leaf):
    answer_verification(loopback, json_reply({"verification_status": "FAILURE"}))
    with pytest.raises(ForgedWebhook):
        proved(asking, sign(leaf.key, BODY, url=url), BODY, now=NOW)


@pytest.mark.parametrize(
    "reply",
    [None, Reply(500), Reply(429), json_reply({}), json_reply({}, 400), Reply(200, b"<html>")],
    ids=["lost", "500", "429", "no verdict", "400", "html"],
)
def test_error_of_paypals_api_leaves_the_message_undecided(asking, loopback, url, leaf, reply):
    answer_verification(loopback, reply)
    with pytest.raises(ProviderUnavailable):
        proved(asking, sign(leaf.key, BODY, url=url), BODY, now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"WH-1"}, "webhook_id": "OTHER", "x": {}',
        b'{}}\n{"a":{}',
        b"1",
        b"[]",
        b"",
        b"\xff",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
    ids=repr,
)
def test_incomplete_body_is_forged_without_a_request(asking, loopback, url, leaf, body):
    # Given a PayPal that would accept it, and a body that is not one whole object
    answer_verification(loopback, json_reply({"verification_status": "SUCCESS"}))
    # When it is verified, Then it is refused without asking PayPal
    with pytest.raises(ForgedWebhook):
        proved(asking, sign(leaf.key, body, url=url), body, now=NOW)
    assert loopback.asked == []
