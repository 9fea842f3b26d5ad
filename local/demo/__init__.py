"""The demonstration: the whole way once, over HTTP, with every effect checked where it shows."""

from __future__ import annotations

from local.demo.play import run_demo

__all__ = ["run_demo"]
