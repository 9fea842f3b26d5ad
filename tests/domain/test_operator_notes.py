"""Notes that the ledger cannot store are refused first."""

from __future__ import annotations

import pytest

from base.operators import NAME_LENGTH_MAX, REASON_LENGTH_MAX, Operator
from base.outcomes import Refused
from domain.operator_notes import NOTE_LENGTH_MAX
from domain.wallet import freezes as wallet_freezes
from tests.domain.support import T0, correct, credit, debit, entries, later, money_state
from tests.domain.wallet.support import freeze, unfreeze


@pytest.mark.parametrize("move", [credit, debit])
@pytest.mark.parametrize("note", ["x" * (NOTE_LENGTH_MAX + 1), "a\0b", "half \ud800"])
def test_a_note_that_cannot_be_kept_is_refused_and_changes_nothing(shared, org, move, note):
    credit(shared, org, 100)
    before = money_state(shared, org)
    with pytest.raises(Refused) as caught:
        move(shared, org, 1, note=note)
    assert caught.value.code == "INVALID_NOTE"
    assert money_state(shared, org) == before


@pytest.mark.parametrize("move", [credit, debit])
def test_the_longest_note_is_kept_whole(shared, org, move):
    credit(shared, org, 100)
    assert move(shared, org, 1, note="é" * NOTE_LENGTH_MAX).ok
    assert entries(shared, org)[-1].note == "é" * NOTE_LENGTH_MAX


def test_ledger_stores_the_longest_name_and_reason(shared, org):
    longest = Operator("é" * NAME_LENGTH_MAX, "w" * REASON_LENGTH_MAX)
    assert correct(shared, org, 1, operator=longest).ok
    assert freeze(shared, org, operator=longest)
    shared.run(
        lambda session: wallet_freezes.override(
            session, org, "manual", until=later(60), operator=longest, now=T0
        )
    )
    assert unfreeze(shared, org, operator=longest) == 1


@pytest.mark.parametrize(
    "kind", ["opening", "debit", "freeze", "owed", "owed_payment", "debt_limit", "rebuild", "x", ""]
)
def test_a_credit_of_a_kind_that_means_something_else_is_refused(shared, org, kind):
    before = money_state(shared, org)
    outcome = credit(shared, org, 1, key="k", kind=kind)
    assert outcome.outcome == "INVALID_KIND"
    assert money_state(shared, org) == before
    # The key is still free
    assert credit(shared, org, 1, key="k").ok


@pytest.mark.parametrize("kind", ["credit", "topup", "refund", "give_back"])
def test_these_kinds_are_credits(shared, org, kind):
    assert credit(shared, org, 1, kind=kind).ok
    assert entries(shared, org)[-1].kind == kind
