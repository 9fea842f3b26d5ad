"""One run: start, traffic with faults, a calm phase, the count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import text

from base.clock import wait_until
from chaos.child import Child, Message
from chaos.count import count_problems
from chaos.customers import CAMPAIGN_ID, make_campaigner, make_customers, make_overlong
from chaos.endings import Endings
from chaos.evidence import evidence_path, write_evidence
from chaos.facts import Customer, Problem, cancelled, read_facts
from chaos.faults import PlannedFault, plan, strike
from chaos.journal import RecordedTraffic, read_journal
from chaos.report import Report, refusals
from chaos.rest import jobs_waiting, stand_still, wait_for_rest
from chaos.sabotage import plan_of, sabotage_database, traffic_has_holds
from chaos.system import System

#: Organizations of a run. The last third is poor.
_CUSTOMERS = 6
#: Additional organizations, which the drills block and restore.
_DRILL_CUSTOMERS = 3
#: The first organizations are hot: most spending goes to them.
_HOT_CUSTOMERS = 2
#: Seconds between two progress lines.
_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class RunOptions:
    """The options of a run. It must be at rest within `rest_seconds`."""

    seconds: float
    seed: int
    sabotage: str
    rest_seconds: float
    keep: bool = False


def run(options: RunOptions) -> Report:
    """Make one run and return its report."""
    report = Report(options.seed, options.seconds, options.sabotage)
    report.print_line(
        f"starting the system (seed {options.seed}, sabotage: {options.sabotage or 'none'})"
    )
    with System(plan_of(options.sabotage), keep=options.keep) as system:
        system.start_processes()
        customers = make_customers(system, _CUSTOMERS, drilled=_DRILL_CUSTOMERS)
        customers.append(make_overlong(system, len(customers)))
        customers.append(make_campaigner(system, len(customers)))
        wait_for_rest(system, options.rest_seconds)
        for done in sabotage_database(system, options.sabotage):
            report.print_line(f"sabotage: {done}")
        traffic = _start_traffic(system, options, customers)
        _run_faults(system, traffic, report, options)
        _calm_down(system, traffic, report, options)
        stand_still(system, options.rest_seconds)
        recorded = read_journal(system.journal)
        report.events = recorded.count
        report.request_counts = {
            kind: len(requests) for kind, requests in recorded.requests.items()
        }
        reading = read_facts(
            system.owner_url,
            system.database,
            system.control,
            customers,
            recorded,
            clock_forward_at=system.clock.forward_at,
            load_of_each_core=report.load_of_each_core,
        )
        with reading as facts:
            report.problems += count_problems(facts)
            report.figures["subscriptions cancelled"] = cancelled(facts)
        report.guards = refusals(system.postgres.log)
        report.figures |= _read_figures(system, recorded, report.closed_seconds)
        if not report.is_clean:
            report.evidence = evidence_path(options.seed)
            write_evidence(system, report, report.evidence)
    return report


def _start_traffic(system: System, options: RunOptions, customers: list[Customer]) -> Child:
    *_, overlong, campaigner = customers
    return system.start_traffic(
        {
            "do": "build",
            "seed": options.seed,
            "holds": traffic_has_holds(options.sabotage),
            "journal": str(system.journal),
            "clients": [
                _client(customer, hot=number < _HOT_CUSTOMERS)
                for number, customer in enumerate(customers[:_CUSTOMERS])
            ],
            "overlong": _client(overlong),
            "campaigner": _client(campaigner),
            "campaign_id": CAMPAIGN_ID,
        }
    )


def _client(customer: Customer, *, hot: bool = False) -> dict[str, Any]:
    """Return a customer as the fields of the traffic's `Client`."""
    return {
        "organization_id": customer.organization_id,
        "hot": hot,
        "poor": customer.poor,
        "subscription_id": customer.subscription_id,
        "number_id": customer.number_id,
    }


def _run_faults(system: System, traffic: Child, report: Report, options: RunOptions) -> None:
    """Carry out the plan, end each fault at its time, and print the progress."""
    report.print_line("traffic and faults begin")
    began = time.monotonic()
    traffic.ask(do="go")
    endings = Endings()

    def begin(planned: PlannedFault) -> None:
        done = strike(system, planned)
        report.faults[planned.kind] += done.struck
        report.problems += done.problems
        report.closed_seconds += done.closed_seconds
        report.print_line(f"{planned.kind}: {done.text}")
        if done.seconds:
            endings.after(done.seconds, done.undo)

    agenda: list[tuple[float, Callable[[], None]]] = [
        (planned.at, partial(begin, planned)) for planned in plan(options.seed, options.seconds)
    ]
    for number in range(1, int(options.seconds / _PROGRESS_SECONDS) + 1):
        report_progress = partial(_report_progress, system, traffic, report)
        agenda.append((number * _PROGRESS_SECONDS, report_progress))
    for at_seconds, action in sorted(agenda, key=lambda entry: entry[0]):
        time.sleep(max(0.0, began + at_seconds - time.monotonic()))
        action()
    endings.close()


