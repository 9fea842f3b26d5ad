from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from base.settings import Settings, SettingsError
from providers.errors import CertificateUnavailable, ForgedWebhook
from providers.paypal import certificates, download_failures
from providers.paypal.certificate_memory import RememberedCertificate
from providers.paypal.certificates import CERTIFICATES_PATH, CertificateStore
from providers.paypal.unknown_names import UNKNOWN_BURST, UNKNOWN_REFILL_SECONDS, UnknownNames
from tests.providers.support import LIVE_NAME, NOW, Clock, Issued, Loopback, Reply, issue

LIVE = "https://api.paypal.com/v1/notifications/certs/"
REAL = f"{LIVE}CERT-360caa42-fca2a594-1a5f47cb"


@pytest.fixture
def store(loopback: Loopback, clock: Clock, leaf: Issued) -> Iterator[CertificateStore]:
    loopback.answer = lambda asked: Reply(200, leaf.pem)
    built = CertificateStore(
        prefixes=(f"{loopback.url}{CERTIFICATES_PATH}",),
        name=LIVE_NAME,
        unknown=UnknownNames(clock, burst=10_000),
        clock=clock,
    )
    yield built
    built.close()


@pytest.fixture
def limited(loopback: Loopback, clock: Clock, leaf: Issued) -> Iterator[CertificateStore]:
    """A store that limits requests for unknown addresses as in production."""
    built = CertificateStore(
        prefixes=(f"{loopback.url}{CERTIFICATES_PATH}",), name=LIVE_NAME, clock=clock
    )
    yield built
    built.close()


@pytest.fixture
def url(loopback: Loopback) -> str:
    return f"{loopback.url}{CERTIFICATES_PATH}CERT-1"


@pytest.mark.parametrize(
    "evil",
    [
        "",
        LIVE,
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "HTTPS://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://API.PAYPAL.COM/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://evilpaypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://user:word@api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:443/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://api.paypal.com\\@evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com./v1/notifications/certs/CERT-1",
        "https://www.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/CERT-1",
        "https://api.paypal.com/v1/notifications/CERT-1",
        "https://api.paypal.com//v1/notifications/certs/CERT-1",
        f"{LIVE}../CERT-1",
        f"{LIVE}..",
        f"{LIVE}.",
        f"{LIVE}a/CERT-1",
        f"{LIVE}..%2fCERT-1",
        f"{LIVE}%2e%2e%2fCERT-1",
        f"{LIVE}CERT-1%00",
        f"{LIVE}CERT-1/",
        f"{LIVE}CERT-1?x=1",
        f"{LIVE}CERT-1#x",
        f"{LIVE}CERT-1;x",
        f"{LIVE}CERT-1\n",
        f"{LIVE}CERT-1\r\nHost: evil.example",
        f" {LIVE}CERT-1",
        f"{LIVE}CÉRT-1",
        f"{LIVE}{'C' * 101}",
    ],
)
def test_certificate_url_of_another_host_is_refused_unread(evil):
    store = CertificateStore.from_settings(Settings())
    with pytest.raises(ForgedWebhook):
        store.check_url(evil)
    with pytest.raises(ForgedWebhook):
        store.key(evil, now=NOW)
    assert store.cached(evil) is None
    store.close()


def test_each_environment_has_its_own_hosts():
    live = CertificateStore.from_settings(Settings())
    sandbox = CertificateStore.from_settings(Settings(paypal_environment="sandbox"))
    for host in ("api", "api-m"):
        live.check_url(f"https://{host}.paypal.com{CERTIFICATES_PATH}CERT-1")
        sandbox.check_url(f"https://{host}.sandbox.paypal.com{CERTIFICATES_PATH}CERT-1")
    with pytest.raises(ForgedWebhook):
        sandbox.check_url(REAL)
    live.close()
    sandbox.close()


def test_base_url_replaces_paypals_hosts(loopback: Loopback, url):
    store = CertificateStore.from_settings(Settings(paypal_base_url=loopback.url))
    store.check_url(url)
    with pytest.raises(ForgedWebhook):
        store.check_url(REAL)
    store.close()


@pytest.mark.parametrize("base", ["http://10.0.0.1:80", "http://127.0.0.1.evil.example"])
def test_base_url_of_another_machine_needs_https(base):
    with pytest.raises(SettingsError):
        CertificateStore.from_settings(Settings(paypal_base_url=base))


def test_unusable_issuer_file_is_named(tmp_path):
    for path in (tmp_path / "absent.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").write_bytes(b"not a certificate")
        with pytest.raises(SettingsError, match="PAYPAL_CA_FILE"):
            CertificateStore.from_settings(Settings(paypal_ca_file=path))


