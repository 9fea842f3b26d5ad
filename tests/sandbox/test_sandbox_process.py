"""The process: its address file, what a restart keeps, and how it stops."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time

import httpx
import pytest

from local import ROOT
from tests.support.sandbox import start, stop


def test_restart_keeps_the_keys_and_a_stop_is_clean(tmp_path):
    # Given a running sandbox with a request that is held without limit
    sandbox = start(tmp_path, "--target", "http://127.0.0.1:9/")
    info_file = tmp_path / "sandbox.json"
    assert stat.S_IMODE(info_file.stat().st_mode) == 0o600
    assert sandbox.info["target"] == "http://127.0.0.1:9"
    assert sandbox.control("GET", "/info") == sandbox.info
    sandbox.fault("paypal", "hold")
    sandbox.fault("twilio", "act_then_timeout", seconds=60)
    for path in ("/paypal/v1/nowhere", "/twilio/nowhere"):
        with pytest.raises(httpx.ReadTimeout):
            sandbox.http.get(path, timeout=0.2)
    # When it gets SIGTERM / Then it stops cleanly and waits for no held request
    began = time.monotonic()
    assert stop(sandbox) == 0
    assert time.monotonic() - began < 30
    assert not info_file.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    # When it starts again / Then its keys are the same
    again = start(tmp_path)
    for name in ("paypal", "twilio", "stripe", "vapi"):
        before, after = dict(sandbox.info[name]), dict(again.info[name])
        assert before.pop("base_url") and after.pop("base_url")
        assert before == after
    # When another sandbox wants its port / Then that one reports it in a line, and this one runs on
    port = again.info["base_url"].rpartition(":")[2]
    command = [sys.executable, "-m", "sandbox", "--port", port, "--state", str(tmp_path / "other")]
    refused = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert refused.returncode == 1 and refused.stderr.startswith("sandbox: cannot serve: ")
    assert refused.stderr.count("\n") == 1
    assert again.control("GET", "/info") == again.info
    assert stop(again) == 0


def test_folder_of_an_older_sandbox_gets_new_secrets_and_keeps_the_rest(tmp_path):
    # Given secrets from a version without the HMAC secret
    sandbox = start(tmp_path)
    assert stop(sandbox) == 0
    path = tmp_path / "keys" / "secrets.json"
    kept = json.loads(path.read_text())
    first = kept.pop("vapi_hmac_secret")
    path.write_text(json.dumps(kept))
    # When it starts again, twice / Then there is an HMAC secret, and it stays the same
    secrets = []
    for _ in range(2):
        again = start(tmp_path)
        assert again.info["vapi"]["server_secret"] == kept["vapi_server_secret"]
        secrets.append(again.info["vapi"]["hmac_secret"])
        assert stop(again) == 0
    assert secrets[0] == secrets[1] != first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
