"""How production is started and documented: compose, Procfile and README."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from base.enums import Queue
from base.settings import Settings, load_settings
from chaos.system import WORKERS as WORKERS_OF_CHAOS
from local import ROOT
from local.stack import WORKERS

#: Settings that a container does not get. Only `migrate` has the owner's address. The others are a
#: folder for embedded servers, and the stand-ins' addresses.
NOT_THERE = {
    "DATABASE_OWNER_URL",
    "HOLDFAST_STATE",
    "PAYPAL_BASE_URL",
    "TWILIO_BASE_URL",
    "VAPI_BASE_URL",
}
#: The ingress's own address is set where it is started.
OF_INGRESS = {"HOST", "PORT"}
EVERY = [name.upper() for name in Settings.model_fields]


#: The packages that production runs.
PRODUCT = {"base", "db", "domain", "providers", "ingress", "workers", "local", "cli"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_image_has_every_package_of_the_product():
    copied = re.findall(r"^COPY (\w+) \./\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(copied) == PRODUCT


def test_wheel_has_every_package_and_data_file():
    tools = project()["tool"]
    named = {one.removesuffix("*") for one in tools["setuptools"]["packages"]["find"]["include"]}
    assert named == set(tools["importlinter"]["root_packages"]) >= PRODUCT
    # Files that no package finds by itself are listed as data.
    data = {
        path
        for package, patterns in tools["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {
        path
        for package in named
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert data == others


def shared_environment() -> dict[str, str]:
    """Return every variable that each container gets, as compose writes it."""
    compose = (ROOT / "docker-compose.yml").read_text()
    block = re.search(r"^x-settings: &settings\n((?:  .+\n)+)", compose, re.MULTILINE)
    assert block
    return dict(line.strip().split(": ", 1) for line in block[1].splitlines())


def substituted(written: str, environment: dict[str, str]) -> str:
    """Return the value as compose resolves it.

    The default after `:-` replaces an unset or empty variable.
    """

    def value(found: re.Match[str]) -> str:
        return environment.get(found["name"]) or found["default"] or ""

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, written)


@pytest.fixture
def bare(monkeypatch):
    """Removes all settings from the environment in which the tests run."""
    for name in EVERY:
        monkeypatch.delenv(name, raising=False)


def test_every_setting_that_a_container_can_use_reaches_it():
    assert set(shared_environment()) == set(EVERY) - NOT_THERE - OF_INGRESS
    ingress = (ROOT / "docker-compose.yml").read_text().partition("\n  ingress:\n")[2]
    for name in OF_INGRESS:
        assert f"      {name}: " in ingress.partition("\n\n")[0]


def test_setting_is_passed_on_under_its_own_name():
    for name, written in shared_environment().items():
        assert name in ("DATABASE_URL", "REDIS_URL") or written.startswith(f"${{{name}:")


def test_unset_settings_have_the_same_default_in_a_container(bare, monkeypatch):
    # Given an environment with only the variables that compose requires
    plain = load_settings().model_dump()
    given = {"PUBLIC_URL": "https://pay.example", "HOLDFAST_APP_PASSWORD": "hunter2"}
    # When a container starts
    for name, written in shared_environment().items():
        monkeypatch.setenv(name, substituted(written, given))
    there = load_settings().model_dump()
    # Then its settings differ only in the addresses
    differing = {name for name in plain if there[name] != plain[name]}
    assert differing == {"database_url", "redis_url", "public_url"}


def test_readme_lists_every_setting_in_order():
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("\n## Settings\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[A-Z].*?) \|", table, re.MULTILINE)
    assert re.findall(r"`([A-Z_]+)`", " ".join(cells)) == EVERY


def queues_of(started: str) -> set[str]:
    return set(re.findall(r'--queue"?,? "?(\w+)', started))


def test_every_queue_has_a_worker_wherever_the_system_is_started():
    every = {str(queue) for queue in Queue}
    for workers in (WORKERS, WORKERS_OF_CHAOS):
        assert {queue for queues, _ in workers.values() for queue in queues} == every
    for name in ("docker-compose.yml", "Procfile"):
        assert queues_of((ROOT / name).read_text()) == every


def test_two_workers_serve_the_safety_queue_wherever_it_is_started():
    for workers in (WORKERS, WORKERS_OF_CHAOS):
        assert sum("safety" in queues for queues, _ in workers.values()) >= 2
    procfile = (ROOT / "Procfile").read_text()
    assert len(re.findall(r"^[\w-]+: .*--queue safety", procfile, re.MULTILINE)) >= 2
    compose = (ROOT / "docker-compose.yml").read_text()
    safety = compose.partition("\n  worker-safety:\n")[2].partition("\n\n")[0]
    assert re.search(r"^    deploy:\n      replicas: 2$", safety, re.MULTILINE)
