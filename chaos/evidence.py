"""Write a run's problems to a file, each with every line that names it.

The sources are read while no process runs any more. For each problem they are the journal's lines,
the database's rows, the providers' data and the processes' log lines that contain its IDs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from chaos.facts import KINDS, pick_examples
from chaos.report import Report
from chaos.system import System
from db.address import driver_url

#: Number of problems of each kind for which evidence is collected, or the number of subjects if
#: that is larger. The file lists all problems.
_PROBLEMS_MAX = 20
#: Number of lines or rows of one source that are kept for one problem. The last ones are kept.
_LINES_MAX = 60
#: Number of characters of one line that are kept.
_LINE_LENGTH_MAX = 2_000
#: Sandbox data to collect: the name of the source and its path in the control API.
_PROVIDERS = {
    "captures": "/paypal/captures",
    "subscriptions": "/paypal/subscriptions",
    "calls": "/vapi/calls",
    "deliveries": "/deliveries",
}
#: All tables of the product.
_SELECT_TABLES = (
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    " AND tablename <> 'alembic_version' ORDER BY 1"
)


def evidence_path(seed: int) -> Path:
    """Return a new file name in the system's temporary folder for one run's evidence."""
    timestamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return (
        Path(tempfile.gettempdir()) / f"holdfast-chaos-seed-{seed}-{timestamp}-{os.getpid()}.json"
    )


def write_evidence(system: System, report: Report, path: Path) -> None:
    """Write the report and the evidence of its problems to a file.

    Only the file's owner may read it.
    """
    chosen = [
        problem for kind in KINDS for problem in pick_examples(report.problems, kind, _PROBLEMS_MAX)
    ]
    sources = _collect_sources(system, sorted({id_ for problem in chosen for id_ in problem.ids}))
    explained = [
        {
            **problem._asdict(),
            "evidence": {
                name: kept
                for name, lines in sources.items()
                if (
                    kept := [line for line in lines if _contains_all(line, problem.ids)][
                        -_LINES_MAX:
                    ]
                )
            },
        }
        for problem in chosen
    ]
    content = report.to_dict() | {"log": report.lines, "explained": explained}
    path.touch(0o600)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _contains_all(line: str, ids: Iterable[str]) -> bool:
    """Return whether a line contains every ID. A problem without IDs has no evidence."""
    return bool(ids) and all(id_ in line for id_ in ids)


def _collect_sources(system: System, ids: list[str]) -> dict[str, list[str]]:
    """Return, for each source, the lines that contain any of the IDs."""
    sources = {"journal": _file_lines(system.journal, ids)}
    for log in sorted(system.logs.glob("*.log")):
        sources[f"log {log.stem}"] = _file_lines(log, ids)
    for name, path in _PROVIDERS.items():
        lines = (json.dumps(one) for one in system.control("GET", path))
        sources[f"provider {name}"] = _matching_lines(lines, ids)
    return sources | dict(_table_rows(system.owner_url, ids))


def _table_rows(owner_url: str, ids: list[str]) -> Iterator[tuple[str, list[str]]]:
    patterns = [f"%{id_.replace('%', '').replace('_', chr(92) + '_')}%" for id_ in ids]
    with psycopg.connect(driver_url(owner_url), autocommit=True) as owner:
        for (table,) in owner.execute(_SELECT_TABLES).fetchall():
            query = sql.SQL(
                "SELECT row_to_json(t)::text FROM {} t WHERE row_to_json(t)::text LIKE ANY (%s)"
                " LIMIT 1000"
            ).format(sql.Identifier(table))
            rows = owner.execute(query, (patterns,)).fetchall()
            yield f"table {table}", [row[:_LINE_LENGTH_MAX] for (row,) in rows]


def _file_lines(path: Path, ids: list[str]) -> list[str]:
    if not path.exists():
        return []
    with path.open(errors="replace") as lines:
        return _matching_lines(lines, ids)


def _matching_lines(lines: Iterable[str], ids: list[str]) -> list[str]:
    return [
        line.rstrip("\n")[:_LINE_LENGTH_MAX] for line in lines if any(id_ in line for id_ in ids)
    ]
