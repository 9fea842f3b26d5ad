"""Logs: one JSON object per line, with the bound fields, from a separate process."""

from __future__ import annotations

import json
import subprocess
import sys

from local import ROOT

_PROGRAM = """
import logging
from base.log import bound, configure, get_logger
configure("INFO")
log = get_logger("test")
with bound(correlation_id="cor_1", job=None):
    log.info("inside", size=3)
log.debug("too quiet")
logging.getLogger("httpx").info("GET https://host/?token=secret")
logging.getLogger("other").warning("plain")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("two\\nlines")
"""


def test_every_record_is_one_json_object_on_stderr():
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    records = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [record["event"] for record in records] == ["inside", "plain", "two\nlines"]
    assert (records[0]["correlation_id"], records[0]["size"]) == ("cor_1", 3)
    assert (records[0]["level"], records[0]["logger"]) == ("info", "test")
    assert "correlation_id" not in records[1]
    assert "ZeroDivisionError" in records[2]["exception"]
