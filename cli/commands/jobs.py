"""List and show jobs; redrive, discard and run them now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from base.operators import Operator
from cli.commands.output import print_result, show, show_page
from cli.commands.shared import acting_operator, in_transaction, open_database, utc
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Why
from db.jobs.search import PAGE_MAX, SEARCHABLE_STATES, Filters
from domain.jobs.declaration import KEY_KEPT_SECONDS
from domain.jobs.operator import (
    JobAction,
    act_on_many,
    discard_manually,
    redrive_manually,
    run_now_manually,
)
from domain.jobs.queries import JobView, list_jobs, read_job
from domain.jobs.types import JOB_TYPES

app = typer.Typer(no_args_is_help=True, help="List, show, redrive, discard and run jobs.")

#: Largest number of jobs that one transaction of a bulk action changes.
_CHUNK = 200
#: Largest number of jobs that one bulk action changes.
_BULK_MAX = 10_000

JobId = Annotated[str, typer.Argument(help="The job's id.")]
Name = Annotated[str | None, typer.Option("--job", help="Job name, such as process_event.")]
OfOrg = Annotated[str | None, typer.Option("--org", help="Only this organization's jobs.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only jobs of this queue.")]
ErrorText = Annotated[str | None, typer.Option("--error", help="Part of the last error's text.")]
Arguments = Annotated[
    list[str] | None, typer.Option("--argument", help="Only with argument NAME=VALUE; repeatable.")
]
Since = Annotated[datetime | None, typer.Option(help="Staged from this instant (UTC) on.")]
Until = Annotated[datetime | None, typer.Option(help="Staged before this instant (UTC).")]
Limit = Annotated[int, typer.Option(min=1, max=_BULK_MAX, help="Change at most this many jobs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Change many jobs without asking.")]
ManyIds = Annotated[
    list[str] | None, typer.Argument(help="Job ids. Without ids, the filters select the jobs.")
]


@app.command("list")
def list_found(
    state: Annotated[
        str, typer.Option(help=f"{', '.join(SEARCHABLE_STATES)}, or all.", show_default=True)
    ] = "open",
    name: Name = None,
    organization: OfOrg = None,
    queue: OfQueue = None,
    error: ErrorText = None,
    argument: Arguments = None,
    since: Since = None,
    until: Until = None,
    after: Annotated[str | None, typer.Option(help="Cursor: last job id of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Rows a page.")] = 50,
    as_json: Json = False,
) -> None:
    """List jobs, newest first. A search of finished jobs needs --since or --org."""
    filters = _filters(
        None if state == "all" else state, name, organization, queue, error, argument, since, until
    )
    found = in_transaction(lambda session, _: list_jobs(session, filters, after=after, limit=limit))
    cursor = found[-1].job_id if len(found) == limit else None
    show_page([asdict(one) for one in found], cursor, as_json, f"{state} jobs")


@app.command("show")
def show_job(job_id: JobId, as_json: Json = False) -> None:
    """Show a job: its attempts, its causes, and the actions that are possible now."""
    found = in_transaction(lambda session, _: read_job(session, job_id))
    with clear_errors():
        if found is None:
            raise Failure(f"no such job: {job_id}")
    show(_described(found), as_json)


@app.command("redrive")
def redrive(
    why: Why,
    job_ids: ManyIds = None,
    state: Annotated[str, typer.Option(help="dead or refused.")] = "dead",
    name: Name = None,
    organization: OfOrg = None,
    queue: OfQueue = None,
    error: ErrorText = None,
    argument: Arguments = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    by: By = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run dead or refused jobs again with all attempts. Fix the cause first."""
    operator = acting_operator(by, why)
    if state not in ("dead", "refused"):
        with clear_errors():
            raise Failure(f"--state is dead or refused, not {state!r}")
    filters = _filters(state, name, organization, queue, error, argument, since, until)
    _act_manually("redrive", redrive_manually, job_ids, filters, limit, operator, yes, as_json)


