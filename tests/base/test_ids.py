"""IDs: they show their kind, sort by creation time, and are unique."""

from __future__ import annotations

import re
import time
from datetime import timedelta

from base.clock import utc_now
from base.ids import first_id, new_id, new_ids


def test_id_has_its_kind_and_26_characters():
    assert re.fullmatch(r"org_[0-9a-hjkmnp-tv-z]{26}", new_id("org"))


def test_ids_sort_by_the_time_they_were_made(monkeypatch):
    instants = [0, 1, 1_700_000_000_000, 1_700_000_000_001, 4_102_444_800_000, 2**48 - 1]
    made = []
    for milliseconds in instants:
        monkeypatch.setattr(time, "time_ns", lambda ms=milliseconds: ms * 1_000_000)
        made.append(new_id("job"))
    assert made == sorted(made)
    assert sorted(made, key=str.encode) == made


def test_ids_of_one_instant_are_all_different(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    assert len({new_id("job") for _ in range(10_000)}) == 10_000


def test_first_id_lies_between_ids_made_before_and_after_its_instant():
    before = new_id("job")
    second = timedelta(seconds=1)
    assert first_id("job", utc_now() - second) < before < first_id("job", utc_now() + second)
    assert first_id("job", utc_now()).startswith("job_")
    assert len(first_id("job", utc_now())) == len(before)


def test_ids_made_in_a_batch_are_unique_and_of_the_same_form():
    made = new_ids("job", 1_000)
    assert len(set(made)) == 1_000
    assert all(re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", one) for one in made)
    assert min(made)[:11] <= new_id("job")[:11]
    assert new_ids("job", 0) == []
