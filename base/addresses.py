"""Parse Redis addresses: of a single server, or of a service behind Sentinels.

This module only parses text and connects to nothing. Error messages never show an address,
because an address contains passwords.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

#: Schemes of a single server, as redis-py accepts them.
_SERVER_SCHEMES = ("redis", "rediss", "unix")
#: Schemes of a service behind Sentinels. The second uses TLS to both Sentinels and servers.
_SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
#: Port of a Sentinel if the address names none. Source: Redis, "High availability".
_SENTINEL_PORT = 26379
_SERVER_FORM_TEXT = "must be redis://USER:PASSWORD@HOST:PORT/DB; all but HOST may be left out"
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}


class _Malformed(ValueError):
    """An address has the wrong form. The message never quotes the address."""


@dataclass(frozen=True)
class SentinelAddress:
    """The Sentinels, the service's name, and the logins for Sentinels and servers."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    db: int
    tls: bool
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None


def check_redis_address(url: str) -> None:
    """Check that an address has a form that the Redis client supports.

    Raises: ValueError, which describes the accepted forms and never shows the address.
    """
    try:
        is_supported = sentinel_address(url) is not None or _is_server_address(url)
    except ValueError as error:
        # urllib's own messages may quote the address.
        raise ValueError(str(error) if type(error) is _Malformed else _SERVER_FORM_TEXT) from None
    if not is_supported:
        raise ValueError(
            "must start with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
        )


def _is_server_address(url: str) -> bool:
    """Return whether the address is a single server's.

    Raises: ValueError if it has such a scheme and is malformed.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SERVER_SCHEMES:
        return False
    if parts.scheme != "unix":
        db = parts.path.strip("/")
        if parts.port == 0 or not (db or "0").isdecimal():
            raise _Malformed(_SERVER_FORM_TEXT)
    elif not parts.path.strip("/"):
        raise _Malformed("must be unix:///path/of/the/socket?db=0")
    return True


def sentinel_address(url: str) -> SentinelAddress | None:
    """Parse `redis+sentinel://[user:password@]host:port,host:port/service[/db]`.

    User and password are those of the servers. The Sentinels' own login is given in the query as
    `sentinel_username` and `sentinel_password`. For the address of a single server the result is
    None. Raises: ValueError.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SENTINEL_SCHEMES:
        return None
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    options = parse_qs(parts.query)
    if not service or not (db or "0").isdecimal() or set(options) - _SENTINEL_OPTIONS:
        raise _Malformed("must be redis+sentinel://host:port,host:port/service/db")
    return SentinelAddress(
        sentinels=tuple(_split_host_and_port(host) for host in hosts.split(",")),
        service=unquote(service),
        db=int(db or 0),
        tls=parts.scheme.startswith("rediss"),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username", [None])[0],
        sentinel_password=options.get("sentinel_password", [None])[0],
    )


def _split_host_and_port(text: str) -> tuple[str, int]:
    # An IPv6 address must be in brackets. Without them its last group would be read as the port.
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_SENTINEL_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise _Malformed("each Sentinel is host:port")
    return host.strip("[]"), int(port)
