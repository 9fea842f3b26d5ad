"""Servers for tests: their folders, and the oldest supported ones if installed.

They are never mocks, but real PostgreSQL and Redis processes on private sockets.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from db.address import driver_url
from db.logins import set_password
from local.embedded import EmbeddedServers, ServerUrls

#: Folders in which Debian 12 has the programs of PostgreSQL 15 and Redis 7.
DEBIAN_POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
DEBIAN_REDIS_BIN = Path("/usr/bin")
#: Linux's file system in memory, and the free space that it must have to be used.
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_MIN = 4 * 1024**3


@contextmanager
def server_folder() -> Iterator[Path]:
    """Yield a folder that the servers' user may enter, and remove it afterwards.

    pytest's `tmp_path` is closed to other users, and for root the servers run as another user. The
    folder is in memory if there is enough space, because every test copies a database and drops it
    again.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-test-", dir=_in_memory()))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def quick_verifier(password: str) -> str:
    """Return a password's SCRAM verifier with one iteration instead of 4096.

    PostgreSQL stores it in place of the password. A login then costs both sides a few milliseconds
    of computing less, and a run of the tests logs in ten thousand times. Source: RFC 5802.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    salt_text, stored, server = (
        base64.b64encode(part).decode() for part in (salt, stored_key, server_key)
    )
    return f"SCRAM-SHA-256$1:{salt_text}${stored}:{server}"


def make_owner_login_quick(owner_url: str) -> None:
    """Keep the owner's password on a test server, but store it as a quick verifier."""
    owner = urlsplit(driver_url(owner_url))
    assert owner.username and owner.password
    set_password(owner_url, owner.username, quick_verifier(unquote(owner.password)))


def _in_memory() -> str | None:
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return str(_MEMORY) if free >= _MEMORY_BYTES_MIN and os.access(_MEMORY, os.W_OK) else None


def debian_servers_missing() -> str:
    """Name the missing programs of Debian's servers; empty if none is missing."""
    programs = (DEBIAN_POSTGRES_BIN / "postgres", DEBIAN_REDIS_BIN / "redis-server")
    return ", ".join(str(program) for program in programs if not program.is_file())


@contextmanager
def debian_servers() -> Iterator[ServerUrls]:
    """Run Debian's PostgreSQL 15 and Redis 7 with fresh data, then remove them.

    Call `debian_servers_missing` first. Raises: EmbeddedServerError if one cannot be started.
    """
    with (
        server_folder() as folder,
        EmbeddedServers(
            folder / "state",
            fast=True,
            postgres_bin=DEBIAN_POSTGRES_BIN,
            redis_bin=DEBIAN_REDIS_BIN,
        ) as urls,
    ):
        make_owner_login_quick(urls.owner_url)
        yield urls
