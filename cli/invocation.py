"""The command that the user started, for output that names further commands."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from local import ROOT


def started_command() -> str:
    """Return the command as the user can type it again, quoted for a shell.

    An installed `holdfast` need not be on PATH. The project's `run` starts the module itself, and
    may have been started from another folder.
    """
    program, run = sys.argv[0], ROOT / "run"
    if Path(program).name == "holdfast":
        on_path = shutil.which("holdfast")
        is_on_path = on_path is not None and os.path.realpath(on_path) == os.path.realpath(program)
        return "holdfast" if is_on_path else shlex.quote(program)
    if not run.exists():
        return "holdfast"
    return "./run" if ROOT.samefile(".") else shlex.quote(str(run))
