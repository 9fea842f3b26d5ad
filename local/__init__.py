"""Run Holdfast on one machine: embedded servers, child processes, the demo."""

from __future__ import annotations

from pathlib import Path

#: The project's root folder.
ROOT = Path(__file__).resolve().parent.parent