def test_certificate_is_fetched_once_and_cached(store, loopback, url, leaf):
    # Given an empty store, When a key is requested twice
    assert store.cached(url) is None
    first = store.key(url, now=NOW)
    second = store.key(url, now=NOW)
    # Then the certificate was fetched once
    assert (
        first.public_numbers() == second.public_numbers() == leaf.key.public_key().public_numbers()
    )
    assert store.cached(url) is not None
    assert len(loopback.asked) == 1


def test_certificate_is_cached_by_its_whole_url(store, loopback, url):
    store.key(url, now=NOW)
    assert store.cached(f"{url}2") is None
    store.key(f"{url}2", now=NOW)
    assert len(loopback.asked) == 2


def test_cached_certificate_is_fetched_again_after_its_lifetime(store, loopback, url, clock):
    store.key(url, now=NOW)
    clock.seconds += certificates.TTL_SECONDS - 1
    # Shortly before the certificate expires from the store, it is no longer reported as cached
    assert store.cached(url) is None
    store.key(url, now=NOW)
    assert len(loopback.asked) == 1
    clock.seconds += 2
    store.key(url, now=NOW)
    assert len(loopback.asked) == 2


def test_cached_certificate_is_used_for_a_time_when_its_host_fails(store, loopback, url, clock):
    # Given a stored certificate, and a host that then serves HTML
    store.key(url, now=NOW)
    loopback.answer = lambda asked: Reply(200, b"<html>")
    clock.seconds += certificates.TTL_SECONDS + 1
    # When the stored copy is due for renewal, Then it is still used, and the failure is not
    # repeated for every message
    store.key(url, now=NOW)
    store.key(url, now=NOW)
    assert len(loopback.asked) == 2
    # Until the copy is too old
    clock.seconds += certificates.STALE_SECONDS
    with pytest.raises(CertificateUnavailable):
        store.key(url, now=NOW)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(400),
        Reply(500),
        Reply(200, b"<html>sorry</html>"),
        Reply(200, b""),
        Reply(200, b"x" * (certificates.CERTIFICATE_BYTES_MAX + 1)),
        Reply(200, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
    ids=["lost", "400", "500", "html", "empty", "too large", "junk pem"],
)
def test_failed_download_is_undecided_and_soon_tried_again(
    store, loopback, url, clock, leaf, reply
):
    # Given a host that cannot serve the certificate
    loopback.answer = lambda asked: reply
    # When it is requested twice, Then the host is asked once
    for _ in range(2):
        with pytest.raises(CertificateUnavailable):
            store.key(url, now=NOW)
    assert len(loopback.asked) == 1
    # And when the host works again, soon after, Then the key is available
    loopback.answer = lambda asked: Reply(200, leaf.pem)
    clock.seconds += download_failures.FAILURE_SECONDS + 1
    store.key(url, now=NOW)


def asked_again_after(store, loopback, url, clock) -> float:
    """Measure for how many seconds after a failure the host is not asked.

    The result is exact to 0.25 seconds.
    """
    begun, before = clock.seconds, len(loopback.asked)
    while len(loopback.asked) == before:
        clock.seconds += 0.25
        with pytest.raises(CertificateUnavailable):
            store.key(url, now=NOW)
    return clock.seconds - begun - 0.25


def test_wait_grows_when_a_host_fails_again(store, loopback, url, clock, leaf):
    # Given a host that answers every request with 429
    loopback.answer = lambda asked: Reply(429)
    with pytest.raises(CertificateUnavailable):
        store.key(url, now=NOW)
    # When deliveries continue, Then each wait is twice the previous one, up to a limit
    waits = [asked_again_after(store, loopback, url, clock) for _ in range(7)]
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    # And after a success the first wait is short again
    loopback.answer = lambda asked: Reply(200, leaf.pem)
    clock.seconds += 31
    store.key(url, now=NOW)
    loopback.answer = lambda asked: Reply(429)
    clock.seconds += certificates.STALE_SECONDS + 1
    with pytest.raises(CertificateUnavailable):
        store.key(url, now=NOW)
    assert asked_again_after(store, loopback, url, clock) == 1


@pytest.mark.parametrize(("status", "given", "kept"), [(429, 7, 7), (503, 7, 7), (429, 3600, 60)])
def test_wait_requested_by_the_host_is_followed_within_bounds(
    store, loopback, url, clock, status, given, kept
):
    loopback.answer = lambda asked: Reply(status, headers={"Retry-After": str(given)})
    with pytest.raises(CertificateUnavailable):
        store.key(url, now=NOW)
    assert asked_again_after(store, loopback, url, clock) == kept


def test_number_of_remembered_failures_is_bounded(store, loopback, url):
    # Given more failing addresses than the store remembers
    loopback.answer = lambda asked: Reply(404)
    for number in range(certificates._FAILURES_MAX + 5):
        with pytest.raises(ForgedWebhook):
            store.key(f"{url}-{number}", now=NOW)
    assert len(store._failures) == certificates._FAILURES_MAX


