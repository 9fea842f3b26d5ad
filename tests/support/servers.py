"""Servers for tests: folders they may live in, and the oldest ones we support, if installed.

Never mocks: these are real PostgreSQL and Redis processes on private sockets.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.embedded import EmbeddedServers, ServerUrls

#: Where Debian 12 keeps the programs of PostgreSQL 15 and Redis 7.
DEBIAN_POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
DEBIAN_REDIS_BIN = Path("/usr/bin")
#: Where Linux keeps a file system in memory, and how much of it must be free to be used.
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_MIN = 4 * 1024**3


@contextmanager
def server_folder() -> Iterator[Path]:
    """This function will give a folder that the servers' account may enter, and remove it after.

    pytest's tmp_path is closed to other accounts, and as root the servers run as another. It lies
    in memory where there is plenty: every test copies a database and drops it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-test-", dir=_in_memory()))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_memory() -> str | None:
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return None
    return str(_MEMORY) if free >= _MEMORY_BYTES_MIN and os.access(_MEMORY, os.W_OK) else None


def debian_servers_missing() -> str:
    """This function will name what is not installed of Debian's servers; empty if nothing is."""
    programs = (DEBIAN_POSTGRES_BIN / "postgres", DEBIAN_REDIS_BIN / "redis-server")
    return ", ".join(str(program) for program in programs if not program.is_file())


@contextmanager
def debian_servers() -> Iterator[ServerUrls]:
    """This function will run Debian's PostgreSQL 15 and Redis 7 with fresh data, then remove them.

    Ask debian_servers_missing() first. Raises: EmbeddedServerError when one can't be started.
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
        yield urls
