"""Builds commands for child processes: their account and their tie to a thread.

Servers never run as root. Only folders that this code created get wider permissions.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.errors import EmbeddedServerError

_CHILD_SCRIPT = str(Path(__file__).with_name("child.py"))
#: Accounts that root may run the servers as, best first.
_SERVER_ACCOUNT_NAMES = ("postgres", "nobody")
#: Where root keeps servers' data if the account cannot enter the requested folder.
ROOT_STATE = Path("/var/lib/holdfast")


@dataclass(frozen=True)
class Account:
    """The account that servers run as. If it is our own, uid and gid are -1."""

    name: str
    uid: int = -1
    gid: int = -1

    @property
    def is_other(self) -> bool:
        return self.uid >= 0

    def own(self, path: Path, mode: int) -> None:
        """Make the account the owner of a path that we created, with this mode."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)
        path.chmod(mode)

    def can_run(self, *argv: str | Path) -> bool:
        """Run the command as the account and return whether it succeeded."""
        command = tied_argv([str(part) for part in argv], self, signal.SIGKILL)
        result = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, cwd="/"
        )
        return result.returncode == 0


def tied_argv(argv: Sequence[str], account: Account, death_signal: signal.Signals) -> list[str]:
    """Build the command that runs argv as the account, tied to this process.

    On Linux the program gets `death_signal` when the thread that started it ends. Start it on a
    thread that lives as long as the program should. On other systems, the children of a killed
    parent keep running.
    """
    ids = [os.getpid(), account.uid, account.gid, int(death_signal)]
    return [sys.executable, "-I", "-S", _CHILD_SCRIPT, *map(str, ids), *argv]


def server_account() -> Account:
    """Return the account for servers: ours, or an unprivileged one if we are root.

    Raises: EmbeddedServerError if PostgreSQL accepts no account here.
    """
    if os.geteuid() != 0:
        try:
            return Account(pwd.getpwuid(os.geteuid()).pw_name)
        except KeyError:
            raise EmbeddedServerError(
                f"PostgreSQL needs an account, and user id {os.geteuid()} has none in /etc/passwd:"
                " set DATABASE_URL and REDIS_URL to servers of your own"
            ) from None
    for name in _SERVER_ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        f"root cannot run PostgreSQL, and there is no account {' or '.join(_SERVER_ACCOUNT_NAMES)}:"
        " run as another user, or set DATABASE_URL and REDIS_URL"
    )


def state_folder(requested: Path, account: Account) -> Path:
    """Create the folder for the servers' data and return its path.

    The folder is `requested`, if the account may enter it. Otherwise the folder is below
    ROOT_STATE, named by a digest. Unprivileged accounts may not enter folders below /root, for
    example.
    """
    if not requested.exists():
        requested.mkdir(parents=True)
        requested.chmod(0o711 if account.is_other else 0o700)
    if not account.is_other or account.can_run("/bin/sh", "-c", 'cd "$1"', "sh", requested):
        return requested
    folder = ROOT_STATE / hashlib.sha256(os.fsencode(requested)).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    ROOT_STATE.chmod(0o711)
    folder.chmod(0o711)
    return folder
