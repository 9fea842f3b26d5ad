"""PgBouncer with transaction pooling between `holdfast_app` and PostgreSQL.

Each transaction gets any server connection that is free. So code that relies on a session (a SET, a
prepared statement, an advisory lock) fails visibly.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

from db.address import driver_url
from local.databases import APP_ROLE
from local.launch import server_account
from local.server import Server
from tests.support.servers import server_folder

PGBOUNCER = Path("/usr/sbin/pgbouncer")
#: This environment variable sends the connections of a test run through the pooler.
WANTED = {"HOLDFAST_TEST_POOLER": "pgbouncer"}
#: PostgreSQL's port number. The socket is in another folder, so only the folder of a URL changes.
_PORT = 5432
_CONFIG = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
unix_socket_mode = 0777
listen_port = {pooler_port}
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 60
server_idle_timeout = 20
server_lifetime = 300
server_login_retry = 0.1
query_wait_timeout = 4
log_connections = 0
log_disconnections = 0
"""


def missing() -> str:
    """Return PgBouncer's path if the program is not installed; empty if it is."""
    return "" if PGBOUNCER.is_file() else str(PGBOUNCER)


@contextmanager
def running(owner_url: str, password: str) -> Iterator[Path]:
    """Run PgBouncer in front of the owner's server and yield its socket's folder.

    It knows `holdfast_app` with this password, which the role must have on the server.
    """
    account = server_account()
    parts = urlsplit(driver_url(owner_url))
    where = parse_qs(parts.query)
    host = parts.hostname or where["host"][0]
    with server_folder() as folder:
        folder.chmod(0o755)
        account.own(folder, 0o755)
        config = _CONFIG.format(
            host=host,
            port=parts.port or where.get("port", ["5432"])[0],
            folder=folder,
            pooler_port=_PORT,
        )
        for name, text in (("ini", config), ("users", f'"{APP_ROLE}" "{password}"\n')):
            (folder / name).write_text(text)
            account.own(folder / name, 0o600)
        server = Server("pgbouncer", account, folder / "log", signal.SIGINT, signal.SIGKILL)

        def is_ready(_: int) -> bool:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(folder / f".s.PGSQL.{_PORT}"))
            return True

        server.start([str(PGBOUNCER), str(folder / "ini")], is_ready)
        try:
            yield folder
        finally:
            server.stop()


def through(pooler_folder: Path, app_url: str) -> str:
    """Return `holdfast_app`'s address through the pooler instead of the direct one."""
    parts = urlsplit(app_url)
    user = parts.netloc.rpartition("@")[0]
    query = urlencode({"host": str(pooler_folder), "port": _PORT}, quote_via=quote)
    return urlunsplit(parts._replace(netloc=f"{user}@", query=query))


def wanted() -> bool:
    """Return whether this run of the tests goes through the pooler."""
    return WANTED.items() <= os.environ.items()
