"""Measurement of a value and its baseline in turn, with a ratio for every round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from base.clock import wait_until

#: Time limit in seconds of everything that a benchmark waits for.
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
    """Measure value and baseline in every round; the order changes with each round."""
    values, baselines = [], []
    for number in range(rounds):
        if number % 2:
            values.append(value())
            baselines.append(baseline())
        else:
            baselines.append(baseline())
            values.append(value())
    ratios = [mine / theirs for mine, theirs in zip(values, baselines, strict=True)]
    return Result(
        name=name,
        value=round(statistics.median(values), 1),
        baseline=round(statistics.median(baselines), 1),
        ratio=round(statistics.median(ratios), 2),
        ratio_min=round(min(ratios), 2),
        ratio_max=round(max(ratios), 2),
        unit=unit,
        rounds=rounds,
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


def wait(condition: Callable[[], bool], what: str, *, every_seconds: float = 0.05) -> float:
    """Wait until the condition holds and return the seconds it took.

    Raises: SystemExit if it does not hold within the time limit.
    """
    began = time.monotonic()
    if not wait_until(condition, limit_seconds=_WAIT_SECONDS, every_seconds=every_seconds):
        raise SystemExit(f"waited {_WAIT_SECONDS:g} s in vain for {what}")
    return time.monotonic() - began


def _median_of(rounds: list[list[float]] | None, percent: int) -> float | None:
    if rounds is None:
        return None
    return round(statistics.median(percentile_ms(one, percent) for one in rounds), 2)
