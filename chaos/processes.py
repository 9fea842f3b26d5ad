"""Process state from /proc: whether a process is stopped, and its child processes."""

from __future__ import annotations

import contextlib
from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by SIGSTOP."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def children_of(pid: int) -> list[int]:
    """List the child processes of a process."""
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
