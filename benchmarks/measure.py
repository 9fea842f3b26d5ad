"""Measures a value and its baseline in turn, and makes a ratio of every round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


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
    """This function will measure both in every round, and each first in every other round."""
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