@app.command("discard")
def discard(
    why: Why,
    job_ids: ManyIds = None,
    name: Name = None,
    organization: OfOrg = None,
    queue: OfQueue = None,
    error: ErrorText = None,
    argument: Arguments = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    by: By = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Discard dead jobs for good. Their work stays undone."""
    operator = acting_operator(by, why)
    filters = _filters("dead", name, organization, queue, error, argument, since, until)
    _act_manually("discard", discard_manually, job_ids, filters, limit, operator, yes, as_json)


@app.command("run-now")
def run_now(
    why: Why,
    job_ids: ManyIds = None,
    name: Name = None,
    organization: OfOrg = None,
    queue: OfQueue = None,
    error: ErrorText = None,
    argument: Arguments = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    by: By = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run waiting jobs now, before their next attempt is due; skip running jobs."""
    operator = acting_operator(by, why)
    filters = _filters("waiting", name, organization, queue, error, argument, since, until)
    _act_manually("run now", run_now_manually, job_ids, filters, limit, operator, yes, as_json)


@app.command("policies")
def policies(as_json: Json = False) -> None:
    """List every job's queue and retry policy."""
    rows = [
        {
            "job": job.name,
            "queue": job.queue,
            "attempts": job.policy.attempts,
            "first_wait_seconds": job.policy.base_seconds,
            "longest_wait_seconds": job.policy.cap_seconds,
            "jitter": job.policy.jitter,
            "span_hours": round(job.total_seconds / 3600, 1),
            "time_limit_seconds": job.limit_seconds,
            "permanent_errors": [error.__name__ for error in job.policy.permanent],
            "idempotency_provider": job.key_of,
            "key_kept_seconds": None if job.key_of is None else KEY_KEPT_SECONDS[job.key_of],
        }
        for job in JOB_TYPES.values()
    ]
    show(rows, as_json, "policies")


def _act_manually(
    verb: str,
    operation: JobAction,
    job_ids: list[str] | None,
    filters: Filters,
    limit: int,
    operator: Operator,
    yes: bool,
    as_json: bool,
) -> None:
    """Apply an action to one named job, or to those of many jobs that still allow it."""
    with open_database() as do:
        if job_ids and len(job_ids) == 1:
            do(lambda session, now: operation(session, job_ids[0], operator=operator, now=now))
            _report(verb, 1, 1, as_json)
            return
        chosen = job_ids or _chosen(do, filters, limit)
        if chosen and not yes:
            _confirm(f"{verb} {len(chosen)} jobs?", as_json)
        done = 0
        for start in range(0, len(chosen), _CHUNK):
            part = chosen[start : start + _CHUNK]
            done += do(
                lambda session, now: act_on_many(
                    session,
                    operation,
                    part,  # noqa: B023  # called before the next turn
                    operator=operator,
                    now=now,
                )
            )
        _report(verb, len(chosen), done, as_json)


def _chosen(do: Any, filters: Filters, limit: int) -> list[str]:
    chosen: list[str] = []
    while len(chosen) < limit:
        after = chosen[-1] if chosen else None
        size = min(limit - len(chosen), PAGE_MAX)
        found = do(lambda session, _: list_jobs(session, filters, after=after, limit=size))  # noqa: B023
        chosen += [one.job_id for one in found]
        if len(found) < size:
            break
    return chosen


def _described(found: JobView) -> dict[str, Any]:
    values = asdict(found)
    summary, actions = values.pop("summary"), values.pop("operator_actions")
    return {
        **summary,
        **values,
        "operator_actions": [
            {
                "action": one["action"],
                "operator": one["by"],
                "reason": one["why"],
                "acted_at": one["acted_at"],
            }
            for one in actions
        ],
    }


def _confirm(question: str, as_json: bool) -> None:
    if as_json:
        raise Failure(f"{question} Add --yes: --json does not ask")
    if not typer.confirm(question):
        raise Failure("cancelled; nothing changed")


def _report(verb: str, selected: int, changed: int, as_json: bool) -> None:
    skipped = selected - changed
    left = f"; {skipped} skipped because their state changed" if skipped else ""
    print_result(
        f"{verb}: {changed} of {selected} jobs{left}",
        {
            "action": verb.replace(" ", "_"),
            "jobs_selected": selected,
            "jobs_changed": changed,
            "jobs_skipped": skipped,
        },
        as_json,
    )


def _filters(
    state: str | None,
    name: str | None,
    organization: str | None,
    queue: str | None,
    error: str | None,
    arguments: list[str] | None,
    since: datetime | None,
    until: datetime | None,
) -> Filters:
    with clear_errors():
        if state is not None and state not in SEARCHABLE_STATES:
            raise Failure(f"--state is one of {', '.join(SEARCHABLE_STATES)} or all, not {state!r}")
        return Filters(
            state, name, organization, queue, error, _pairs(arguments), utc(since), utc(until)
        )


def _pairs(arguments: list[str] | None) -> Mapping[str, str]:
    pairs = [one.partition("=") for one in arguments or ()]
    if not all(separator for _, separator, _ in pairs):
        raise Failure("--argument must be NAME=VALUE")
    return {name: value for name, _, value in pairs}
