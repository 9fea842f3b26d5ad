"""What production is started with and what tells of it: compose, Procfile and README."""

from __future__ import annotations

import re

import pytest

from base.enums import Queue
from base.settings import Settings, load_settings
from chaos.house import WORKERS as WORKERS_OF_CHAOS
from local import ROOT
from local.stack import WORKERS

#: What a container is not given: the owner's address, which `migrate` alone has, a folder for
#: embedded servers, and the stand-ins' addresses and name.
NOT_THERE = {
    "DATABASE_OWNER_URL",
    "HOLDFAST_STATE",
    "PAYPAL_BASE_URL",
    "PAYPAL_CERTIFICATE_NAME",
    "TWILIO_BASE_URL",
    "VAPI_BASE_URL",
}
#: Where the ingress listens is said where it is started.
OF_INGRESS = {"HOST", "PORT"}
EVERY = [name.upper() for name in Settings.model_fields]


def shared_environment() -> dict[str, str]:
    """Every variable that each container gets, as compose writes it."""
    compose = (ROOT / "docker-compose.yml").read_text()
    block = re.search(r"^x-settings: &settings\n((?:  .+\n)+)", compose, re.MULTILINE)
    assert block
    return dict(line.strip().split(": ", 1) for line in block[1].splitlines())


def substituted(written: str, environment: dict[str, str]) -> str:
    """What compose makes of a value: `:-` gives its default for one that is unset or empty."""

    def value(found: re.Match[str]) -> str:
        return environment.get(found["name"]) or found["default"] or ""

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, written)


@pytest.fixture
def bare(monkeypatch):
    """No setting comes from the shell that runs the tests."""
    for name in EVERY:
        monkeypatch.delenv(name, raising=False)


def test_every_setting_that_a_container_can_use_reaches_it():
    assert set(shared_environment()) == set(EVERY) - NOT_THERE - OF_INGRESS
    ingress = (ROOT / "docker-compose.yml").read_text().partition("\n  ingress:\n")[2]
    for name in OF_INGRESS:
        assert f"      {name}: " in ingress.partition("\n\n")[0]


def test_a_setting_is_handed_on_by_its_own_name():
    for name, written in shared_environment().items():
        assert name in ("DATABASE_URL", "REDIS_URL") or written.startswith(f"${{{name}:")


def test_what_is_not_given_has_in_a_container_the_default_that_it_has_anywhere(bare, monkeypatch):
    # Given an environment that names nothing but what compose demands
    plain = load_settings().model_dump()
    given = {"PUBLIC_URL": "https://pay.example", "HOLDFAST_APP_PASSWORD": "hunter2"}
    # When a container starts
    for name, written in shared_environment().items():
        monkeypatch.setenv(name, substituted(written, given))
    there = load_settings().model_dump()
    # Then it differs in the addresses alone
    differing = {name for name in plain if there[name] != plain[name]}
    assert differing == {"database_url", "redis_url", "public_url"}


def test_the_readme_tells_of_every_setting_in_order():
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[A-Z].*?) \|", table, re.MULTILINE)
    assert re.findall(r"`([A-Z_]+)`", " ".join(cells)) == EVERY


def queues_of(started: str) -> set[str]:
    return set(re.findall(r'--queue"?,? "?(\w+)', started))


def test_every_queue_has_a_worker_wherever_the_house_is_started():
    every = {str(queue) for queue in Queue}
    for workers in (WORKERS, WORKERS_OF_CHAOS):
        assert {queue for queues, _ in workers.values() for queue in queues} == every
    for name in ("docker-compose.yml", "Procfile"):
        assert queues_of((ROOT / name).read_text()) == every


def test_two_workers_serve_the_safety_queue_wherever_the_house_is_started():
    for workers in (WORKERS, WORKERS_OF_CHAOS):
        assert sum("safety" in queues for queues, _ in workers.values()) >= 2
    procfile = (ROOT / "Procfile").read_text()
    assert len(re.findall(r"^[\w-]+: .*--queue safety", procfile, re.MULTILINE)) >= 2
    compose = (ROOT / "docker-compose.yml").read_text()
    safety = compose.partition("\n  worker-safety:\n")[2].partition("\n\n")[0]
    assert re.search(r"^    deploy:\n      replicas: 2$", safety, re.MULTILINE)
