"""Concurrent operations on holds: real threads, in every order, and their locks."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from db.busy import DatabaseBusy
from domain.wallet import holds
from domain.wallet import operations as wallets
from tests.db.support import Impatient, at_once, holding, one_behind_the_other
from tests.domain.support import T0, credit, debit, entries, later
from tests.domain.wallet.hold_support import (
    END,
    buy,
    commit,
    expire,
    extend,
    fate,
    hold,
    money,
    release,
    reserve,
    set_limit,
)

#: The effect of each operation on an expired hold of 60 of a balance of 100.
ENDINGS = {
    "commit": lambda s, org: holds.commit(
        s, org, call_id="c1", amount_micros=40, currency="USD", now=END
    ),
    "release": lambda s, org: holds.release(s, org, call_id="c1", now=END),
    "expire": lambda s, org: holds.expire(s, org, call_ids=["c1"], now=END),
    "extend": lambda s, org: holds.extend(
        s, org, call_id="c1", nth=1, amount_micros=10, expires_at=later(900), now=END
    ),
    "reserve": lambda s, org: holds.reserve(
        s, org, call_id="c1", amount_micros=5, currency="USD", expires_at=later(900), now=END
    ),
}
OK, REPLAY, SETTLED = "OK", "replay", "CALL_SETTLED"
#: For each pair: the second operation's result after the first commits, and the wallet's money.
IN_TURN = {
    ("commit", "commit"): (REPLAY, (60, 0, 0)),
    ("commit", "release"): (SETTLED, (60, 0, 0)),
    ("commit", "expire"): ([], (60, 0, 0)),
    ("commit", "extend"): (SETTLED, (60, 0, 0)),
    ("commit", "reserve"): (SETTLED, (60, 0, 0)),
    ("release", "commit"): (OK, (60, 0, 0)),
    ("release", "release"): (REPLAY, (100, 0, 0)),
    ("release", "expire"): ([], (100, 0, 0)),
    ("release", "extend"): (SETTLED, (100, 0, 0)),
    ("release", "reserve"): (SETTLED, (100, 0, 0)),
    ("expire", "commit"): (OK, (60, 0, 0)),
    ("expire", "release"): (REPLAY, (100, 0, 0)),
    ("expire", "expire"): ([], (100, 0, 0)),
    ("expire", "extend"): (SETTLED, (100, 0, 0)),
    ("expire", "reserve"): (SETTLED, (100, 0, 0)),
    ("extend", "commit"): (OK, (60, 0, 0)),
    ("extend", "release"): (OK, (100, 0, 0)),
    ("extend", "expire"): ([], (100, 70, 0)),
    ("extend", "extend"): (REPLAY, (100, 70, 0)),
    ("extend", "reserve"): (REPLAY, (100, 70, 0)),
}


def outcome_of(answer):
    """Return an outcome as text: OK, replay or a code; or the calls that expired."""
    if isinstance(answer, list | BaseException):
        return answer if isinstance(answer, list) else repr(answer)
    return "replay" if answer.replayed else answer.outcome


@pytest.mark.parametrize(("first", "second"), IN_TURN)
def test_second_operation_sees_the_result_of_the_first(shared, shared_urls, funded, first, second):
    # Given an expired hold and two operations: one is not committed, the other waits
    reserve(shared, funded, 60)
    answer = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: ENDINGS[first](session, funded),
        lambda: shared.run(lambda session: ENDINGS[second](session, funded)),
    )
    # Then the second decides by what the first has done
    assert (outcome_of(answer), money(shared, funded)) == IN_TURN[first, second]


def test_two_first_requests_for_a_call_make_one_hold(shared, shared_urls, funded):
    answer = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: ENDINGS["reserve"](session, funded),
        lambda: shared.run(lambda session: ENDINGS["reserve"](session, funded)),
    )
    assert (outcome_of(answer), money(shared, funded)) == (REPLAY, (100, 5, 0))


def test_expiry_commit_and_extension_race_safely(shared, org):
    """Find a hold that is returned twice, charged twice or extended after its end."""
    credit(shared, org, 1_000)
    balance = 1_000
    for n in range(60):
        call = f"c{n}"
        reserve(shared, org, 60, call)
        # When all three operations meet a hold that has just expired
        racers = [
            lambda call=call: expire(shared, org, call),
            lambda call=call: commit(shared, org, 7, call, now=END),
            lambda call=call: extend(shared, org, 1, 10, call, until=later(900), now=END),
        ]
        expired, charged, extended = _in_order(racers, n % 3)
        # Then the call is charged once, whatever the hold's status, and nothing stays held
        assert charged.outcome == "OK"
        balance -= 7
        assert money(shared, org) == (balance, 0, 0)
        status, reserved, *_ = fate(shared, org, call)
        assert reserved == (70 if extended.ok else 60)
        assert (status, expired) in {("committed", ()), ("expired", (call,))}
        assert extended.outcome == "CALL_SETTLED" or status == "committed"


def _in_order(racers, shift):
    """Start the racers at once, rotated by `shift`, and return results in fixed order."""
    answers = at_once([*racers[shift:], *racers[:shift]])
    expired, charged, extended = answers[3 - shift :] + answers[: 3 - shift]
    return tuple(expired), charged, extended


def test_expiry_and_extension_never_both_win(shared, org):
    credit(shared, org, 1_000)
    for n in range(60):
        call = f"c{n}"
        reserve(shared, org, 10, call)
        racers = [
            lambda call=call: expire(shared, org, call),
            lambda call=call: extend(shared, org, 1, 5, call, until=later(900), now=END),
        ]
        answers = at_once(racers if n % 2 else racers[::-1])
        expired, extended = answers if n % 2 else answers[::-1]
        assert (expired, extended.outcome) in [([], "OK"), ([call], "CALL_SETTLED")]
        assert money(shared, org) == (1_000, 15 if extended.ok else 0, 0)
        release(shared, org, call)


def test_concurrent_commits_of_one_call_charge_once(shared, funded):
    reserve(shared, funded, 60)
    answers = at_once([lambda: commit(shared, funded, 40)] * 12)
    assert sorted(outcome_of(one) for one in answers) == ["OK"] + [REPLAY] * 11
    assert money(shared, funded) == (60, 0, 0)


def test_of_two_costs_for_one_call_one_is_charged(shared, funded):
    reserve(shared, funded, 60)
    answers = at_once([lambda n=n: commit(shared, funded, 20 + n) for n in range(8)])
    assert sorted(outcome_of(one) for one in answers) == ["IDEMPOTENCY_CONFLICT"] * 7 + ["OK"]
    (entry,) = [one for one in entries(shared, funded) if one.kind == "call"]
    assert money(shared, funded) == (100 - entry.amount_micros, 0, 0)


def test_concurrent_releases_and_expiries_return_one_hold_once(shared, funded):
    reserve(shared, funded, 60)
    jobs = [lambda: release(shared, funded)] * 6 + [lambda: len(expire(shared, funded))] * 6
    answers = at_once(jobs)
    done = [one for one in answers if one == 1 or is_ok(one)]
    assert len(done) == 1, answers
    assert money(shared, funded) == (100, 0, 0)


def is_ok(answer):
    return not isinstance(answer, int) and outcome_of(answer) == "OK"


def test_concurrent_requests_for_one_extension_extend_once(shared, funded):
    reserve(shared, funded, 10)
    answers = at_once([lambda: extend(shared, funded, 1, 30)] * 12)
    assert sorted(outcome_of(one) for one in answers) == ["OK"] + [REPLAY] * 11
    assert hold(shared, funded).extensions == 1
    assert money(shared, funded) == (100, 40, 0)


def test_holds_debits_and_purchases_at_once_never_take_more_than_there_is(shared, org):
    # Given money for 10 of 48 requests of three kinds
    credit(shared, org, 100)
    ways = [
        lambda n: reserve(shared, org, 10, f"c{n}"),
        lambda n: debit(shared, org, 10, key=f"d{n}"),
        lambda n: buy(shared, org, 10, f"a{n}"),
    ]
    answers = at_once([lambda n=n: ways[n % 3](n) for n in range(48)])
    assert sorted(outcome_of(one) for one in answers) == ["INSUFFICIENT_FUNDS"] * 38 + ["OK"] * 10
    balance, held, owed = money(shared, org)
    assert (balance - held, owed) == (0, 0)


# Locks


OPERATIONS = {
    "reserve": lambda db, org: reserve(db, org, 5, "c2"),
    "extend": lambda db, org: extend(db, org, 1, 5),
    "commit": lambda db, org: commit(db, org, 5),
    "release": release,
    "expire": expire,
    "buy": lambda db, org: buy(db, org, 5, "a1"),
    "set the debt limit": lambda db, org: set_limit(db, org, 5),
}
#: Balance, held and outstanding after each, when a credit of 5 precedes it; 60 of 100 were held.
AFTER = {
    "reserve": (105, 65, 0),
    "extend": (105, 65, 0),
    "commit": (100, 0, 0),
    "release": (105, 0, 0),
    "expire": (105, 0, 0),
    "buy": (100, 60, 0),
    "set the debt limit": (105, 60, 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_waits_for_the_wallets_lock(shared, shared_urls, funded, name):
    reserve(shared, funded, 60)
    impatient = Impatient(shared_urls.app_url, name="impatient", pool_size=1)
    try:
        with (
            holding(shared, lambda s: s.execute(text("SELECT wallet_lock(:o)"), {"o": funded})),
            pytest.raises(DatabaseBusy, match="LockNotAvailable"),
        ):
            OPERATIONS[name](impatient, funded)
    finally:
        impatient.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_that_has_waited_builds_on_the_one_before_it(shared, shared_urls, funded, name):
    reserve(shared, funded, 60)
    result = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: wallets.credit(s, funded, key="first", amount_micros=5, currency="USD", now=T0),
        lambda: OPERATIONS[name](shared, funded),
    )
    assert getattr(result, "outcome", "OK") == "OK"
    assert money(shared, funded) == AFTER[name]
