"""A flood of invented certificate names does not keep out PayPal's genuine events."""

from __future__ import annotations

import base64
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from base.clock import wait_until
from db.address import driver_url
from db.models import InboxEvent, PayPalCertificate
from providers.paypal import certificates
from providers.paypal.certificates import CERTIFICATE_NAMES
from providers.paypal.unknown_names import UNKNOWN_BURST
from sandbox.paypal.events import signed_text
from tests.ingress.support import Message, paypal_event
from tests.providers.support import issue

CERTIFICATES = "/v1/notifications/certs/"
FLOODING_THREADS = 12


def forged(sandbox, name: str) -> Message:
    """Build a message with a random signature that names the certificate `name`."""
    return Message(
        {
            "Content-Type": "application/json",
            "PAYPAL-TRANSMISSION-ID": secrets.token_hex(12),
            "PAYPAL-TRANSMISSION-TIME": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(os.urandom(256)).decode(),
            "PAYPAL-CERT-URL": f"{sandbox.info['paypal']['base_url']}{CERTIFICATES}{name}",
            "PAYPAL-AUTH-ALGO": "SHA256withRSA",
        },
        paypal_event(f"WH-{secrets.token_hex(8)}"),
    )


@contextmanager
def flood(ingress) -> Iterator[Counter[int]]:
    """Send invented names from many threads, and yield the count of answers by status."""
    answered: Counter[int] = Counter()
    over = threading.Event()

    def send():
        with httpx.Client(base_url=ingress.url, trust_env=False, timeout=20) as client:
            while not over.is_set():
                message = forged(ingress.sandbox, f"CERT-{secrets.token_hex(8)}")
                answer = client.post(
                    "/webhooks/paypal", content=message.body, headers=message.headers
                )
                answered[answer.status_code] += 1

    with ThreadPoolExecutor(FLOODING_THREADS) as pool:
        threads = [pool.submit(send) for _ in range(FLOODING_THREADS)]
        assert wait_until(lambda: answered.total() >= 60, limit_seconds=60)
        try:
            yield answered
        finally:
            over.set()
    for thread in threads:
        thread.result()


def asked_for(sandbox) -> list[str]:
    """List the names of certificates that were requested from the sandbox's PayPal."""
    found = sandbox.requests(provider="paypal", path_contains=CERTIFICATES)
    return [one["path"].rpartition("/")[2] for one in found]


def name_of(message: Message) -> str:
    return message.headers["PAYPAL-CERT-URL"].rpartition("/")[2]


def test_fresh_ingress_accepts_genuine_events_under_a_flood(
    world, settings, start_ingress, sandbox
):
    # Given an ingress that has accepted one event, and another that has just started
    first = start_ingress(settings)
    assert first.send(first.genuine()).status_code == 200
    before = len(asked_for(sandbox))
    fresh = start_ingress(settings)
    # When invented names flood it, and PayPal takes a second for each
    sandbox.fault("paypal", "delay", match={"path_contains": CERTIFICATES}, seconds=1.0)
    with flood(fresh) as answered:
        genuine = [fresh.genuine() for _ in range(19)]
        statuses = [fresh.send(one).status_code for one in genuine]
    # Then every genuine event is accepted, and its certificate was not requested again
    assert statuses == [200] * 19
    assert len(world.read(InboxEvent)) == 20
    asked = asked_for(sandbox)[before:]
    assert name_of(genuine[0]) not in asked
    # And each forgery is refused, and few of them cost a request to PayPal
    assert set(answered) == {401}
    assert 0 < len(asked) < answered.total() / 2


def test_first_certificate_is_found_under_a_flood_by_the_second_event(
    world, settings, start_ingress
):
    # Given an ingress that has never seen PayPal's certificate, under a flood
    ingress = start_ingress(settings)
    with flood(ingress) as answered:
        statuses = [ingress.send(ingress.genuine()).status_code for _ in range(19)]
    # Then at most the first event is refused, which PayPal delivers again, and all others are
    # accepted
    assert statuses[1:] == [200] * 18
    assert set(answered) == {401}
    assert len(world.read(InboxEvent)) >= 18


