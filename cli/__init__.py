"""The composition root: the holdfast command, embedded servers and the supervisor of processes."""

from pathlib import Path

#: The project's folder: where Python finds our modules, in every process that is started.
ROOT = Path(__file__).resolve().parent.parent
