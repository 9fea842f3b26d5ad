"""The operator of a manual operation has a name and a reason that can be stored."""

from __future__ import annotations

import pytest

from base.operators import InvalidNote, Operator, ReasonRequired


@pytest.mark.parametrize(
    ("name", "reason", "line"),
    [
        ("", "x", "REASON_REQUIRED: the operator's name must not be empty"),
        (" \n", "x", "REASON_REQUIRED: the operator's name must not be empty"),
        ("ann", "", "REASON_REQUIRED: the reason must not be empty"),
        ("ann", "\t ", "REASON_REQUIRED: the reason must not be empty"),
    ],
)
def test_operator_without_name_or_reason_is_refused(name, reason, line):
    with pytest.raises(ReasonRequired) as caught:
        Operator(name, reason)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("name", "reason", "line"),
    [
        ("n" * 201, "x", "INVALID_NOTE: the operator's name: at most 200 characters and no NUL"),
        ("a\0", "x", "INVALID_NOTE: the operator's name: at most 200 characters and no NUL"),
        ("ann", "w" * 501, "INVALID_NOTE: the reason: at most 500 characters and no NUL"),
        ("ann", "x\0", "INVALID_NOTE: the reason: at most 500 characters and no NUL"),
        ("ann", "half \ud800", "INVALID_NOTE: the reason: at most 500 characters and no NUL"),
    ],
)
def test_name_or_reason_that_cannot_be_stored_is_refused(name, reason, line):
    with pytest.raises(InvalidNote) as caught:
        Operator(name, reason)
    assert str(caught.value) == line


def test_longest_name_and_reason_are_kept_unchanged():
    longest = Operator("é" * 200, f" {'w' * 498} ")
    assert (longest.name, longest.reason) == ("é" * 200, f" {'w' * 498} ")
