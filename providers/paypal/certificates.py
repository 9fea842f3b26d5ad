"""PayPal's signing certificates: from where they may come, whose they must be, how long they hold.

A message names the address of the certificate that proves it, so the address is checked to the
last character before anything is asked of it. A certificate is kept by its whole address only.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from base.outcomes import ProviderUnavailable
from base.settings import Settings, SettingsError
from providers.errors import CertificateUnavailable, ForgedWebhook
from providers.http import Deadline, build_client, exchange, is_loopback
from providers.paypal.chains import TrustedCertificate, load_bundle, trusted_certificate

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
#: Seconds for which a first failure is remembered, so that a flood asks PayPal once; each further
#: one in a row is remembered twice as long, up to the second figure, and up to the third when
#: PayPal itself asks for a wait: closing events wait for it too.
FAILURE_SECONDS = 1.0
FAILURE_SECONDS_MAX = 30.0
FAILURE_SECONDS_ASKED_MAX = 60.0
#: `cached` stops answering this many seconds early, so that what it promised still stands.
_PROMISE_SECONDS = 5.0
#: Certificates and failures remembered, and downloads at once; PayPal uses one or two addresses.
_KEPT_MAX = 64
_FAILURES_MAX = 256
_DOWNLOADS_MAX = 8


@dataclass(frozen=True)
class _Failure:
    """A download that failed, and until when it is not tried again."""

    error: Exception
    pause_seconds: float
    until: float

    @classmethod
    def after(cls, before: _Failure | None, error: Exception, now: float) -> _Failure:
        pause = FAILURE_SECONDS
        if before is not None:
            pause = min(2 * before.pause_seconds, FAILURE_SECONDS_MAX)
        asked_for = error.retry_after_seconds if isinstance(error, CertificateUnavailable) else None
        wait = max(pause, min(asked_for or 0.0, FAILURE_SECONDS_ASKED_MAX))
        return cls(error, pause, now + wait)


class CertificateStore:
    """Certificates by address, bounded, each fetched by one thread at a time."""

    def __init__(
        self,
        *,
        prefixes: tuple[str, ...],
        name: str,
        issuers_pem: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefixes = prefixes
        self._name = name
        self._issuers = None if issuers_pem is None else load_bundle(issuers_pem)
        self._clock = clock
        self._client = build_client(prefixes[0])
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, TrustedCertificate]] = OrderedDict()
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._downloads: dict[str, Future[TrustedCertificate]] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> CertificateStore:
        """This function will make the store for PayPal, or for the stand-in that is configured.

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
        )

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
        """This function will give the key of the certificate at an address, fetched if need be.

        Raises: ForgedWebhook for an address or a certificate that is not PayPal's or does not hold
        at `now`; CertificateUnavailable when it cannot be had.
        """
        self.check_url(url)
        certificate = self._certificate(url)
        certificate.check_instant(now)
        return certificate.key

    def _certificate(self, url: str) -> TrustedCertificate:
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
            download = self._downloads.get(url)
            is_first = download is None
            if download is None:
                if len(self._downloads) >= _DOWNLOADS_MAX:
                    # A flood of made-up addresses must not hide the one that is known.
                    if stale is not None:
                        return stale
                    raise CertificateUnavailable("too many downloads at once")
                download = self._downloads[url] = Future()
        if is_first:
            self._download_into(download, url)
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

    def _download_into(self, download: Future[TrustedCertificate], url: str) -> None:
        try:
            certificate = trusted_certificate(self._fetch(url), self._name, self._issuers)
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
                self._kept[url] = (now, certificate)
                self._kept.move_to_end(url)
                while len(self._kept) > _KEPT_MAX:
                    self._kept.popitem(last=False)
            if failure is not None:
                # Kept apart, so that made-up addresses never push out a certificate.
                self._failures[url] = _Failure.after(self._failures.get(url), failure, now)
                self._failures.move_to_end(url)
                while len(self._failures) > _FAILURES_MAX:
                    self._failures.popitem(last=False)

    def _fetch(self, url: str) -> bytes:
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
        if answer.status != 200:
            raise CertificateUnavailable(f"HTTP {answer.status}")
        return answer.body


def _again(error: Exception) -> Exception:
    # One exception raised by several threads would share, and grow, one traceback.
    return type(error)(*error.args)
