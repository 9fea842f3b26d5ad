"""PayPal's signing certificates: allowed URLs, downloads and caching.

A webhook names the URL of the certificate that proves it, so the whole URL is checked before
anything is requested. A certificate is cached under its whole URL, and stored beyond the process. A
flood of invented URLs must not keep genuine webhooks out. Therefore, only downloads from unknown
URLs are rate limited.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from base.log import get_logger
from base.outcomes import ProviderUnavailable
from base.settings import Settings, SettingsError
from providers.errors import CertificateUnavailable, ForgedWebhook
from providers.http.client import Deadline, build_client, exchange, is_loopback
from providers.paypal.certificate_memory import CertificateMemory, NoMemory, RememberedCertificate
from providers.paypal.chains import TrustedCertificate, load_bundle, trusted_certificate
from providers.paypal.download_failures import DownloadFailure
from providers.paypal.unknown_names import UnknownNames

log = get_logger(__name__)

#: The path at which PayPal serves its certificates. Source: every real delivery seen.
CERTIFICATES_PATH = "/v1/notifications/certs/"
#: The allowed hosts. Source: every real delivery seen (api), PayPal's servers (api-m).
_HOSTS = {
    "live": ("api.paypal.com", "api-m.paypal.com"),
    "sandbox": ("api.sandbox.paypal.com", "api-m.sandbox.paypal.com"),
}
#: The name in the certificates. A stand-in's certificate has one too.
#: Source: the certificates of real deliveries.
CERTIFICATE_NAMES = {
    "live": "messageverificationcerts.paypal.com",
    "sandbox": "messageverificationcerts.sandbox.paypal.com",
}
#: The last part of the URL. It cannot contain a dot, slash, percent, query or fragment.
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

#: Bytes of the largest certificate that is read. Real ones have about 2,500.
CERTIFICATE_BYTES_MAX = 65_536
#: The most seconds that a download may take.
_DOWNLOAD_SECONDS = 7.0
#: Seconds for which a certificate is used before it is fetched again (one day).
TTL_SECONDS = 86_400.0
#: Seconds for which a certificate is still used if fetching it again fails (seven days). PayPal
#: once served an HTML page in its place for days, and closing events must get through.
STALE_SECONDS = 7 * 86_400.0
#: `cached` stops returning a key this many seconds early, so that `key` finds it shortly after.
_CACHE_MARGIN_SECONDS = 5.0
#: The most certificates, and the most failures, that are remembered. PayPal uses one or two URLs.
_CERTIFICATES_MAX = 64
_FAILURES_MAX = 256
#: Seconds between two loads of the stored certificates on behalf of unknown URLs.
RELOAD_SECONDS = 1.0


class CertificateStore:
    """Keeps certificates by URL. One thread at a time fetches each certificate."""

    def __init__(
        self,
        *,
        prefixes: tuple[str, ...],
        name: str,
        issuers_pem: bytes | None = None,
        memory: CertificateMemory | None = None,
        unknown: UnknownNames | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefixes = prefixes
        self._name = name
        self._issuers = None if issuers_pem is None else load_bundle(issuers_pem)
        self._clock = clock
        self._client = build_client(prefixes[0])
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, tuple[float, TrustedCertificate]] = OrderedDict()
        self._failures: OrderedDict[str, DownloadFailure] = OrderedDict()
        self._downloads: dict[str, Future[TrustedCertificate]] = {}
        self._memory = memory or NoMemory()
        self._unknown = unknown or UnknownNames(clock)
        #: URLs of stored certificates that were verified once. Their certificates need not be in
        #: the cache.
        self._known_urls: frozenset[str] = frozenset()
        self._load_lock = threading.Lock()
        self._loaded_at: float | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, memory: CertificateMemory | None = None
    ) -> CertificateStore:
        """Make the store for PayPal, or for the configured stand-in.

        Raises: SettingsError for a stand-in over plain http on another machine, or an issuer file
        that cannot be used.
        """
        base_url = settings.paypal_base_url
        if base_url and not base_url.startswith("https://") and not is_loopback(base_url):
            raise SettingsError("PAYPAL_BASE_URL: plain http is for this machine only")
        hosts = [f"https://{host}" for host in _HOSTS[settings.paypal_environment]]
        issuers_pem = None
        if settings.paypal_ca_file is not None:
            try:
                issuers_pem = settings.paypal_ca_file.read_bytes()
                load_bundle(issuers_pem)
            except (OSError, ValueError) as error:
                raise SettingsError(f"PAYPAL_CA_FILE: {type(error).__name__}") from None
        return cls(
            prefixes=tuple(
                f"{at}{CERTIFICATES_PATH}" for at in ([base_url] if base_url else hosts)
            ),
            name=CERTIFICATE_NAMES[settings.paypal_environment],
            issuers_pem=issuers_pem,
            memory=memory,
        )

    def load(self) -> None:
        """Load the stored certificates into the cache, and verify each one again.

        Without configured issuers, only TLS to PayPal's host proves a certificate. In that case,
        only the URL is loaded, and its certificate is fetched again.
        """
        if not self._load_lock.acquire(blocking=False):
            return
        try:
            if self._loaded_at is not None and self._clock() < self._loaded_at + RELOAD_SECONDS:
                return
            known_urls = set()
            for stored in self._memory.load():
                if self._accept_stored(stored):
                    known_urls.add(stored.url)
            self._known_urls = frozenset(known_urls)
            self._loaded_at = self._clock()
        finally:
            self._load_lock.release()

    def _accept_stored(self, stored: RememberedCertificate) -> bool:
        try:
            self.check_url(stored.url)
            if self._issuers is None:
                return True
            certificate = trusted_certificate(stored.pem, self._name, self._issuers)
        except (ForgedWebhook, CertificateUnavailable) as error:
            log.error("remembered_certificate_refused", url=stored.url, error=str(error))
            return False
        fetched_at = self._clock() - max(0.0, stored.age_seconds)
        with self._lock:
            entry = self._cache.get(stored.url)
            if entry is None or entry[0] < fetched_at:
                self._put_in_cache(stored.url, fetched_at, certificate)
        return True

    def _put_in_cache(self, url: str, fetched_at: float, certificate: TrustedCertificate) -> None:
        self._cache[url] = (fetched_at, certificate)
        self._cache.move_to_end(url)
        while len(self._cache) > _CERTIFICATES_MAX:
            self._cache.popitem(last=False)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def check_url(self, url: str) -> None:
        """Check that a certificate may be fetched from a URL.

        Raises: ForgedWebhook unless the URL is one of the exact prefixes and a plain name.
        """
        for prefix in self._prefixes:
            if url.startswith(prefix) and _NAME_FORM.fullmatch(url[len(prefix) :]):
                return
        raise ForgedWebhook("the certificate's address is not PayPal's")

    def cached(self, url: str) -> RSAPublicKey | None:
        """Return the cached key for a URL, or None. It sends no request."""
        with self._lock:
            entry = self._cache.get(url)
            if entry is None or self._clock() > entry[0] + TTL_SECONDS - _CACHE_MARGIN_SECONDS:
                return None
            return entry[1].key

    def key(self, url: str, *, now: datetime) -> RSAPublicKey:
        """Return the key of the certificate at a URL; fetch it if necessary.

        Raises: ForgedWebhook for a URL or a certificate that is not PayPal's, or a certificate that
        is not valid at `now`. It raises ForgedWebhook also for an unknown URL that the rate limit
        refuses, and CertificateUnavailable if a certificate cannot be fetched.
        """
        self.check_url(url)
        certificate = self._certificate(url)
        certificate.check_instant(now)
        return certificate.key

    def _certificate(self, url: str) -> TrustedCertificate:
        if not self._is_known(url):
            self.load()
        with self._lock:
            now = self._clock()
            entry = self._cache.get(url)
            if entry is not None:
                self._cache.move_to_end(url)
                if now <= entry[0] + TTL_SECONDS:
                    return entry[1]
            stale = entry[1] if entry is not None and now <= entry[0] + STALE_SECONDS else None
            failure = self._failures.get(url)
            if failure is not None and now <= failure.until:
                if stale is not None and isinstance(failure.error, CertificateUnavailable):
                    return stale
                raise _copy_of_error(failure.error)
            is_known = entry is not None or url in self._known_urls
            download = self._downloads.get(url)
            is_first = download is None
            if download is None:
                # PayPal repeats a refused webhook. A URL that is requested again is therefore
                # preferred to new URLs.
                if not is_known and not self._unknown.take_token(url):
                    raise ForgedWebhook("the certificate is unknown, and is not asked for now")
                download = self._downloads[url] = Future()
        if is_first:
            self._download_into(download, url, is_known=is_known)
        try:
            return download.result(timeout=_DOWNLOAD_SECONDS + 1)
        except FutureTimeoutError:
            raise CertificateUnavailable("the certificate took too long") from None
        except CertificateUnavailable as error:
            if stale is not None:
                return stale
            raise _copy_of_error(error) from None
        except ForgedWebhook as error:
            raise _copy_of_error(error) from None

    def _is_known(self, url: str) -> bool:
        with self._lock:
            return url in self._cache or url in self._known_urls

    def _download_into(
        self, download: Future[TrustedCertificate], url: str, *, is_known: bool
    ) -> None:
        try:
            pem = self._fetch(url, is_known=is_known)
            certificate = trusted_certificate(pem, self._name, self._issuers)
        except (CertificateUnavailable, ForgedWebhook) as error:
            self._end_download(url, failure=error)
            download.set_exception(error)
        except BaseException:
            # The waiting threads must not wait for a thread that has ended.
            self._end_download(url, failure=CertificateUnavailable("the download was interrupted"))
            download.set_exception(CertificateUnavailable("the download was interrupted"))
            raise
        else:
            self._end_download(url, certificate=certificate)
            download.set_result(certificate)
            self._memory.save(url, pem)

    def _end_download(
        self,
        url: str,
        *,
        certificate: TrustedCertificate | None = None,
        failure: Exception | None = None,
    ) -> None:
        with self._lock:
            self._downloads.pop(url, None)
            now = self._clock()
            if certificate is not None:
                self._failures.pop(url, None)
                self._put_in_cache(url, now, certificate)
            if failure is not None:
                # Failures are kept apart, so that invented URLs cannot displace a certificate.
                self._failures[url] = DownloadFailure.after(self._failures.get(url), failure, now)
                self._failures.move_to_end(url)
                while len(self._failures) > _FAILURES_MAX:
                    self._failures.popitem(last=False)

    def _fetch(self, url: str, *, is_known: bool) -> bytes:
        try:
            answer = exchange(
                self._client,
                "GET",
                url,
                limits=None,
                repeatable=True,
                deadline=Deadline.after(_DOWNLOAD_SECONDS),
                bytes_max=CERTIFICATE_BYTES_MAX,
            )
        except ProviderUnavailable as error:
            raise CertificateUnavailable(str(error), error.retry_after_seconds) from None
        if answer.status in (404, 410) and not is_known:
            raise ForgedWebhook("PayPal has no certificate at this address")
        if answer.status != 200:
            raise CertificateUnavailable(f"HTTP {answer.status}")
        return answer.body


def _copy_of_error(error: Exception) -> Exception:
    # If several threads raised the same exception object, its traceback would grow with each.
    return type(error)(*error.args)
