"""Commands in the output are those that the user can type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from cli.invocation import started_command
from local import ROOT
from local.ports import free_ports


@pytest.fixture
def installed(tmp_path):
    """A `holdfast` outside the project, as an installed wheel's script starts it."""
    script = tmp_path / "holdfast"
    script.write_text(f"#!{sys.executable}\nfrom cli.main import main\n\nmain()\n")
    script.chmod(0o755)
    return script


def test_installed_command_names_itself_in_its_advice(installed, tmp_path):
    # Given the addresses that an ended `up` left behind
    (port,) = free_ports(1)
    url = f"postgresql://holdfast_app:s3cret@127.0.0.1:{port}/holdfast"
    known = {"database_url": url, "owner_url": url, "redis_url": ""}
    (tmp_path / "addresses.json").write_text(json.dumps(known))
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    env |= {"HOLDFAST_STATE": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    done = subprocess.run(
        ["holdfast", "org", "list"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("; is `holdfast up` running?\n")


def test_installed_command_is_named_by_its_path_if_not_on_path(installed, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(installed), "up"])
    monkeypatch.setenv("PATH", str(installed.parent))
    assert started_command() == "holdfast"
    monkeypatch.setenv("PATH", str(ROOT))
    assert shutil.which("holdfast") is None
    assert started_command() == str(installed)


def test_projects_run_is_named_by_its_path_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "cli" / "main.py"), "up"])
    monkeypatch.chdir(ROOT)
    assert started_command() == "./run"
    monkeypatch.chdir(tmp_path)
    assert started_command() == str(ROOT / "run")
