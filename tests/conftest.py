"""Real PostgreSQL and Valkey for every test; a fresh, migrated database for each.

If DATABASE_URL or REDIS_URL is set, that server is used. DATABASE_URL must then be a superuser's,
and the Redis database is emptied.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
from hypothesis import settings as hypothesis_settings

from base.settings import Settings
from db.address import driver_url
from db.engine import Database
from db.logins import set_password
from db.migrate import migrate
from db.redis.client import connect
from local import ROOT
from local.databases import derive_app_url
from local.embedded import EmbeddedServers, ServerUrls
from local.sandbox import sandbox_env
from providers import registry
from tests.support import dialect, pooler
from tests.support.cuttable import Way
from tests.support.processes import Processes
from tests.support.sandbox import RunningSandbox, start, stop
from tests.support.servers import make_owner_login_quick, quick_verifier, server_folder
from tests.support.world import Urls, World, with_database

PASSWORD = secrets.token_urlsafe(12)
#: The same examples in every run, so that a failure can be repeated. `--hypothesis-profile drawn`
#: draws new ones.
hypothesis_settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis_settings.register_profile("drawn", deadline=None)
hypothesis_settings.load_profile("same")
TEMPLATE = f"holdfast_template_{os.getpid()}"
dialect.share()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-sequences",
        type=int,
        default=None,
        help="so many random sequences against the ledger's model, instead of the same few",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--model-sequences") and config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if asked := config.getoption("--model-sequences"):
        seed = config.getoption("--hypothesis-seed")
        terminalreporter.write_line(f"again: --model-sequences {asked} --hypothesis-seed {seed}")


@pytest.fixture(scope="session")
def servers() -> Iterator[ServerUrls]:
    given = ServerUrls(os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", ""))
    with ExitStack() as stack:
        if given.owner_url and given.redis_url:
            yield given
            return
        folder = stack.enter_context(server_folder())
        made = stack.enter_context(
            EmbeddedServers(
                folder / "state",
                fast=True,
                postgres=not given.owner_url,
                redis=not given.redis_url,
            )
        )
        if not given.owner_url:
            make_owner_login_quick(made.owner_url)
        yield ServerUrls(given.owner_url or made.owner_url, given.redis_url or made.redis_url)


@pytest.fixture(scope="session")
def template(servers: ServerUrls) -> Iterator[str]:
    """The name of a migrated database that others are copied from."""
    with psycopg.connect(driver_url(servers.owner_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
        owner_url = with_database(servers.owner_url, TEMPLATE)
        migrate(owner_url)
        set_password(owner_url, "holdfast_app", quick_verifier(PASSWORD))
        yield TEMPLATE
        connection.execute(f"DROP DATABASE {TEMPLATE} WITH (FORCE)")


@pytest.fixture(scope="session")
def app_url_of(servers: ServerUrls, template: str) -> Iterator[Callable[[str], str]]:
    """A function that returns `holdfast_app`'s URL for an owner's URL.

    In a run with PgBouncer, the URL leads through it.
    """
    if not pooler.wanted():
        yield lambda owner_url: derive_app_url(owner_url, PASSWORD)
        return
    with pooler.running(servers.owner_url, PASSWORD) as folder:
        yield lambda owner_url: pooler.through(folder, derive_app_url(owner_url, PASSWORD))


@pytest.fixture
def urls(servers: ServerUrls, template: str, app_url_of: Callable[[str], str]) -> Iterator[Urls]:
    """The URLs of a fresh database, as owner and `holdfast_app`, and an empty Redis."""
    name = f"holdfast_test_{secrets.token_hex(4)}"
    with psycopg.connect(driver_url(servers.owner_url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        owner_url = with_database(servers.owner_url, name)
        client = connect(servers.redis_url)
        client.flushdb()
        yield Urls(owner_url, app_url_of(owner_url), servers.redis_url)
        client.close()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(urls: Urls) -> Iterator[Database]:
    """The database as `holdfast_app`, with connections for many threads."""
    made = Database(urls.app_url, name="test", pool_size=40)
    yield made
    made.close()


@pytest.fixture
def direct(urls: Urls) -> Iterator[Database]:
    """The same database without a pooler, for tests that need a server connection."""
    made = Database(derive_app_url(urls.owner_url, PASSWORD), name="test", pool_size=4)
    yield made
    made.close()


@pytest.fixture
def way(urls: Urls) -> Iterator[Way]:
    """A connection to the test's database that can be cut and restored."""
    made = Way(urls.app_url)
    yield made
    made.cut()


@pytest.fixture
def redis_client(urls: Urls) -> Iterator[redis.Redis]:
    client = connect(urls.redis_url)
    yield client
    client.close()


@pytest.fixture(scope="session")
def running_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    made = start(tmp_path_factory.mktemp("sandbox"))
    yield made
    stop(made)


@pytest.fixture
def sandbox(running_sandbox: RunningSandbox) -> Iterator[RunningSandbox]:
    """The four providers' stand-ins, empty, without faults."""
    running_sandbox.control("POST", "/reset")
    yield running_sandbox
    running_sandbox.control("POST", "/reset")


@pytest.fixture
def settings(urls: Urls, sandbox: RunningSandbox) -> Settings:
    """Settings for the fresh database and the sandbox."""
    env = {key.lower(): value for key, value in sandbox_env(sandbox.info).items()}
    return Settings.model_validate(
        {
            **env,
            "database_url": urls.app_url,
            "redis_url": urls.redis_url,
            "public_url": "http://127.0.0.1:1",
        }
    )


@pytest.fixture
def world(
    urls: Urls, database: Database, settings: Settings, sandbox: RunningSandbox
) -> Iterator[World]:
    """An empty Holdfast with providers: creates organizations and runs due jobs here."""
    providers = registry.build(settings)
    yield World(urls.owner_url, database, settings, sandbox, providers)
    providers.close()


@pytest.fixture
def processes(urls: Urls, sandbox: RunningSandbox, tmp_path: Path) -> Iterator[Processes]:
    """Starts the holdfast command and workers, with short waits for lost requests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    made = Processes(
        {
            **kept,
            **sandbox_env(sandbox.info),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": urls.app_url,
            "REDIS_URL": urls.redis_url,
        },
        tmp_path,
    )
    yield made
    made.end_all()