def test_unsigned_posts_cost_few_requests_at_paypal(settings, start_ingress, sandbox):
    ingress = start_ingress(settings)
    for number in range(40):
        assert ingress.send(forged(sandbox, f"CERT-{number}")).status_code == 401
    # Half of the tokens are kept for names that appear again; a slow machine regains a few tokens
    assert UNKNOWN_BURST / 2 <= len(asked_for(sandbox)) <= UNKNOWN_BURST


def test_forged_signature_under_the_known_name_is_refused(settings, start_ingress, sandbox):
    ingress = start_ingress(settings)
    genuine = ingress.genuine()
    assert ingress.send(genuine).status_code == 200
    message = forged(sandbox, name_of(genuine))
    assert ingress.send(message).status_code == 401
    short = base64.b64encode(b"x" * 255).decode()
    assert ingress.send(message, **{"PAYPAL-TRANSMISSION-SIG": short}).status_code == 401


@pytest.mark.parametrize("with_issuers", [True, False])
def test_poisoned_store_lets_no_forgery_in(
    world, settings, start_ingress, sandbox, urls, with_issuers
):
    # Given a genuine certificate's row that an attacker replaced with a certificate of their own
    ingress = start_ingress(settings)
    genuine = ingress.genuine()
    url = genuine.headers["PAYPAL-CERT-URL"]
    assert ingress.send(genuine).status_code == 200
    mine = issue(CERTIFICATE_NAMES["sandbox"], start=datetime(2026, 1, 1, tzinfo=UTC))
    with psycopg.connect(driver_url(urls.app_url), autocommit=True) as connection:
        connection.execute("UPDATE paypal_certificates SET pem = %s", (mine.pem,))
    more = {} if with_issuers else {"paypal_ca_file": None}
    fresh = start_ingress(settings.model_copy(update=more))
    # When the attacker sends an event that is signed with their key
    body = paypal_event("WH-MINE")
    message = forged(sandbox, name_of(genuine))
    text = signed_text(
        message.headers["PAYPAL-TRANSMISSION-ID"],
        message.headers["PAYPAL-TRANSMISSION-TIME"],
        settings.paypal_webhook_id,
        body,
    )
    signature = mine.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    signed = {"PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode()}
    answer = fresh.send(Message({**message.headers, **signed}, body))
    # Then it is refused, a genuine event is accepted, and the row has PayPal's certificate again
    assert answer.status_code == 401
    assert fresh.send(fresh.genuine()).status_code == 200
    (row,) = world.read(PayPalCertificate, url=url)
    assert wait_until(
        lambda: world.read(PayPalCertificate, url=url)[0].pem != mine.pem, limit_seconds=20
    )
    assert row.url == url
    assert len(world.read(InboxEvent)) == 2


def test_certificate_that_one_process_found_is_used_by_the_others(
    settings, start_ingress, sandbox, monkeypatch
):
    monkeypatch.setattr(certificates, "RELOAD_SECONDS", 0.0)
    # Given two ingress processes that started before any certificate was known
    one, other = start_ingress(settings), start_ingress(settings)
    assert one.send(one.genuine()).status_code == 200
    # When the other process needs it, Then it reads the certificate from the store
    assert other.send(other.genuine()).status_code == 200
    assert len(asked_for(sandbox)) == 1


def test_certificate_is_fetched_anew_while_the_store_is_away(
    settings, start_ingress, urls, sandbox
):
    # Given a store that cannot be read or written
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE paypal_certificates RENAME TO away")
    ingress = start_ingress(settings)
    assert ingress.send(ingress.genuine()).status_code == 200
    assert len(asked_for(sandbox)) == 1
