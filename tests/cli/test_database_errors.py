"""What a command prints without its database: the cause, and what to do."""

from __future__ import annotations

import json

import psycopg
import pytest

from base.settings import SettingsError
from db.address import driver_url
from db.logins import check_serving_login
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


@pytest.mark.parametrize("scheme", ["mysql", "sqlite", "nonsense"])
def test_command_names_the_form_of_a_url_that_is_not_postgresql(run, monkeypatch, scheme):
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://holdfast:s3cret@127.0.0.1/holdfast")
    code, out, err = run("org", "list")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("holdfast: DATABASE_URL: not an address of a PostgreSQL database; ")
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in err
    assert "s3cret" not in err


def test_command_names_the_form_of_a_redis_url_that_cannot_be_parsed(run, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@cache:port/0")
    code, out, err = run("org", "create", "Acme")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("holdfast: wrong setting: REDIS_URL: must be redis://USER:PASSWORD@")
    assert "s3cret" not in err


def test_process_names_what_to_check_when_no_server_listens():
    (port,) = free_ports(1)
    with pytest.raises(SettingsError) as caught:
        check_serving_login(f"postgresql://holdfast_app:s3cret@127.0.0.1:{port}/holdfast")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("DATABASE_URL: cannot connect: ")
    assert line.endswith("; check DATABASE_URL and that PostgreSQL runs there")
    assert "s3cret" not in line
