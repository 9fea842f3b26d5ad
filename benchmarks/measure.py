"""Measurement of values and their baselines in turn, with a ratio for every round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from base.clock import wait_until

#: Time limit in seconds of everything that a benchmark waits for, unless it names another.
_WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """One benchmark's figures: medians over the rounds, and the spread of the ratio."""

    name: str
    value: float
    baseline: float
    ratio: float
    ratio_min: float
    ratio_max: float
    unit: str
    rounds: int
    #: What the baseline is, if the benchmark has several.
    against: str = ""


@dataclass(frozen=True)
class Timing:
    """Durations, with their limit as text: medians over the rounds of p50 and p99."""

    name: str
    p50_ms: float
    p99_ms: float
    #: Highest p99 of all rounds.
    p99_ms_max: float
    limit: str
    rounds: int
    #: The same medians of the baseline, if there is one.
    baseline_p50_ms: float | None = None
    baseline_p99_ms: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A benchmark that could not run here, and why."""

    name: str
    skipped: str


def compare(
    name: str,
    unit: str,
    rounds: int,
    *,
    value: Callable[[], float],
    baseline: Callable[[], float],
) -> Result:
    """Measure value and baseline in every round, and compare them."""
    measured = measure_in_turns(rounds, {"value": value, "baseline": baseline})
    return result_of(name, unit, measured["value"], measured["baseline"])


def measure_in_turns(
    rounds: int, measures: Mapping[str, Callable[[], float]]
) -> dict[str, list[float]]:
    """Run every measurement once a round and return the figures of each.

    The order is reversed with each round.
    """
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures) if number % 2 else reversed(list(measures)):
            figures[name].append(measures[name]())
    return figures


def result_of(
    name: str,
    unit: str,
    values: Sequence[float],
    baselines: Sequence[float],
    *,
    against: str = "",
) -> Result:
    """Summarize the values and baselines of the same rounds."""
    ratios = [mine / theirs for mine, theirs in zip(values, baselines, strict=True)]
    return Result(
        name=name,
        value=round(statistics.median(values), 1),
        baseline=round(statistics.median(baselines), 1),
        ratio=round(statistics.median(ratios), 2),
        ratio_min=round(min(ratios), 2),
        ratio_max=round(max(ratios), 2),
        unit=unit,
        rounds=len(ratios),
        against=against,
    )


def timing(
    name: str,
    limit: str,
    rounds: list[list[float]],
    baseline: list[list[float]] | None = None,
) -> Timing:
    """Summarize the durations of all rounds, which are given in seconds."""
    worst = [percentile_ms(one, 99) for one in rounds]
    return Timing(
        name=name,
        p50_ms=round(statistics.median(percentile_ms(one, 50) for one in rounds), 2),
        p99_ms=round(statistics.median(worst), 2),
        p99_ms_max=round(max(worst), 2),
        limit=limit,
        rounds=len(rounds),
        baseline_p50_ms=_median_of(baseline, 50),
        baseline_p99_ms=_median_of(baseline, 99),
    )


def percentile_ms(durations: list[float], percent: int) -> float:
    """Return a percentile of the durations in milliseconds. They are given in seconds."""
    ordered = sorted(durations)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def wait(
    condition: Callable[[], bool],
    what: str,
    *,
    every_seconds: float = 0.05,
    limit_seconds: float = _WAIT_SECONDS,
) -> float:
    """Wait until the condition holds and return the seconds it took.

    Raises: SystemExit if it does not hold within the time limit.
    """
    began = time.monotonic()
    if not wait_until(condition, limit_seconds=limit_seconds, every_seconds=every_seconds):
        raise SystemExit(f"waited {limit_seconds:g} s for {what}, which did not happen")
    return time.monotonic() - began


def _median_of(rounds: list[list[float]] | None, percent: int) -> float | None:
    if rounds is None:
        return None
    return round(statistics.median(percentile_ms(one, percent) for one in rounds), 2)
