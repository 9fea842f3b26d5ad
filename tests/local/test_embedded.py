"""The embedded servers: complete, one owner per folder, restored after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from base.clock import wait_until
from local import ROOT
from local.embedded import EmbeddedServers, RestartCallbacks, ServerUrls
from local.errors import EmbeddedServerError
from local.server import is_alive
from tests.support.servers import debian_servers, debian_servers_missing, server_folder

#: Runs the servers in another process and prints their addresses. It never stops them.
_OWNER = """
import sys, time
from pathlib import Path
from local.embedded import EmbeddedServers
urls = EmbeddedServers(Path(sys.argv[1])).start()
print(urls.owner_url, urls.redis_url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def state() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder / "it's a state"


def postgres(urls: ServerUrls) -> psycopg.Connection:
    return psycopg.connect(urls.owner_url.replace("+psycopg", ""), autocommit=True)


def valkey(urls: ServerUrls) -> redis.Redis:
    return redis.Redis.from_url(urls.redis_url)


def start_owner(state: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(state)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def pids_in(state: Path) -> list[int]:
    files = (state / "postgres" / "postmaster.pid", state / "valkey" / "pid")
    return [int(file.read_text().split()[0]) for file in files if file.exists()]


def test_both_servers_answer_and_are_gone_after_stop(state: Path) -> None:
    # Given / When
    servers = EmbeddedServers(state, fast=True)
    urls = servers.start()
    pids = pids_in(state)
    # Then they answer with the expected settings
    with postgres(urls) as connection:
        row = connection.execute(
            "SELECT current_user, current_database(), current_setting('max_connections'),"
            " current_setting('TimeZone'), current_setting('shared_preload_libraries')"
        ).fetchone()
    assert row == ("postgres", "holdfast", "200", "UTC", "")
    with valkey(urls) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    # And when they are stopped, twice, no process and no socket remains
    servers.stop()
    servers.stop()
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)
    assert not (state / "run").exists()


def test_data_survives_a_restart(state: Path) -> None:
    # Given
    with EmbeddedServers(state) as urls, postgres(urls) as connection, valkey(urls) as client:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
        client.set("kept", "42")
    # When
    with EmbeddedServers(state) as again, postgres(again) as connection, valkey(again) as client:
        # Then
        assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        assert client.get("kept") == b"42"
        assert again == urls


def test_second_owner_of_the_same_folder_is_refused(state: Path) -> None:
    # Given
    with EmbeddedServers(state, fast=True, redis=False) as urls:
        # When / Then
        with pytest.raises(EmbeddedServerError, match="another process already runs"):
            EmbeddedServers(state, fast=True, redis=False).start()
        # And the first is unharmed
        with postgres(urls) as connection:
            connection.execute("SELECT 1")


def test_killed_owner_leaves_no_servers_and_its_data_is_taken_over(state: Path) -> None:
    # Given an owner in another process, with data in both servers
    with start_owner(state) as owner:
        assert owner.stdout is not None
        urls = ServerUrls(*owner.stdout.readline().split())
        pids = pids_in(state)
        with postgres(urls) as connection, valkey(urls) as client:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
            client.set("kept", "42")
        # When
        owner.kill()
    # Then a new owner takes over at once, while the old servers may still be stopping
    with EmbeddedServers(state) as again, postgres(again) as connection, valkey(again) as client:
        assert not set(pids) & set(pids_in(state))
        assert not any(is_alive(pid) for pid in pids)
        assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        assert client.get("kept") == b"42"


@pytest.mark.skipif(sys.platform != "linux", reason="death signals exist on Linux only")
def test_servers_stop_by_themselves_when_their_owner_is_killed(state: Path) -> None:
    # Given
    with start_owner(state) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        pids = pids_in(state)
        # When
        owner.kill()
    # Then
    assert len(pids) == 2
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids), limit_seconds=10)


def test_pid_file_of_another_process_kills_nothing(state: Path) -> None:
    # Given a cluster whose pid file names a process that does not belong to it
    with EmbeddedServers(state, fast=True, redis=False):
        pid_file = state / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:], ""]))
        # When
        with EmbeddedServers(state, fast=True, redis=False) as urls, postgres(urls) as connection:
            # Then
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert bystander.poll() is None
        bystander.kill()


def test_half_made_cluster_is_made_again(state: Path) -> None:
    # Given the files that remain if initdb is killed
    (state / "postgres.new" / "base").mkdir(parents=True)
    state.chmod(0o711)
    (state / "postgres.password").write_text("of no cluster")
    # When
    with EmbeddedServers(state, fast=True, redis=False) as urls, postgres(urls) as connection:
        # Then
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_path_too_long_for_a_socket_gets_a_folder_elsewhere(state: Path) -> None:
    # Given
    long = state / ("long" * 25)
    state.mkdir(mode=0o755)
    # When
    with EmbeddedServers(long, fast=True) as urls:
        elsewhere = (long / "run").readlink()
        # Then both servers are reachable there, and no other user has access
        with postgres(urls) as connection, valkey(urls) as client:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert client.ping()
        assert elsewhere.stat().st_mode & 0o777 == 0o700
    # And it is removed at the end
    assert not elsewhere.exists()


