"""Shared helpers: a server on loopback, test certificates and public samples."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from local import ROOT

#: Public samples of what providers send, in a folder beside the project.
SAMPLES = ROOT.parent / "shared" / "samples"
LIVE_NAME = "messageverificationcerts.paypal.com"
NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
#: Twilio's parent account, and one of its subaccounts.
PARENT, SID = "AC" + "f" * 32, "AC" + "0" * 31 + "1"
WEBHOOK_ID = "8PT597110X687430LKGECATA"


def sample(path: str) -> Path:
    found = SAMPLES / path
    if not found.exists():
        pytest.skip(f"the public samples are not here: {path}")
    return found


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_reply(value: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(value).encode(), headers)


class Loopback:
    """A server on this machine that answers with a function and records its requests."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Reply | None] = lambda asked: Reply(404)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    self.command, self.path, dict(self.headers.items()), self.rfile.read(length)
                )
                outer.asked.append(asked)
                reply = outer.answer(asked)
                self.close_connection = True
                if reply is None:
                    return  # Close the connection without an answer.
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: object) -> None:
                """Write no line for a request."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore the error of a client that closes its connection early."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def paths(self, prefix: str = "/") -> list[str]:
        return [asked.path for asked in self.asked if asked.path.startswith(prefix)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Clock:
    """A monotonic clock that moves only when a test moves it."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: rsa.RSAPrivateKey | None = None,
    ca: bool = False,
    path_length: int | None = None,
    start: datetime = NOW - timedelta(days=100),
    days: int = 365,
    san: str | None = "",
    bits: int = 2048,
    may_sign_certificates: bool | None = None,
    algorithm: HashAlgorithm | None = None,
) -> Issued:
    """Issue a certificate, signed by `issuer` or by itself.

    If `san` is "", the subject alternative name is `name`; if it is None, there is no such
    extension. If `may_sign_certificates` is set, a key usage allows or denies that.
    """
    key = key or rsa.generate_private_key(65537, bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    if may_sign_certificates is not None:
        builder = builder.add_extension(_key_usage(may_sign_certificates), critical=True)
    if not ca and san is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(san or name)])
        builder = builder.add_extension(names, critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, algorithm or SHA256()), key)


def _key_usage(may_sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=may_sign_certificates,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def sign(
    key: rsa.RSAPrivateKey,
    body: bytes,
    *,
    url: str,
    webhook_id: str = WEBHOOK_ID,
    time: str = "2026-05-04T11:59:58Z",
    transmission_id: str = "b2384410-f8d2-11e4-8bf3-77339302725b",
) -> dict[str, str]:
    """Build the headers that PayPal would send with a body."""
    text = f"{transmission_id}|{time}|{webhook_id}|{zlib.crc32(body)}".encode()
    return {
        "PAYPAL-TRANSMISSION-ID": transmission_id,
        "PAYPAL-TRANSMISSION-TIME": time,
        "PAYPAL-TRANSMISSION-SIG": base64.b64encode(key.sign(text, PKCS1v15(), SHA256())).decode(),
        "PAYPAL-CERT-URL": url,
        "PAYPAL-AUTH-ALGO": "SHA256withRSA",
    }


def with_same_crc32(body: bytes, target: int) -> bytes:
    """Build a JSON body with the meaning of `body`, one more member and a given CRC32.

    CRC32 is linear, so Gaussian elimination finds which of forty letters A to replace with B.
    """
    filler = 40
    at = len(body) - 1 + len(b',"pad":"')
    base = body[:-1] + b',"pad":"' + b"A" * filler + b'"}'
    rows: dict[int, tuple[int, int]] = {}
    for place in range(filler):
        changed = bytearray(base)
        changed[at + place] ^= 3
        effect, which = zlib.crc32(bytes(changed)) ^ zlib.crc32(base), 1 << place
        while effect:
            top = effect.bit_length()
            if top not in rows:
                rows[top] = (effect, which)
                break
            effect, which = effect ^ rows[top][0], which ^ rows[top][1]
    missing, chosen = zlib.crc32(base) ^ target, 0
    while missing:
        effect, which = rows[missing.bit_length()]
        missing, chosen = missing ^ effect, chosen ^ which
    forged = bytearray(base)
    for place in range(filler):
        if chosen >> place & 1:
            forged[at + place] ^= 3
    return bytes(forged)
