"""The chain's rule over a stream of entries: every change is found and located.

No database is needed.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.wallet.audit.chain import (
    Backing,
    Chain,
    Entry,
    Head,
    WalletFacts,
    What,
    entry_hash,
    find_unbacked,
)

ORG = "org_1"


def written(moves, org=ORG):
    """Build a chain as the ledger does, and the wallet that belongs to it."""
    entries: list[Entry] = []
    for number, (kind, direction, amount) in enumerate([("opening", "note", 0), *moves]):
        before = entries[-1] if entries else None
        balance = before.balance_after_micros if before else 0
        owed = before.owed_after_micros if before else 0
        blank = Entry(
            organization_id=org,
            entry_no=number,
            kind=kind,
            direction=direction,
            amount_micros=amount,
            balance_after_micros=balance
            + {"credit": amount, "debit": -amount, "note": 0}[direction],
            owed_after_micros=owed + {"owed": amount, "owed_payment": -amount}.get(kind, 0),
            counter_account="USD" if number == 0 else "messages",
            operation_key=f"k:{number}",
            note="",
            created_at_micros=1_767_323_045_678_901 + number,
            balance_before_micros=balance,
            previous_hash=before.hash if before else b"",
            hash=b"",
        )
        entries.append(blank._replace(hash=entry_hash(blank)))
    return entries, wallet_of(entries)


def wallet_of(entries):
    last = entries[-1]
    return WalletFacts(
        currency="USD",
        balance_micros=last.balance_after_micros,
        held_micros=0,
        owed_micros=last.owed_after_micros,
        debt_limit_micros=0,
        entry_no=last.entry_no,
        head_hash=last.hash,
        open_holds_micros=0,
    )


def findings(entries, wallet, anchored=None):
    chain = Chain(ORG, anchored)
    found = [finding for entry in entries for finding in chain.take(entry)]
    return [*found, *chain.end(wallet)]


MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("credit", "credit"),
                ("debit", "debit"),
                ("owed", "note"),
                ("owed_payment", "debit"),
                ("freeze", "note"),
            ]
        ),
        st.integers(1, 10**15),
    ).map(lambda move: (*move[0], 0 if move[0][0] == "freeze" else move[1])),
    min_size=1,
    max_size=8,
)
SIX = [("credit", "credit", 100), *[("debit", "debit", 10)] * 4]


def other(value):
    """Draw a different value of the same type."""
    if isinstance(value, int):
        return st.integers(-(2**63), 2**63 - 1).filter(lambda new: new != value)
    if isinstance(value, str):
        return st.text(max_size=20).filter(lambda new: new != value)
    return st.binary(max_size=40).filter(lambda new: new != value)


@given(MOVES)
def test_written_chain_has_no_findings(moves):
    entries, wallet = written(moves)
    assert findings(entries, wallet) == []
    assert findings(entries, wallet, Head(ORG, len(moves), entries[-1].hash)) == []


@pytest.mark.parametrize("field", Entry._fields)
@settings(max_examples=50)
@given(data=st.data(), moves=MOVES)
def test_any_change_of_any_one_field_of_any_entry_is_found_there(field, data, moves):
    # Given a chain in which one field of one entry is changed
    entries, wallet = written(moves)
    number = data.draw(st.integers(0, len(moves)))
    new = data.draw(other(getattr(entries[number], field)))
    changed = entries[number]._replace(**{field: new})
    # When it is verified, Then the first finding is at that entry
    found = findings([*entries[:number], changed, *entries[number + 1 :]], wallet)
    assert found
    assert found[0].entry_no in ({number} if field != "entry_no" else {number, new})


@pytest.mark.parametrize("field", WalletFacts._fields)
@settings(max_examples=50)
@given(data=st.data(), moves=MOVES)
def test_any_change_of_the_wallet_is_one_finding(field, data, moves):
    entries, wallet = written(moves)
    changed = wallet._replace(**{field: data.draw(other(getattr(wallet, field)))})
    assert len(findings(entries, changed)) == 1


@given(MOVES, st.data())
def test_changed_entry_with_a_recomputed_hash_is_found_at_the_next(moves, data):
    entries, wallet = written(moves)
    number = data.draw(st.integers(0, len(moves)))
    forged = entries[number]._replace(note="forged")
    forged = forged._replace(hash=entry_hash(forged))
    found = findings([*entries[:number], forged, *entries[number + 1 :]], wallet)
    last = number == len(moves)
    expected = (number, What.WALLET_HASH) if last else (number + 1, What.LINK)
    assert [(one.entry_no, one.what) for one in found] == [expected]


@given(MOVES, st.data())
def test_a_removed_entry_is_named_by_its_number(moves, data):
    entries, wallet = written(moves)
    number = data.draw(st.integers(0, len(moves)))
    found = findings([*entries[:number], *entries[number + 1 :]], wallet)
    expected = What.WALLET_ENTRY if number == len(moves) else What.MISSING
    assert (found[0].entry_no, found[0].what) == (number, expected)


@given(MOVES, st.data())
def test_inserted_entry_is_found_with_any_number(moves, data):
    entries, wallet = written(moves)
    number = data.draw(st.integers(0, len(moves)))
    copy = entries[data.draw(st.integers(0, len(moves)))]
    copy = copy._replace(entry_no=data.draw(st.integers(0, len(moves) + 3)))
    assert findings([*entries[:number], copy, *entries[number:]], wallet)


@given(MOVES, st.data())
def test_entries_in_another_order_are_found(moves, data):
    entries, wallet = written([("credit", "credit", 1), *moves])
    shuffled = data.draw(st.permutations(entries).filter(lambda order: order != entries))
    assert findings(shuffled, wallet)


def test_several_missing_entries_are_one_finding():
    entries, wallet = written(SIX)
    found = findings([entries[0], entries[1], entries[4], entries[5]], wallet)
    assert [(one.entry_no, one.what) for one in found] == [(2, What.MISSING), (5, What.SUM)]
    assert str(found[0]) == "org_1 entry 2: entry missing: expected entries 2 to 3, found entry 4"


def test_wallet_without_any_entries_is_one_finding():
    _, wallet = written(SIX)
    (found,) = findings([], wallet)
    assert (found.entry_no, found.what, found.expected) == (0, What.MISSING, "entries 0 to 5")


def test_entries_without_a_wallet_are_found():
    entries, _ = written(SIX)
    assert [one.what for one in findings(entries, None)] == [What.WALLET]


@given(MOVES, st.data())
def test_cut_tail_is_found_only_by_the_anchored_head(moves, data):
    # Given a chain cut anywhere, and a wallet that agrees with the rest
    entries, _ = written(moves)
    kept = entries[: data.draw(st.integers(1, len(moves)))]
    assert findings(kept, wallet_of(kept)) == []
    # When its old head is known, Then that entry is missing
    (found,) = findings(kept, wallet_of(kept), Head(ORG, len(moves), entries[-1].hash))
    assert (found.entry_no, found.what) == (len(moves), What.ANCHOR)


def test_rewritten_chain_is_found_by_the_anchored_head():
    entries, _ = written(SIX)
    anew, wallet = written([("credit", "credit", 101), *SIX[1:]])
    (found,) = findings(anew, wallet, Head(ORG, 3, entries[3].hash))
    assert (found.entry_no, found.what) == (3, What.ANCHOR)


BACKED = Backing("debit", 10, 2, 90, 0, otherwise=False)
NONE = Backing(None, None, None, None, None, otherwise=False)


@pytest.mark.parametrize(
    ("backing", "expected"),
    [
        (BACKED, None),
        (NONE, "a row with key k:2"),
        (NONE._replace(otherwise=True), None),
        (BACKED._replace(amount_micros=11), "amount 10"),
        (BACKED._replace(operation="commit", amount_micros=11), None),
        (BACKED._replace(balance_micros=91), "balance 90, owed 0"),
        (BACKED._replace(owed_micros=1), "balance 90, owed 0"),
        (BACKED._replace(entry_no=1), "its last entry at 2 or later"),
        (BACKED._replace(entry_no=3, balance_micros=80), None),
    ],
)
def test_money_that_moves_has_the_operation_that_moved_it(backing, expected):
    entries, _ = written(SIX)
    found = find_unbacked(entries[2], backing)
    assert (found.expected if found else None) == expected


def test_a_note_needs_no_operation():
    entries, _ = written([("freeze", "note", 0)])
    assert find_unbacked(entries[1], NONE) is None


def test_duplicate_entry_is_one_finding():
    entries, wallet = written(SIX)
    (found,) = findings([*entries[:4], entries[2], *entries[4:]], wallet)
    assert str(found) == (
        "org_1 entry 2: order of entries: expected org_1 entry 4, found org_1 entry 2"
    )


def test_an_entry_of_another_wallet_is_one_finding():
    entries, wallet = written(SIX)
    others, _ = written(SIX, org="org_2")
    (found,) = findings([*entries[:4], others[4], *entries[4:]], wallet)
    assert (found.entry_no, found.what) == (4, What.ORDER)


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("balance_after_micros", What.BALANCE_AFTER),
        ("balance_before_micros", What.BALANCE_BEFORE),
        ("owed_after_micros", What.OWED),
    ],
)
def test_figures_that_do_not_add_up_are_found_though_hashes_are_new(field, what):
    # Given the newest entry with a changed figure, and a hash and a wallet that agree with it
    entries, _ = written(SIX)
    forged = entries[5]._replace(**{field: getattr(entries[5], field) + 1})
    forged = forged._replace(hash=entry_hash(forged))
    found = findings([*entries[:5], forged], wallet_of([forged]))
    assert (found[0].entry_no, found[0].what) == (5, what)


@pytest.mark.parametrize(
    "change",
    [{"kind": "credit"}, {"direction": "credit"}, {"amount_micros": 1}],
    ids=lambda change: next(iter(change)),
)
def test_a_chain_that_begins_with_no_opening_is_found(change):
    entries, _ = written([])
    forged = entries[0]._replace(**change)
    forged = forged._replace(hash=entry_hash(forged))
    assert findings([forged], wallet_of([forged]))[0].what == What.OPENING