def test_redirect_is_not_followed(store, loopback, url, leaf):
    def answer(asked):
        if asked.path.startswith(CERTIFICATES_PATH):
            return Reply(302, headers={"Location": f"{loopback.url}/elsewhere"})
        return Reply(200, leaf.pem)

    loopback.answer = answer
    with pytest.raises(CertificateUnavailable):
        store.key(url, now=NOW)
    assert loopback.paths("/elsewhere") == []


def test_unknown_urls_evict_no_certificate(store, loopback, url):
    # Given a stored certificate
    store.key(url, now=NOW)
    # When more addresses fail than the store remembers
    loopback.answer = lambda asked: Reply(404)
    for number in range(certificates._CERTIFICATES_MAX + 5):
        with pytest.raises(ForgedWebhook):
            store.key(f"{url}-{number}", now=NOW)
    # Then the certificate is still stored
    assert store.cached(url) is not None


def test_threads_that_miss_at_once_fetch_once(store, loopback, url, leaf):
    # Given a host that answers slowly
    def answer(asked):
        time.sleep(0.2)
        return Reply(200, leaf.pem)

    loopback.answer = answer
    found: list[object] = []
    # When eight threads request the same certificate
    threads = [
        threading.Thread(target=lambda: found.append(store.key(url, now=NOW))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then all of them have it, and it was fetched once
    assert len(found) == 8
    assert len(loopback.asked) == 1


def test_cached_certificate_is_refused_outside_its_dates(store, url, leaf):
    start, end = leaf.certificate.not_valid_before_utc, leaf.certificate.not_valid_after_utc
    for instant in (start, end, NOW):
        store.key(url, now=instant)
    for instant in (start - timedelta(seconds=1), end + timedelta(seconds=1)):
        with pytest.raises(ForgedWebhook):
            store.key(url, now=instant)


@pytest.mark.parametrize("status", [404, 410])
def test_url_without_a_certificate_is_forged_after_one_request(store, loopback, url, status):
    loopback.answer = lambda asked: Reply(status)
    for _ in range(3):
        with pytest.raises(ForgedWebhook):
            store.key(url, now=NOW)
    assert len(loopback.asked) == 1


def test_cached_certificate_is_used_when_its_url_answers_404(store, loopback, url, clock):
    store.key(url, now=NOW)
    loopback.answer = lambda asked: Reply(404)
    clock.seconds += certificates.TTL_SECONDS + 1
    store.key(url, now=NOW)
    assert len(loopback.asked) == 2


def serving(leaf):
    """Answer as PayPal does: one certificate, and 404 for every other name."""
    return lambda asked: Reply(200, leaf.pem) if asked.path.endswith("-1") else Reply(404)


def flood(store, url, count, prefix="X"):
    for number in range(count):
        with pytest.raises(ForgedWebhook):
            store.key(f"{url}{prefix}{number}", now=NOW)


def test_unknown_urls_are_rate_limited(limited, loopback, url, clock):
    # Given more invented addresses than the bucket has tokens
    loopback.answer = lambda asked: Reply(404)
    flood(limited, url, 50)
    # Then half of the tokens were spent on new addresses
    assert len(loopback.asked) == UNKNOWN_BURST // 2
    # And the other half is spent on addresses that appear again
    clock.seconds += 1
    flood(limited, url, 50)
    assert len(loopback.asked) == UNKNOWN_BURST
    # And each further request waits for a token
    flood(limited, url, 50)
    assert len(loopback.asked) == UNKNOWN_BURST
    clock.seconds += UNKNOWN_REFILL_SECONDS
    flood(limited, url, 50)
    assert len(loopback.asked) == UNKNOWN_BURST + 1


def test_genuine_url_is_requested_at_its_second_message(limited, loopback, url, leaf):
    # Given a flood that has spent the tokens for new addresses
    loopback.answer = lambda asked: (
        Reply(200, leaf.pem) if asked.path.endswith("-1") else Reply(404)
    )
    flood(limited, url, 50)
    # When the genuine address appears, Then it is refused once and fetched the second time
    with pytest.raises(ForgedWebhook):
        limited.key(url, now=NOW)
    limited.key(url, now=NOW)
    # And from then on no flood affects it
    flood(limited, url, 50, prefix="Y")
    limited.key(url, now=NOW)
    assert loopback.paths().count(f"{CERTIFICATES_PATH}CERT-1") == 1


def test_cached_certificate_is_renewed_when_no_token_is_left(limited, loopback, url, leaf, clock):
    loopback.answer = lambda asked: (
        Reply(200, leaf.pem) if asked.path.endswith("-1") else Reply(404)
    )
    limited.key(url, now=NOW)
    flood(limited, url, 50)
    clock.seconds += certificates.STALE_SECONDS + 1
    flood(limited, url, 50, prefix="Y")
    limited.key(url, now=NOW)
    assert loopback.paths().count(f"{CERTIFICATES_PATH}CERT-1") == 2


class Remembered:
    """An in-process replacement of the table that the processes share."""

    def __init__(self, *found: RememberedCertificate) -> None:
        self.found = list(found)
        self.saved: list[tuple[str, bytes]] = []
        self.loads = 0

    def load(self) -> list[RememberedCertificate]:
        self.loads += 1
        return self.found

    def save(self, url: str, pem: bytes) -> None:
        self.saved.append((url, pem))


def remembering(loopback, clock, memory, issuers_pem=None):
    return CertificateStore(
        prefixes=(f"{loopback.url}{CERTIFICATES_PATH}",),
        name=LIVE_NAME,
        issuers_pem=issuers_pem,
        memory=memory,
        clock=clock,
    )


def test_certificate_is_stored_when_fetched_and_verified(loopback, clock, url, leaf):
    memory = Remembered()
    store = remembering(loopback, clock, memory)
    loopback.answer = lambda asked: Reply(404)
    flood(store, url, 1)
    loopback.answer = lambda asked: Reply(200, issue("another.example").pem)
    with pytest.raises(ForgedWebhook):
        store.key(f"{url}-other", now=NOW)
    loopback.answer = lambda asked: Reply(200, leaf.pem)
    store.key(url, now=NOW)
    assert memory.saved == [(url, leaf.pem)]
    store.close()


def test_stored_certificate_is_used_without_a_request(loopback, clock, url):
    # Given a certificate under a configured issuer, stored an hour ago
    root = issue("root", ca=True)
    genuine = issue(LIVE_NAME, root)
    memory = Remembered(RememberedCertificate(url, genuine.pem, 3_600.0))
    store = remembering(loopback, clock, memory, root.pem)
    store.load()
    # Then it is used at once, and it is fetched again a day after it was first fetched
    assert store.cached(url) is not None
    store.key(url, now=NOW)
    assert loopback.asked == []
    clock.seconds += certificates.TTL_SECONDS - 3_600 + 1
    loopback.answer = lambda asked: Reply(200, genuine.pem)
    store.key(url, now=NOW)
    assert len(loopback.asked) == 1
    store.close()


def test_stored_certificate_is_verified_again(loopback, clock, url):
    # Given stored certificates of another issuer, with another name, unreadable, or for another
    # host
    root = issue("root", ca=True)
    elsewhere = "https://evil.example/v1/notifications/certs/CERT-1"
    genuine = issue(LIVE_NAME, root)
    memory = Remembered(
        RememberedCertificate(url, issue(LIVE_NAME).pem, 0.0),
        RememberedCertificate(f"{url}-2", issue("evil.example", root).pem, 0.0),
        RememberedCertificate(f"{url}-3", b"junk", 0.0),
        RememberedCertificate(elsewhere, genuine.pem, 0.0),
    )
    store = remembering(loopback, clock, memory, root.pem)
    store.load()
    for one in memory.found:
        assert store.cached(one.url) is None
    # And none of their addresses counts as known
    flood(store, url, 50)
    loopback.asked.clear()
    with pytest.raises(ForgedWebhook):
        store.key(f"{url}-2", now=NOW)
    assert loopback.asked == []
    store.close()


def test_without_issuers_only_a_stored_url_is_trusted(loopback, clock, url, leaf):
    # Given no issuers, and another party's certificate stored under a known address
    memory = Remembered(RememberedCertificate(url, issue(LIVE_NAME).pem, 0.0))
    store = remembering(loopback, clock, memory)
    store.load()
    loopback.answer = lambda asked: (
        Reply(200, leaf.pem) if asked.path.endswith("-1") else Reply(404)
    )
    flood(store, url, 50)
    # Then the certificate is fetched from PayPal, even after the flood
    key = store.key(url, now=NOW)
    assert key.public_numbers() == leaf.key.public_key().public_numbers()
    store.close()


def test_store_is_read_again_for_an_unknown_url(loopback, clock, url):
    # Given a process that started before another process found the certificate
    root = issue("root", ca=True)
    memory = Remembered()
    store = remembering(loopback, clock, memory, root.pem)
    store.load()
    memory.found.append(RememberedCertificate(url, issue(LIVE_NAME, root).pem, 0.0))
    clock.seconds += certificates.RELOAD_SECONDS
    store.key(url, now=NOW)
    assert (loopback.asked, memory.loads) == ([], 2)
    # And the table is not read for every unknown address
    loopback.answer = lambda asked: Reply(404)
    flood(store, url, 50)
    assert memory.loads == 2
    store.close()
