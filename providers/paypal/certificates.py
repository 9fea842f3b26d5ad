"""PayPal's signing certificates: from where they may come, whose they must be, how long they hold.

A message names the address of the certificate that proves it, so the address is checked to the
last character before anything is asked of it. A certificate is kept by its whole address only, and
remembered beyond the process, so that a flood of made-up addresses cannot keep genuine messages
out: a known address is fetched apart from the unknown ones, which are rate limited.
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

#: Path under which PayPal serves them. Source: every real delivery seen.
CERTIFICATES_PATH = "/v1/notifications/certs/"
#: Where they may come from. Source: every real delivery seen (api), PayPal's servers (api-m).
_HOSTS = {
    "live": ("api.paypal.com", "api-m.paypal.com"),
    "sandbox": ("api.sandbox.paypal.com", "api-m.sandbox.paypal.com"),
}
#: The name they bear. Source: the certificates of real deliveries.
_NAMES = {
    "live": "messageverificationcerts.paypal.com",
    "sandbox": "messageverificationcerts.sandbox.paypal.com",
}
#: The last part of the address: no dot, slash, percent, query or fragment can stand in it.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

#: Bytes of the largest certificate read; real ones have about 2,500.
CERTIFICATE_BYTES_MAX = 65_536
#: Seconds a download may last.
_DOWNLOAD_SECONDS = 7.0
#: Seconds a certificate is used before it is fetched again (one day).
TTL_SECONDS = 86_400.0
#: Seconds it is still used while fetching it again fails (seven days): PayPal has served an HTML
#: page in its place for days, and closing events must get through.
STALE_SECONDS = 7 * 86_400.0
#: `cached` stops answering this many seconds early, so that what it promised still stands.
_PROMISE_SECONDS = 5.0
#: Certificates and failures remembered; PayPal uses one or two addresses.
_KEPT_MAX = 64
_FAILURES_MAX = 256
#: Seconds until what other processes have remembered is read again for an unknown address.
RELOAD_SECONDS = 1.0


class CertificateStore:
    """Certificates by address, bounded, each fetched by one thread at a time."""

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
        self._kept: OrderedDict[str, tuple[float, TrustedCertificate]] = OrderedDict()
        self._failures: OrderedDict[str, DownloadFailure] = OrderedDict()
        self._downloads: dict[str, Future[TrustedCertificate]] = {}
        self._memory = memory or NoMemory()
        self._unknown = unknown or UnknownNames(clock)
        #: Addresses that proved good once, by what is remembered, without a certificate here.
        self._known: frozenset[str] = frozenset()
        self._loading = threading.Lock()
        self._loaded_at: float | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, memory: CertificateMemory | None = None
    ) -> CertificateStore:
        """Make the store for PayPal, or for the stand-in that is configured.

        Raises: SettingsError for a stand-in over plain http that is not on this machine, or an
        issuer file that cannot be used.
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
            name=settings.paypal_certificate_name or _NAMES[settings.paypal_environment],
            issuers_pem=issuers_pem,
            memory=memory,
        )

    def load(self) -> None:
        """Take over what is remembered, each certificate verified again.

        Without configured issuers a certificate proves nothing by itself, because only TLS to
        PayPal's host does. Then only its address is taken over, and its certificate fetched anew.
        """
        if not self._loading.acquire(blocking=False):
            return
        try:
            if self._loaded_at is not None and self._clock() < self._loaded_at + RELOAD_SECONDS:
                return
            known = set()
            for one in self._memory.load():
                if self._take_over(one):
                    known.add(one.url)
            self._known = frozenset(known)
            self._loaded_at = self._clock()
        finally:
            self._loading.release()

    def _take_over(self, one: RememberedCertificate) -> bool:
        try:
            self.check_url(one.url)
            if self._issuers is None:
                return True
            certificate = trusted_certificate(one.pem, self._name, self._issuers)
        except (ForgedWebhook, CertificateUnavailable) as error:
            log.error("remembered_certificate_refused", url=one.url, error=str(error))
            return False
        fetched_at = self._clock() - max(0.0, one.age_seconds)
        with self._lock:
            kept = self._kept.get(one.url)
            if kept is None or kept[0] < fetched_at:
                self._keep(one.url, fetched_at, certificate)
        return True

    def _keep(self, url: str, fetched_at: float, certificate: TrustedCertificate) -> None:
        self._kept[url] = (fetched_at, certificate)
        self._kept.move_to_end(url)
        while len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)

    def close(self) -> None:
        """This function will close the connections that stand."""
        self._client.close()

    def check_url(self, url: str) -> None:
        """This function will check that a certificate may come from an address.

        Raises: ForgedWebhook unless it is one of the exact prefixes and a plain name.
        """
        for prefix in self._prefixes:
            if url.startswith(prefix) and _PLAIN_NAME.fullmatch(url[len(prefix) :]):
                return
        raise ForgedWebhook("the certificate's address is not PayPal's")

    def cached(self, url: str) -> RSAPublicKey | None:
        """This function will give the key kept for an address, or None; it asks nobody."""
        with self._lock:
            entry = self._kept.get(url)
            if entry is None or self._clock() > entry[0] + TTL_SECONDS - _PROMISE_SECONDS:
                return None
            return entry[1].key

    def key(self, url: str, *, now: datetime) -> RSAPublicKey:
        """Return the key of the certificate at an address; fetch it if necessary.

        Raises: ForgedWebhook for an address or a certificate that is not PayPal's or does not hold
        at `now`, and for an unknown address that is not asked for now; CertificateUnavailable when
        a certificate cannot be had.
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
            entry = self._kept.get(url)
            if entry is not None:
                self._kept.move_to_end(url)
                if now <= entry[0] + TTL_SECONDS:
                    return entry[1]
            stale = entry[1] if entry is not None and now <= entry[0] + STALE_SECONDS else None
            failure = self._failures.get(url)
            if failure is not None and now <= failure.until:
                if stale is not None and isinstance(failure.error, CertificateUnavailable):
                    return stale
                raise _again(failure.error)
            is_known = entry is not None or url in self._known
            download = self._downloads.get(url)
            is_first = download is None
            if download is None:
                # A genuine sender that is refused sends again, and is let through then.
                if not is_known and not self._unknown.may_ask(url):
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
            raise _again(error) from None
        except ForgedWebhook as error:
            raise _again(error) from None

    def _is_known(self, url: str) -> bool:
        with self._lock:
            return url in self._kept or url in self._known

    def _download_into(
        self, download: Future[TrustedCertificate], url: str, *, is_known: bool
    ) -> None:
        try:
            pem = self._fetch(url, is_known=is_known)
            certificate = trusted_certificate(pem, self._name, self._issuers)
        except (CertificateUnavailable, ForgedWebhook) as error:
            self._settle(url, failure=error)
            download.set_exception(error)
        except BaseException:
            # Those who wait must not wait for a thread that is gone.
            self._settle(url, failure=CertificateUnavailable("the download broke off"))
            download.set_exception(CertificateUnavailable("the download broke off"))
            raise
        else:
            self._settle(url, certificate=certificate)
            download.set_result(certificate)
            self._memory.save(url, pem)

    def _settle(
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
                self._keep(url, now, certificate)
            if failure is not None:
                # Kept apart, so that made-up addresses never push out a certificate.
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
                line=None,
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


def _again(error: Exception) -> Exception:
    # One exception raised by several threads would share, and grow, one traceback.
    return type(error)(*error.args)