def test_missing_programs_are_reported_in_one_line(state: Path, tmp_path: Path) -> None:
    # Given a folder without programs / When / Then
    with pytest.raises(EmbeddedServerError, match=r"no PostgreSQL in .*or set DATABASE_URL$"):
        EmbeddedServers(state, postgres_bin=tmp_path).start()
    with pytest.raises(EmbeddedServerError, match=r"no Valkey or Redis in .*or set REDIS_URL$"):
        EmbeddedServers(state, postgres=False, redis_bin=tmp_path).start()


def test_failed_start_reports_the_cause_and_frees_the_folder(state: Path) -> None:
    # Given data of another PostgreSQL version
    with EmbeddedServers(state, fast=True, redis=False):
        pass
    version = state / "postgres" / "PG_VERSION"
    good = version.read_text()
    version.write_text("9\n")
    # When / Then
    with pytest.raises(EmbeddedServerError, match=r"postgres did not start: .*FATAL"):
        EmbeddedServers(state, fast=True, redis=False).start()
    # And once that is repaired it starts
    version.write_text(good)
    with EmbeddedServers(state, fast=True, redis=False) as urls, postgres(urls) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_start_is_refused_outside_the_main_thread(state: Path) -> None:
    # Given
    refused: list[EmbeddedServerError] = []

    def start() -> None:
        try:
            EmbeddedServers(state).start()
        except EmbeddedServerError as error:
            refused.append(error)

    # When
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    # Then
    assert "main thread" in str(refused[0])
    assert not state.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account's servers")
def test_root_runs_servers_as_another_user_outside_a_closed_folder(tmp_path: Path) -> None:
    # Given a folder below one that only root may enter
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    servers = EmbeddedServers(closed / "state", fast=True, postgres=False)
    # When
    with servers as urls, valkey(urls) as client:
        pid = client.info("server")["process_id"]
        # Then
        assert Path(f"/proc/{pid}").stat().st_uid != 0
        assert closed.stat().st_mode & 0o777 == 0o700
    # The folder that replaces it is removed here, because nothing else removes it
    for folder in Path("/var/lib/holdfast").iterdir():
        if str(folder) in urls.redis_url:
            subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.skipif(bool(debian_servers_missing()), reason="Debian's servers are not installed")
def test_oldest_supported_servers_run_too() -> None:
    # Given / When
    with debian_servers() as urls, postgres(urls) as connection, valkey(urls) as client:
        # Then
        assert connection.info.server_version // 10_000 == 15
        assert client.info("server")["redis_version"].startswith("7.")


def test_dead_server_prevents_neither_stop_nor_start(state: Path) -> None:
    # Given
    servers = EmbeddedServers(state, postgres=False, fast=True)
    servers.start()
    os.kill(pids_in(state)[0], signal.SIGKILL)
    # When / Then
    servers.stop()
    with EmbeddedServers(state, postgres=False, fast=True) as urls, valkey(urls) as client:
        assert client.ping()


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_killed_server_is_restarted_and_reported(state: Path, name: str) -> None:
    # Given servers that are kept running, with data in each
    reported: list[tuple[str, int]] = []
    keep = RestartCallbacks(
        on_exit=lambda server, code: reported.append((server, code)),
        on_restart=lambda server, pid: reported.append((server, pid)),
    )
    servers = EmbeddedServers(state, keep=keep)
    urls = servers.start()
    with postgres(urls) as connection, valkey(urls) as client:
        connection.execute("CREATE TABLE kept (id int)")
        client.set("kept", "1")
    file = state / ("postgres/postmaster.pid" if name == "postgres" else "valkey/pid")
    # When one of them is killed, twice
    for times in (1, 2):
        os.kill(int(file.read_text().split()[0]), signal.SIGKILL)
        assert wait_until(lambda times=times: len(reported) == 2 * times, limit_seconds=60)
    # Then each death and restart is reported, and its data is there
    assert reported[0] == reported[2] == (name, -signal.SIGKILL)
    assert reported[1][0] == reported[3][0] == name
    assert is_alive(reported[3][1])
    with postgres(urls) as connection, valkey(urls) as client:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        assert client.get("kept") == b"1"
    # And a requested stop is neither reported nor undone
    pids = pids_in(state)
    servers.stop()
    assert len(reported) == 4
    assert not any(map(is_alive, pids))
