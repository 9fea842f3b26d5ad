"""Runs the production worker with shorter waits, for the demo and fault runs.

Production runs `holdfast worker`, whose waits are constants. This module exists so that a run on
one machine does not have to wait for minutes. It is the only way to change the waits of a process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

from base.enums import Queue
from base.log import configure
from base.settings import load_settings
from workers import process
from workers.provider_waits import ProviderWaits


def worker_arguments(queues: Iterable[str], threads: int, waits: ProviderWaits) -> list[str]:
    """Return the arguments of the process `python -m local.worker`."""
    queue_options = [part for queue in queues for part in ("--queue", queue)]
    return [*queue_options, "--threads", str(threads), "--waits", json.dumps(asdict(waits))]


def work(queues: set[Queue], threads: int, waits: ProviderWaits) -> None:
    """Work on the queues until a signal, with these waits."""
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    process.serve(settings, queues, threads, waits=waits)


def parse_arguments(arguments: list[str]) -> tuple[set[Queue], int, ProviderWaits]:
    """Return the queues, threads and waits that `worker_arguments` wrote."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queue", action="append", type=Queue, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--waits", type=json.loads, required=True)
    options = parser.parse_args(arguments)
    return set(options.queue), options.threads, ProviderWaits(**options.waits)


if __name__ == "__main__":
    work(*parse_arguments(sys.argv[1:]))
