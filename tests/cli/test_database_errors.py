"""What a command prints without its database: the cause, and what to do."""

from __future__ import annotations

import json

import psycopg
import pytest

from db.address import driver_url
from local.ports import free_ports
from tests.conftest import PASSWORD
from tests.support.world import with_database


@pytest.fixture
def answer_of(run, monkeypatch):
    """A function that runs `org list` with a URL and returns the error line."""

    def ask(url: str) -> str:
        monkeypatch.setenv("DATABASE_URL", url)
        code, out, err = run("org", "list")
        assert (code, out, err.count("\n")) == (1, "", 1)
        return err

    return ask


def test_command_gives_the_cause_when_no_server_listens(answer_of):
    (port,) = free_ports(1)
    line = answer_of(f"postgresql://holdfast_app:s3cret@127.0.0.1:{port}/holdfast")
    assert line.startswith("holdfast: cannot connect to the database: ")
    assert f"port {port} failed: Connection refused" in line
    assert line.endswith("; check DATABASE_URL\n")
    assert "s3cret" not in line


def test_command_gives_the_cause_when_the_password_is_wrong(answer_of, urls):
    with psycopg.connect(driver_url(urls.app_url)) as connection:
        trusted = connection.pgconn.used_password == 0
    if trusted:
        pytest.skip("this server asks for no password")
    line = answer_of(urls.app_url.replace(PASSWORD, "wr0ng"))
    assert 'password authentication failed for user "holdfast_app"' in line
    assert line.endswith("; check DATABASE_URL\n")
    assert "wr0ng" not in line


def test_command_gives_the_cause_when_the_database_is_missing(answer_of, urls):
    line = answer_of(with_database(urls.app_url, "nowhere"))
    assert 'database "nowhere" does not exist' in line


def test_command_hides_a_password_that_is_read_as_part_of_the_host(answer_of):
    line = answer_of("postgresql://holdfast_app:pass@w0rd@127.0.0.1:1/holdfast")
    assert line.startswith("holdfast: cannot connect to the database: ")
    assert "w0rd" not in line


def test_command_asks_whether_up_runs_when_it_uses_its_servers(run, monkeypatch, tmp_path):
    # Given the addresses that an ended `up` left behind
    (port,) = free_ports(1)
    url = f"postgresql://holdfast_app:s3cret@127.0.0.1:{port}/holdfast"
    known = {"database_url": url, "owner_url": url, "redis_url": ""}
    (tmp_path / "addresses.json").write_text(json.dumps(known))
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL")
    code, out, err = run("org", "list")
    assert (code, out) == (1, "")
    assert "Connection refused" in err
    assert err.endswith("; is `./run up` running?\n")
