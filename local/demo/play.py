"""Starts everything, plays the scenes of a story, and always stops everything."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from base.settings import Settings
from local.demo import calls, money, scenes
from local.demo.report import Report
from local.demo.set import Set
from local.demo.stories import Story
from local.stack import Stack, state_folder


def run_demo(settings: Settings, story: Story, *, as_json: bool) -> int:
    """Play a story on separate processes and return the exit status.

    Embedded servers keep their data apart from those of `holdfast up` and start empty. Raises:
    SettingsError if a given server cannot be reached.
    """
    console = None if as_json else Console()
    report = Report(console)
    state = state_folder(settings) / ("demo" if story is Story.WAY else f"demo-{story}")
    # Any free port, even if PORT is set, so that the demo runs beside `holdfast up`.
    settings = settings.model_copy(update={"port": 0})
    report.scene("Everything starts, each a process of its own")
    stack = Stack(
        settings,
        state,
        sandbox=True,
        fresh=True,
        logs=state / "logs",
        on_step=report.print_line,
        waits=calls.WAITS if story is Story.CALLS else None,
    )
    with stack:
        on = Set.build(stack)
        try:
            _PLAYS[story](on, report)
        finally:
            on.close()
    report.end()
    if as_json:
        sys.stdout.write(json.dumps(report.data(), indent=2) + "\n")
    elif report.failed:
        Console(stderr=True).print(f"logs: {state / 'logs'}", highlight=False)
    return 1 if report.failed else 0


def _all_runs(on: Set, report: Report) -> None:
    report.check(
        "ingress, three workers, relay and sandbox run",
        all(on.stack.supervisor.alive(name) for name in on.stack.supervisor.names()),
    )


def _play_calls(on: Set, report: Report) -> None:
    _all_runs(on, report)
    # First, so that the ingress has answered one call before the ten arrive.
    calls.no_money(on, report)
    calls.ten_on_one_wallet(on, report)
    calls.ten_that_ignore_orders(on, report)
    calls.lost_reports(on, report)
    calls.frozen(on, report)
    report.scene("Nothing is left over")
    report.eventually("no job is left", on.unfinished, 0)
    report.check("no job is dead", on.jobs("dead"), 0)


def _play_way(on: Set, report: Report) -> None:
    _all_runs(on, report)
    scenes.allowed_to_spend(on, report)
    event_id = scenes.suspension(on, report)
    scenes.same_again(on, report, event_id)
    scenes.reactivation(on, report)
    scenes.stale_suspension(on, report)
    scenes.cancellation(on, report)
    scenes.manual_freeze(on, report)
    money.money(on, report)
    money.dispute(on, report)
    scenes.emptied_redis(on, report)
    scenes.killed_worker(on, report)
    money.books(on, report)


_PLAYS = {Story.WAY: _play_way, Story.CALLS: _play_calls}
