"""The output of a run: a running log, then tables of results and a final line.

The log has a line for each fault and a progress line every ten seconds.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.facts import KINDS, Problem, pick_examples
from chaos.load import load_of_each_core

#: Number of problems printed of each kind, or the number of subjects if that is larger. All
#: problems are counted.
_PRINTED_MAX = 20
#: Lines in PostgreSQL's log that show a refusal by one of our constraints or triggers, for any
#: client.
_REFUSAL_LINE = re.compile(
    rb"ERROR: .*(violates (foreign key|unique|check) constraint"
    rb"|the ledger is append-only|has a newer entry than).*"
)
_IDS_AND_NUMBERS = re.compile(r"\borg_\w+|\b\d+\b")


@dataclass
class Report:
    """The results of one run."""

    seed: int
    seconds: float
    sabotage: str
    faults: Counter[str] = field(default_factory=Counter)
    events: int = 0
    #: Number of different requests of the traffic, by kind (debit, reserve, webhook …).
    request_counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    guards: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    #: Seconds from the 2xx response to each closing event in drills until the freeze.
    closed_seconds: list[float] = field(default_factory=list)
    #: The highest load average of the run, per core.
    load_of_each_core: float = 0.0
    #: The lines of the running log, each with its time.
    lines: list[str] = field(default_factory=list)
    #: The file with the evidence of the problems.
    evidence: Path | None = None
    began: float = field(default_factory=time.monotonic)

    def print_line(self, text: str) -> None:
        """Print a line of the running log, with the time since the start."""
        self.lines.append(f"{time.monotonic() - self.began:6.1f} s  {text}")
        print(self.lines[-1], flush=True)  # noqa: T201

    def note_load(self) -> None:
        """Record the machine's load if it is the highest so far."""
        self.load_of_each_core = max(self.load_of_each_core, load_of_each_core())

    def count(self, kind: str) -> int:
        """Count the problems of one kind."""
        return sum(problem.kind == kind for problem in self.problems)

    @property
    def refused_by_database(self) -> int:
        """How often one of the database's constraints or triggers refused a statement."""
        return self.guards.total()

    @property
    def is_clean(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def last_line(self) -> str:
        """Return the line that sums up the run. Its seed repeats the run."""
        return (
            f"chaos: faults={self.faults.total()} events={self.events}"
            f" lost={self.count('lost')} doubled={self.count('doubled')}"
            f" drift={self.count('drift')} refused_by_database={self.refused_by_database}"
            f" seed={self.seed}"
        )

    def print_all(self) -> None:
        """Print faults, figures, problems, the path of the evidence and the last line."""
        table = Table("fault", "times")
        for kind, times in sorted(self.faults.items()):
            table.add_row(kind, str(times))
        console = Console(width=100, file=sys.stdout)
        console.print(table)
        figures = Table("figure", "value")
        for name, value in self.figures.items():
            figures.add_row(name, str(value))
        for guard, times in self.guards.most_common():
            figures.add_row(f"refused: {guard}", str(times))
        console.print(figures)
        for kind in KINDS:
            examples = pick_examples(self.problems, kind, _PRINTED_MAX)
            for problem in examples:
                print(f"{problem.kind}: {problem.text}")  # noqa: T201
            if self.count(kind) > len(examples):
                print(f"{kind}: and {self.count(kind) - len(examples)} more")  # noqa: T201
        if self.evidence is not None:
            print(f"evidence: {self.evidence}")  # noqa: T201
        print(self.last_line(), flush=True)  # noqa: T201

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as data."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "sabotage": self.sabotage,
            "faults": dict(self.faults),
            "events": self.events,
            **{kind: self.count(kind) for kind in KINDS},
            "refused_by_database": self.refused_by_database,
            "refusals": dict(self.guards),
            "problems": [problem._asdict() for problem in self.problems],
            "asked": self.request_counts,
            "figures": self.figures,
        }


def refusals(log: Path) -> Counter[str]:
    """Count the refusals by constraints and triggers in the server's log."""
    counts: Counter[str] = Counter()
    for match in _REFUSAL_LINE.finditer(log.read_bytes()):
        line = match[0].decode(errors="replace").removeprefix("ERROR:").strip()
        # IDs are removed, so that one refusal for different wallets or entries is counted as one
        # kind.
        counts[_IDS_AND_NUMBERS.sub("…", line)] += 1
    return counts
