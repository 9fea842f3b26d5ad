"""The plan of faults: a seed makes it repeatable, and every kind has its turn."""

from __future__ import annotations

from chaos.faults import KINDS, plan


def test_a_seed_gives_the_same_faults_at_the_same_times():
    # When the same seed plans twice, and another once
    first, again, other = plan(1, 120), plan(1, 120), plan(2, 120)

    # Then the same seed gives the same, and another seed other ones
    assert first == again
    assert [one.kind for one in first] != [one.kind for one in other]


def test_every_kind_of_fault_strikes_within_a_few_minutes():
    # When some minutes are planned
    planned = plan(1, 240)

    # Then no kind is missing, and none comes after the end
    assert {one.kind for one in planned} == set(KINDS)
    assert all(0 < one.at < 240 for one in planned)


def test_what_lasts_long_is_not_begun_when_it_could_not_end_in_time():
    # When a short run is planned
    kinds = [one.kind for one in plan(1, 30)]

    # Then no worker is frozen for longer than the run
    assert kinds
    assert "worker_frozen_past_lease" not in kinds
