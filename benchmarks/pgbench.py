"""pgbench, PostgreSQL's own load generator in C. It drives the baselines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

#: Folder of Debian's packages, with one subfolder per version.
_DEBIAN = Path("/usr/lib/postgresql")
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def find_pgbench() -> str | None:
    """Find pgbench: the newest of Debian's packages, otherwise the one in PATH."""
    found = sorted(_DEBIAN.glob("*/bin/pgbench"), key=lambda path: float(path.parts[-3]))
    return str(found[-1]) if found else shutil.which("pgbench")


def run_pgbench(url: str, script: str, *, clients: int, seconds: float) -> float:
    """Run the script for the given time and return transactions per second.

    Raises: SystemExit with pgbench's message if pgbench or one transaction fails.
    """
    parts = urlsplit(url)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                str(find_pgbench()),
                "--no-vacuum",
                f"--file={file.name}",
                f"--client={clients}",
                "--jobs=2",
                f"--time={max(1, round(seconds))}",
                f"--host={parse_qs(parts.query)['host'][0]}",
                f"--username={unquote(parts.username or '')}",
                parts.path.removeprefix("/"),
            ],
            env={**os.environ, "PGPASSWORD": unquote(parts.password or "")},
            capture_output=True,
            text=True,
            check=False,
        )
    rate = _RATE.search(done.stdout)
    if done.returncode or rate is None or "number of failed transactions: 0 " not in done.stdout:
        raise SystemExit(f"pgbench failed: {done.stderr or done.stdout}")
    return float(rate[1])
