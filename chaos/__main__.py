"""Run the chaos test once and print its result; `./run chaos` starts this module."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from pathlib import Path
from types import FrameType

from chaos.child import ChildEnded
from chaos.run import RunOptions, run
from chaos.sabotage import SABOTAGES
from local.errors import EmbeddedServerError, ProcessNotReady


def main() -> int:
    """Run the chaos test and return its exit status.

    It is 0 if no problem was found and 1 if one was found. It is 2 if the run itself failed, and
    130 if it was interrupted.
    """
    sabotages = "; ".join(f"{name}: {text}" for name, text in SABOTAGES.items())
    parser = argparse.ArgumentParser(prog="holdfast chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="seconds of traffic under faults")
    parser.add_argument(
        "--seed", type=int, help="seed that repeats a run's choices; drawn if not given"
    )
    parser.add_argument("--sabotage", choices=SABOTAGES, default="", help=sabotages)
    parser.add_argument(
        "--rest-seconds", type=float, default=120, help="seconds within which all work must be done"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report to FILE")
    parser.add_argument("--keep", action="store_true", help="keep logs and data for inspection")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    signal.signal(signal.SIGTERM, _stop)
    try:
        report = run(
            RunOptions(options.seconds, seed, options.sabotage, options.rest_seconds, options.keep)
        )
    except (ChildEnded, EmbeddedServerError, ProcessNotReady, RuntimeError) as error:
        sys.stderr.write(f"chaos: the run failed: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("chaos: stopped\n")
        return 130
    if options.json:
        options.json.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    report.print_all()
    return 0 if report.is_clean else 1


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
