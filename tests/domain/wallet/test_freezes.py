"""Freezes: a wallet is frozen while at least one is active and not overridden."""

from __future__ import annotations

from datetime import timedelta

import pytest

from base.enums import FreezeReason
from base.operators import Operator
from base.outcomes import Refused
from db.models import WalletFreeze
from domain.wallet import queries as wallet_queries
from domain.wallet.freezes import UnknownFreeze
from domain.wallet.ledger import WalletNotFound
from tests.db.support import at_once
from tests.domain.support import (
    T0,
    active_freezes,
    correct,
    credit,
    debit,
    entries,
    later,
    money_state,
    staged,
)
from tests.domain.wallet.support import MANUAL, bare_organization, freeze, override, unfreeze


def test_frozen_wallet_pays_nothing_and_still_receives_money(shared, org):
    credit(shared, org, 100)
    assert freeze(shared, org) is True
    before = money_state(shared, org)
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"
    assert money_state(shared, org) == before
    assert credit(shared, org, 1).ok
    assert correct(shared, org, -1).ok
    assert unfreeze(shared, org) == 1
    assert debit(shared, org, 100).ok


def test_wallet_is_frozen_while_any_reason_is_active(shared, org):
    credit(shared, org, 100)
    for reason in FreezeReason:
        freeze(shared, org, reason)
    assert active_freezes(shared, org) == set(FreezeReason)
    for reason in sorted(set(FreezeReason) - {MANUAL}):
        assert unfreeze(shared, org, reason) == 1
        assert debit(shared, org, 1).outcome == "FROZEN_WALLET"
    assert unfreeze(shared, org) == 1
    assert debit(shared, org, 1).ok


def test_placing_and_lifting_are_recorded_once_with_name_and_reason(shared, org):
    assert freeze(shared, org, operator=Operator("ann", "phone call")) is True
    assert freeze(shared, org, operator=Operator("bob", "again")) is False
    assert unfreeze(shared, org, operator=Operator("cyd", "solved")) == 1
    assert unfreeze(shared, org, operator=Operator("dan", "again")) == 0
    notes = [(e.kind, e.direction, e.counter_account, e.note) for e in entries(shared, org)[1:]]
    assert notes == [
        ("freeze", "note", "manual", "ann: phone call"),
        ("unfreeze", "note", "manual", "cyd: solved"),
    ]
    (row,) = shared.run(lambda s: s.query(WalletFreeze).filter_by(organization_id=org).all())
    assert (row.placed_by, row.placed_why, row.lifted_by, row.lifted_why) == (
        "ann",
        "phone call",
        "cyd",
        "solved",
    )


def test_reason_may_have_several_causes_and_is_lifted_by_one_or_all(shared, org):
    for cause in ("D-1", "D-2", "D-3"):
        assert freeze(shared, org, FreezeReason.DISPUTE, cause=cause)
    assert unfreeze(shared, org, FreezeReason.DISPUTE, cause="D-2") == 1
    assert unfreeze(shared, org, FreezeReason.DISPUTE, cause="D-2") == 0
    assert active_freezes(shared, org) == {"dispute"}
    assert unfreeze(shared, org, FreezeReason.DISPUTE) == 2
    assert active_freezes(shared, org) == set()
    assert [e.entry_no for e in entries(shared, org)] == list(range(7))


def test_freeze_placed_by_many_at_once_is_active_once(shared, org):
    placed = at_once([lambda: freeze(shared, org)] * 8)
    assert sorted(placed, key=str) == [False] * 7 + [True]
    lifted = at_once([lambda: unfreeze(shared, org)] * 8)
    assert sorted(lifted) == [0] * 7 + [1]


def test_a_freeze_and_a_debit_at_once_never_leave_a_debit_after_the_freeze(shared, org):
    credit(shared, org, 1_000)
    at_once([lambda: freeze(shared, org), *(lambda: debit(shared, org, 1) for _ in range(20))])
    kinds = [entry.kind for entry in entries(shared, org)]
    assert "freeze" in kinds
    assert "debit" not in kinds[kinds.index("freeze") :]


def test_an_override_lets_spend_until_its_end_and_not_at_it(shared, org):
    credit(shared, org, 100)
    freeze(shared, org)
    override(shared, org, later(60))
    assert debit(shared, org, 1, now=later(59.999999)).ok
    assert debit(shared, org, 1, now=later(60)).outcome == "FROZEN_WALLET"
    assert shared.run(lambda s: wallet_queries.balance(s, org, later(59)).frozen) is False
    assert shared.run(lambda s: wallet_queries.balance(s, org, later(60)).frozen) is True
    note = entries(shared, org)[3]
    assert (note.kind, note.note) == ("override", "ann: emergency (until 2026-03-01T12:01:00Z)")


def test_an_override_is_for_its_reason_alone_and_ends_with_the_freeze(shared, org):
    credit(shared, org, 100)
    freeze(shared, org)
    freeze(shared, org, FreezeReason.DISPUTE)
    override(shared, org, later(60))
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"
    # A new freeze with the same reason is not the one that was overridden
    unfreeze(shared, org, FreezeReason.DISPUTE)
    unfreeze(shared, org)
    freeze(shared, org)
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"


def test_the_end_of_an_override_is_enforced_by_a_job(shared, org):
    freeze(shared, org)
    override(shared, org, later(3_600))
    (job,) = staged(shared, org, "enforce_organization")
    assert job.kwargs == {"organization_id": org}
    assert timedelta(seconds=3_590) < job.due_at - job.staged_at < timedelta(seconds=3_602)


@pytest.mark.parametrize("seconds", [-1, 0, 30 * 86_400 + 1])
def test_an_override_that_is_past_or_too_long_is_refused(shared, org, seconds):
    freeze(shared, org)
    before = money_state(shared, org)
    with pytest.raises(Refused, match="INVALID_OVERRIDE"):
        override(shared, org, later(seconds))
    assert money_state(shared, org) == before


def test_the_longest_override_is_allowed(shared, org):
    credit(shared, org, 100)
    freeze(shared, org)
    override(shared, org, later(30 * 86_400))
    assert debit(shared, org, 1, now=later(30 * 86_400 - 1)).ok
    assert debit(shared, org, 1, now=later(30 * 86_400)).outcome == "FROZEN_WALLET"


def test_freeze_that_is_not_active_cannot_be_overridden(shared, org):
    before = money_state(shared, org)
    with pytest.raises(UnknownFreeze):
        override(shared, org, later(60))
    assert money_state(shared, org) == before
    assert staged(shared, org, "enforce_organization") == []


def test_freezes_of_a_wallet_that_is_not_there_are_refused(shared):
    org = bare_organization(shared)
    with pytest.raises(WalletNotFound):
        freeze(shared, org)
    with pytest.raises(WalletNotFound):
        unfreeze(shared, org)
    with pytest.raises(WalletNotFound):
        override(shared, org, later(60))
    with pytest.raises(WalletNotFound):
        shared.run(lambda session: wallet_queries.balance(session, org, T0))
