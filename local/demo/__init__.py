"""The demonstration: a whole story over HTTP, with every effect checked."""

from __future__ import annotations

from local.demo.play import run_demo

__all__ = ["run_demo"]
