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
from chaos.run import Asked, run
from chaos.sabotage import SABOTAGES
from local.errors import EmbeddedServerError, ProcessNotReady


def main() -> int:
    """Run the chaos test and return its exit status.

    It is 0 if no problem was found and 1 if one was found. It is 2 if the run itself failed, and
    130 if it was interrupted.
    """
    sabotages = "; ".join(f"{name}: {text}" for name, text in SABOTAGES.items())
    parser = argparse.ArgumentParser(prog="holdfast chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of traffic under faults")
    parser.add_argument("--seed", type=int, help="repeats a run's choices; drawn if not given")
    parser.add_argument("--sabotage", choices=SABOTAGES, default="", help=sabotages)
    parser.add_argument(
        "--rest-seconds", type=float, default=120, help="how long it may take to come to rest"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--keep", action="store_true", help="leave logs and data for a look")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    signal.signal(signal.SIGTERM, _stop)
    try:
        report = run(Asked(given.seconds, seed, given.sabotage, given.rest_seconds, given.keep))
    except (ChildEnded, EmbeddedServerError, ProcessNotReady, RuntimeError) as error:
        sys.stderr.write(f"chaos: the run came to nothing: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("chaos: stopped\n")
        return 130
    if given.json:
        given.json.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    report.print_all()
    return 0 if report.is_clean else 1


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
