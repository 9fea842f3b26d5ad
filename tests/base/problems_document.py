"""Writes the tables of docs/problems.md from the registry.

To write them into the document, run `python -m tests.base.problems_document`.
"""

from __future__ import annotations

from base.problems.registry import GROUPS
from local import ROOT

DOCUMENT = ROOT / "docs" / "problems.md"
_HEAD = "| code | status | what happened | what it means for money | what to do next |"


def tables() -> str:
    """Write one table for each group of codes."""
    return "\n".join(
        f"## {group}\n\n{_HEAD}\n|---|---|---|---|---|\n"
        + "".join(
            f"| `{code}` | {code.status} | {code.title} | {code.money} | {code.action} |\n"
            for code in codes
        )
        for group, codes in GROUPS.items()
    )


def introduction(document: str) -> str:
    """Return the part of the document before its first table."""
    return document[: document.index("## ")]


if __name__ == "__main__":
    DOCUMENT.write_text(introduction(DOCUMENT.read_text()) + tables())
