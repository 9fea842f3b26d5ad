"""Addresses of Redis: one server's, or a service's that Sentinels watch over.

Only reads the text; nothing is asked of anybody. No message shows an address: it holds passwords.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

#: Of one server, as redis-py reads them.
_SERVER_SCHEMES = ("redis", "rediss", "unix")
#: Of a service behind Sentinels; the second speaks TLS to Sentinels and servers alike.
_SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
#: Where Sentinels listen when the address names no port. Source: Redis, "High availability".
_SENTINEL_PORT = 26379
_OPTIONS = {"sentinel_username", "sentinel_password"}


@dataclass(frozen=True)
class SentinelAddress:
    """Where the Sentinels are, what the service is called, and who we are to both."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    db: int
    tls: bool
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None


def check_redis_address(url: str) -> None:
    """This function will make sure that an address is of a form we can connect to.

    Raises: ValueError that tells the form and never the address.
    """
    if sentinel_address(url) is None and urlsplit(url).scheme not in _SERVER_SCHEMES:
        raise ValueError(
            "must start with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
        )


def sentinel_address(url: str) -> SentinelAddress | None:
    """This function will read redis+sentinel://[user:password@]host:port,host:port/service[/db].

    User and password are the servers'; the Sentinels' own stand in the query, as
    sentinel_username and sentinel_password. None for the address of one server. Raises: ValueError.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SENTINEL_SCHEMES:
        return None
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    options = parse_qs(parts.query)
    if not service or not (db or "0").isdecimal() or set(options) - _OPTIONS:
        raise ValueError("must be redis+sentinel://host:port,host:port/service/db")
    return SentinelAddress(
        sentinels=tuple(_host_and_port(host) for host in hosts.split(",")),
        service=unquote(service),
        db=int(db or 0),
        tls=parts.scheme.startswith("rediss"),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username", [None])[0],
        sentinel_password=options.get("sentinel_password", [None])[0],
    )


def _host_and_port(text: str) -> tuple[str, int]:
    # An IPv6 address stands in brackets, or its last group would be taken for a port.
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_SENTINEL_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("each Sentinel is host:port")
    return host.strip("[]"), int(port)
