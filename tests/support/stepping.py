"""A PostgreSQL server whose clock a test can set while it runs, by libfaketime.

Only the wall clock is faked. The server's timeouts follow the monotonic clock, which is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.binaries import find_postgres
from local.embedded import EmbeddedServers
from tests.support.servers import server_folder

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
MISSING = "" if _LIBRARIES else "libfaketime is not installed (Debian's package faketime)"
_WRAPPER = """#!/bin/sh
export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={file} FAKETIME_NO_CACHE=1
export FAKETIME_DONT_FAKE_MONOTONIC=1
exec {program} "$@"
"""


class SteppingServer:
    """A running server: its address, and its clock."""

    def __init__(self, owner_url: str, file: Path) -> None:
        self.owner_url = owner_url
        self._file = file

    def set_clock(self, seconds: float) -> None:
        """Set the clock to this many seconds ahead of the true time, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+f}\n")
        new.chmod(0o644)
        new.rename(self._file)


@contextmanager
def stepping_server() -> Iterator[SteppingServer]:
    """Run a server with the true time, until a test sets its clock.

    Check `MISSING` first.
    """
    with server_folder() as folder:
        programs = folder / "bin"
        programs.mkdir(mode=0o755)
        real = find_postgres(None)
        file = folder / "clock"
        for name in ("postgres", "initdb"):
            # Only the server's clock is faked; initdb finds the real server in its own folder.
            script = _WRAPPER if name == "postgres" else '#!/bin/sh\nexec {program} "$@"\n'
            wrapper = programs / name
            wrapper.write_text(script.format(library=_LIBRARIES[0], file=file, program=real / name))
            wrapper.chmod(0o755)
        file.write_text("+0\n")
        file.chmod(0o644)
        servers = EmbeddedServers(folder / "state", redis=False, fast=True, postgres_bin=programs)
        with servers as urls:
            yield SteppingServer(urls.owner_url, file)
