"""Starts everything, plays the scenes of a story, and always stops everything."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from base.settings import Settings
from local.demo import calls, money, scenes
from local.demo.report import Report
from local.demo.stories import Story
from local.demo.system import DemoSystem
from local.stack import Stack, state_folder


def run_demo(settings: Settings, story: Story, *, as_json: bool) -> int:
    """Play a story on separate processes and return the exit status.

    The demo's embedded servers start empty, and their data is separate from that of `holdfast up`.
    Raises: SettingsError if a server that the settings name cannot be reached.
    """
    console = None if as_json else Console()
    report = Report(console)
    state = state_folder(settings) / ("demo" if story is Story.WAY else f"demo-{story}")
    # The ingress takes any free port, even if PORT is set, so that the demo can run beside
    # `holdfast up`.
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
        system = DemoSystem.build(stack)
        try:
            _PLAY_OF_STORY[story](system, report)
        finally:
            system.close()
    report.end()
    if as_json:
        sys.stdout.write(json.dumps(report.data(), indent=2) + "\n")
    elif report.failed:
        Console(stderr=True).print(f"logs: {state / 'logs'}", highlight=False)
    return 1 if report.failed else 0


def _check_processes(system: DemoSystem, report: Report) -> None:
    report.check(
        "ingress, three workers, relay and sandbox run",
        all(system.stack.supervisor.alive(name) for name in system.stack.supervisor.names()),
    )


def _play_calls(system: DemoSystem, report: Report) -> None:
    _check_processes(system, report)
    # This scene is the first, so that the ingress has answered one call before the ten arrive.
    calls.no_money(system, report)
    calls.ten_on_one_wallet(system, report)
    calls.ten_that_ignore_orders(system, report)
    calls.lost_reports(system, report)
    calls.frozen(system, report)
    report.scene("Nothing is left over")
    report.eventually("no job is left", system.unfinished, 0)
    report.check("no job is dead", system.jobs("dead"), 0)


def _play_suspension(system: DemoSystem, report: Report) -> None:
    _check_processes(system, report)
    scenes.allowed_to_spend(system, report)
    event_id = scenes.suspension(system, report)
    scenes.same_again(system, report, event_id)
    scenes.reactivation(system, report)
    scenes.stale_suspension(system, report)
    scenes.cancellation(system, report)
    scenes.manual_freeze(system, report)
    money.money(system, report)
    money.dispute(system, report)
    scenes.emptied_redis(system, report)
    scenes.killed_worker(system, report)
    money.books(system, report)


_PLAY_OF_STORY = {Story.WAY: _play_suspension, Story.CALLS: _play_calls}