def _report_progress(system: System, traffic: Child, report: Report) -> None:
    report.note_load()
    progress = traffic.ask(do="progress")
    report.print_line(
        f"-- {progress['operations']} operations, {progress['events']} events"
        f" ({progress['doubled']} sent twice), {jobs_waiting(system)} jobs waiting,"
        f" {_restarts(system)} restarts"
    )


def _calm_down(system: System, traffic: Child, report: Report, options: RunOptions) -> None:
    """Let the traffic finish, repeat doubtful requests, wait until nothing is due."""
    report.print_line("faults are over; traffic ends what it has begun")
    wait_until(system.is_ready, limit_seconds=options.rest_seconds, every_seconds=0.2)
    progress = traffic.ask(do="stop")
    report.problems += traffic_problems(progress)
    seconds = wait_for_rest(system, options.rest_seconds)
    progress |= traffic.ask(do="settle")
    seconds += wait_for_rest(system, options.rest_seconds)
    if not wait_until(system.is_ready, limit_seconds=options.rest_seconds, every_seconds=0.2):
        # The twin of a missing process has done its work, so no other check would find it.
        report.problems += [
            Problem("lost", f"{name} did not come back", (name,)) for name in system.away()
        ]
    report.print_line(f"at rest after {seconds:.1f} s; counting")
    report.note_load()
    report.figures |= {
        "load of each core, highest": round(report.load_of_each_core, 1),
        "operations asked for": progress["operations"],
        "asked again in the calm": progress["settled"],
        "webhooks": progress["events"],
        "webhooks sent late": progress["late"],
        "webhooks sent twice": progress["doubled"],
        "seconds to rest": round(seconds, 1),
    }


def traffic_problems(progress: Message) -> list[Problem]:
    """List the traffic threads that died or do not end.

    Such a thread leaves out requests that the run should be judged by.
    """
    died = [
        Problem("lost", f"thread {name} died: {trace.strip().splitlines()[-1]}", (name,))
        for name, trace in progress["died"]
    ]
    return died + [
        Problem("lost", f"thread {name} does not end", (name,)) for name in progress["running"]
    ]


def _read_figures(
    system: System, recorded: RecordedTraffic, closed_seconds: list[float]
) -> dict[str, Any]:
    """Return the figures of the run: how much traffic there was and what failed."""
    unsure = sum(
        request.unsure for requests in recorded.requests.values() for request in requests.values()
    )
    closed = sorted(closed_seconds)
    attempts = system.do(
        lambda session, _: session.execute(
            text(
                "SELECT count(*), count(*) FILTER (WHERE outcome = 'failed'),"
                " count(*) FILTER (WHERE outcome IS NULL) FROM job_attempts"
            )
        ).one()
    )
    calls = system.do(
        lambda session, _: session.execute(
            text(
                "SELECT count(*) FILTER (WHERE status <> 'refused'),"
                " count(*) FILTER (WHERE end_cause IS NOT NULL),"
                " count(*) FILTER (WHERE settled_by = 'look'),"
                " count(*) FILTER (WHERE end_cause = 'max_duration') FROM calls"
            )
        ).one()
    )
    return {
        "calls that rang": len(recorded.of("phone")),
        "outgoing calls dialled": len(recorded.of("dial")),
        "contacts asked about": len(recorded.of("predial")),
        "contacts permitted": sum(
            one.outcome is not None for one in recorded.of("predial").values()
        ),
        "contacts dialled": len(recorded.of("campaign_dial")),
        "reports that contradicted": len(recorded.of("longer")) + len(recorded.of("denied")),
        "calls let in": calls[0],
        "calls that we ended": calls[1],
        "calls ended past their maximum": calls[3],
        "calls settled by asking": calls[2],
        "answers that did not come": unsure,
        "closings in drills": len(closed),
        "seconds to freeze, median": round(statistics.median(closed), 1) if closed else None,
        "seconds to freeze, longest": round(closed[-1], 1) if closed else None,
        "attempts at jobs": attempts[0],
        "attempts that failed": attempts[1],
        "attempts whose worker died": attempts[2],
        "processes started again": _restarts(system),
    }


def _restarts(system: System) -> int:
    return sum(system.supervisor.restarts(name) for name in system.supervisor.names())
