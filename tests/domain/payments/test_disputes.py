"""Disputes: an open one debits, a won one credits, a lost one is debited once."""

from __future__ import annotations

import itertools
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.enums import DisputeState, Provider, RefundState
from base.facts import DisputeFacts, DisputeReport, RefundFacts
from base.money import AMOUNT_MICROS_MAX
from base.operators import Operator
from base.outcomes import Refused
from db.models import Job, PaymentDispute
from domain.payments import disputes, settlements
from domain.payments.payments import NotATopUp, PaymentNotOurs
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallet
from tests.db.support import at_once, with_retries
from tests.domain.support import (
    T0,
    active_freezes,
    credit,
    debit,
    figures,
    later,
    money_state,
    moves,
    payment,
    staged,
    subscribe,
)
from tests.support.world import make_organization

OPEN, WON, LOST = DisputeState.OPEN, DisputeState.WON, DisputeState.LOST


@pytest.fixture
def paid(shared, org):
    """The ID of a credited payment of 100."""
    return pay(shared, org)


def pay(database, org, captured=100):
    one = f"P-{secrets.token_hex(6)}"
    facts = payment(one, org, captured)
    assert database.run(lambda session: wallet.settle(session, org, facts, T0)).ok
    return one


def dispute(one, state=OPEN, amount=100, *, name="D", opened=10, at=10, currency="USD"):
    stated_at = None if at is None else later(at)
    return DisputeFacts(
        Provider.PAYPAL, f"{one}-{name}", one, currency, amount, state, later(opened), stated_at
    )


def settle(database, org, facts):
    return database.run(lambda session: settlements.settle_dispute(session, org, facts, T0))


def give_back(database, org, one, amount, *, name="R", made=20, state=RefundState.COMPLETED):
    about = payment(one, org, 100)
    made_at = None if made is None else later(made)
    facts = RefundFacts(f"{one}-{name}", amount, None, state, made_at, made_at)
    return database.run(lambda s: settlements.settle_refund(s, org, about, facts, T0))


def test_an_open_dispute_takes_once_and_a_won_one_gives_back_once(shared, org, paid):
    for facts, left in ((dispute(paid), 0), (dispute(paid, WON, at=20), 100)):
        first, again = settle(shared, org, facts), settle(shared, org, facts)
        assert (first.outcome, first.replayed, first.balance_micros) == ("OK", False, left)
        assert (again.outcome, again.replayed, again.balance_micros) == ("OK", True, left)
    assert moves(shared, org) == [("topup", 100), ("dispute", 100), ("give_back", 100)]


def test_lost_dispute_is_not_debited_again_as_a_reversal(shared, org, paid):
    settle(shared, org, dispute(paid))
    assert settle(shared, org, dispute(paid, LOST, at=20)).replayed
    assert give_back(shared, org, paid, 100).replayed
    assert moves(shared, org) == [("topup", 100), ("dispute", 100)]


def test_part_of_a_lost_dispute_that_was_not_lost_is_credited(shared, org, paid):
    settle(shared, org, dispute(paid, amount=80))
    assert settle(shared, org, dispute(paid, LOST, 30, at=20)).balance_micros == 70


def test_dispute_of_spent_money_is_outstanding_and_freezes_until_won(shared, org, paid):
    debit(shared, org, 80)
    settle(shared, org, dispute(paid))
    assert (figures(shared, org), active_freezes(shared, org)) == ((0, 80), {"refund_shortfall"})
    # Won: the credit pays the outstanding amount first
    settle(shared, org, dispute(paid, WON, at=20))
    assert (figures(shared, org), active_freezes(shared, org)) == ((20, 0), set())


def test_a_dispute_takes_from_a_frozen_wallet_too(shared, org, paid):
    shared.run(
        lambda s: wallet_freezes.freeze(s, org, "manual", operator=Operator("a", "b"), now=T0)
    )
    assert settle(shared, org, dispute(paid)).balance_micros == 0


def test_older_state_changes_nothing_and_an_appeal_opens_again(shared, org, paid):
    settle(shared, org, dispute(paid, WON, at=20))
    assert settle(shared, org, dispute(paid, OPEN, at=10)).balance_micros == 100
    assert settle(shared, org, dispute(paid, OPEN, at=30)).balance_micros == 0
    assert settle(shared, org, dispute(paid, WON, at=20)).balance_micros == 0
    assert settle(shared, org, dispute(paid, WON, at=40)).balance_micros == 100


@pytest.mark.parametrize("at", [10, None])
def test_of_one_instant_and_without_any_the_more_final_state_counts(shared, org, paid, at):
    settle(shared, org, dispute(paid, OPEN, at=at))
    settle(shared, org, dispute(paid, WON, at=at))
    assert settle(shared, org, dispute(paid, OPEN, at=at)).balance_micros == 100


@pytest.mark.parametrize(
    ("refunded", "made", "disputed", "left"),
    [
        # A refund made before the dispute is separate money; together at most what was captured
        (30, 5, 50, 20),
        (30, 5, 70, 0),
        (30, 5, 100, 0),
        # A refund made since the dispute is the same money, also within the same second
        (30, 20, 50, 50),
        (50, 20, 50, 50),
        (70, 20, 50, 30),
        (50, 10, 50, 50),
        # A refund without a time counts as made since the dispute
        (50, None, 50, 50),
        (70, None, 50, 30),
    ],
)
@pytest.mark.parametrize("state", [OPEN, LOST])
@pytest.mark.parametrize("first", ["refund", "dispute"])
def test_a_refund_and_a_dispute_take_one_money_once(
    shared, org, paid, refunded, made, disputed, left, state, first
):
    acts = [
        lambda: give_back(shared, org, paid, refunded, made=made),
        lambda: settle(shared, org, dispute(paid, state, disputed)),
    ]
    for act in acts if first == "refund" else reversed(acts):
        assert act().ok
    assert figures(shared, org) == (left, 0)


def test_a_refund_made_to_end_a_dispute_stays_when_the_dispute_is_won(shared, org, paid):
    settle(shared, org, dispute(paid, amount=60))
    give_back(shared, org, paid, 60)
    assert settle(shared, org, dispute(paid, WON, 60, at=30)).balance_micros == 40


def test_disputes_of_one_payment_add_up_and_share_its_refunds(shared, org, paid):
    settle(shared, org, dispute(paid, OPEN, 30, name="A", opened=10))
    settle(shared, org, dispute(paid, OPEN, 40, name="B", opened=50))
    assert figures(shared, org) == (30, 0)
    # Refunded between the two: belongs to the first dispute
    give_back(shared, org, paid, 50, name="R1", made=20)
    assert figures(shared, org) == (10, 0)
    # Refunded after both: belongs to the second dispute
    give_back(shared, org, paid, 40, name="R2", made=60)
    assert figures(shared, org) == (10, 0)
    settle(shared, org, dispute(paid, WON, 40, name="B", opened=50, at=70))
    assert figures(shared, org) == (10, 0)


def test_a_refund_since_two_disputes_is_the_same_money_as_one_of_them(shared, org, paid):
    settle(shared, org, dispute(paid, OPEN, 30, name="A", opened=10))
    settle(shared, org, dispute(paid, OPEN, 40, name="B", opened=50))
    # Refunded after both: the later dispute's 40, and nothing of the earlier one's 30
    give_back(shared, org, paid, 40, made=60)
    assert figures(shared, org) == (30, 0)


def test_disputes_never_take_more_than_was_captured(shared, org, paid):
    settle(shared, org, dispute(paid, amount=AMOUNT_MICROS_MAX, name="A"))
    settle(shared, org, dispute(paid, amount=AMOUNT_MICROS_MAX, name="B"))
    assert figures(shared, org) == (0, 0)
    settle(shared, org, dispute(paid, WON, AMOUNT_MICROS_MAX, name="A", at=20))
    assert figures(shared, org) == (0, 0)
    settle(shared, org, dispute(paid, WON, AMOUNT_MICROS_MAX, name="B", at=20))
    assert figures(shared, org) == (100, 0)


def readings(one):
    """Map the states of one payment of 100 to functions that apply them."""
    refund = RefundState.COMPLETED
    return {
        "refunded": lambda d, o: give_back(d, o, one, 20, name="R1", made=5, state=refund),
        "opened": lambda d, o: settle(d, o, dispute(one, OPEN, 80, at=10)),
        "won": lambda d, o: settle(d, o, dispute(one, WON, 80, at=20)),
        "appealed": lambda d, o: settle(d, o, dispute(one, OPEN, 80, at=30)),
        "lost": lambda d, o: settle(d, o, dispute(one, LOST, 50, at=40)),
        "reversed": lambda d, o: give_back(d, o, one, 50, name="R2", made=41, state=refund),
    }


#: What is left of 100 after each set of states, applied in every order.
ENDS = [
    (("refunded", "opened", "won"), 80),
    (("refunded", "opened", "won", "appealed"), 0),
    (("opened", "won", "appealed", "lost"), 50),
    (("refunded", "opened", "lost", "reversed"), 30),
    (("refunded", "won", "reversed"), 30),
]


@pytest.mark.parametrize(("states", "left"), ENDS)
@pytest.mark.parametrize("spent", [0, 70])
def test_end_is_the_same_in_every_order_and_with_repetitions(shared, states, left, spent):
    # Finds a late state that wins, a loss that is debited twice and a credit that is not netted
    for order in itertools.permutations(states):
        org = make_organization(shared)
        one = pay(shared, org)
        if spent:
            assert debit(shared, org, spent).ok
        acts = readings(one)
        for name in (*order, order[0], *order):
            assert acts[name](shared, org).ok
        balance, owed = figures(shared, org)
        assert (balance - owed, order) == (left - spent, order)
        assert balance == max(0, left - spent)
        assert (active_freezes(shared, org) == {"refund_shortfall"}) == (owed > 0)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_dispute_states_lead_to_the_same_figures_in_any_order(shared, data):
    reports = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["A", "B", "R1", "R2"]),
                st.sampled_from([OPEN, WON, LOST]),
                st.integers(0, 120),
                st.integers(0, 4),
                st.one_of(st.none(), st.integers(0, 4)),
            ),
            max_size=7,
        )
    )
    states = dict(zip([OPEN, WON, LOST], RefundState, strict=True))
    ends = []
    for order in (reports, data.draw(st.permutations(reports))):
        org = make_organization(shared)
        one = pay(shared, org)
        for name, state, amount, opened, at in order:
            if name.startswith("R"):
                about = payment(one, org, 100)
                stated_at = None if at is None else later(at)
                facts = RefundFacts(
                    f"{one}-{name}", amount, None, states[state], later(opened), stated_at
                )
                done = shared.run(
                    lambda s, a=about, f=facts, o=org: settlements.settle_refund(s, o, a, f, T0)
                )
            else:
                facts = dispute(one, state, amount, name=name, opened=opened, at=at)
                done = settle(shared, org, facts)
            assert done.ok
        ends.append(figures(shared, org))
    assert ends[0] == ends[1]


def test_concurrent_states_of_one_dispute_move_money_once(shared, org, paid):
    acts = [lambda: settle(shared, org, dispute(paid)) for _ in range(5)]
    acts += [lambda: settle(shared, org, dispute(paid, WON, at=20)) for _ in range(5)]
    assert all(one.ok for one in at_once([with_retries(act) for act in acts]))
    assert figures(shared, org) == (100, 0)


def test_disputes_refunds_and_debits_at_once_add_up(shared, org, paid):
    credit(shared, org, 50)
    acts = [lambda n=n: settle(shared, org, dispute(paid, amount=10, name=n)) for n in "ABCD"]
    acts += [lambda: give_back(shared, org, paid, 30, made=5)] * 2
    acts += [lambda: debit(shared, org, 5) for _ in range(8)]
    results = at_once([with_retries(act) for act in acts])
    assert not [one for one in results if isinstance(one, Exception)]
    spent = 5 * sum(one.ok for one in results[6:])
    balance, owed = figures(shared, org)
    assert balance - owed == 150 - 70 - spent


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        (-1, "USD", "INVALID_AMOUNT"),
        (AMOUNT_MICROS_MAX + 1, "USD", "INVALID_AMOUNT"),
        (10**30, "USD", "INVALID_AMOUNT"),
        (100, "EUR", "CURRENCY_MISMATCH"),
    ],
)
def test_a_dispute_that_is_refused_changes_nothing(shared, org, paid, amount, currency, code):
    before = money_state(shared, org)
    outcome = settle(shared, org, dispute(paid, amount=amount, currency=currency))
    assert outcome.outcome == code
    assert money_state(shared, org) == before


def test_a_dispute_of_a_payment_not_known_is_refused(shared, org):
    before = money_state(shared, org)
    assert settle(shared, org, dispute("P-none")).outcome == "PAYMENT_NOT_FOUND"
    assert money_state(shared, org) == before


def test_dispute_assigned_to_another_payment_is_a_conflict(shared, org, paid):
    other = pay(shared, org)
    settle(shared, org, dispute(paid, name="D"))
    before = money_state(shared, org)
    facts = dispute(other, WON, at=99)
    facts = DisputeFacts(**{**vars(facts), "external_id": f"{paid}-D"})
    assert settle(shared, org, facts).outcome == "IDEMPOTENCY_CONFLICT"
    assert money_state(shared, org) == before


# The domain's functions


def report(database, one, *, name="D", opening=True, about="same"):
    named = (one,) if about == "same" else about
    event = DisputeReport(Provider.PAYPAL, f"{one}-{name}", named, opening)
    database.run(lambda session: disputes.apply_event(session, event, T0))
    return event.external_id


def record(database, facts, read_back=None):
    return database.run(lambda s: disputes.record_dispute(s, facts, read_back, T0))


def names(database, org):
    return sorted(
        {
            name
            for name in ("freeze_wallet", "unfreeze_wallet", "look_at_dispute")
            if staged(database, org, name)
        }
    )


def test_opened_dispute_of_a_known_payment_stages_freeze_and_refresh(shared, org, paid):
    external_id = report(shared, paid)
    (freeze,) = staged(shared, org, "freeze_wallet")
    assert freeze.kwargs == {
        "organization_id": org,
        "reason": "dispute",
        "cause": f"paypal:{external_id}",
    }
    assert freeze.queue == "safety"
    (job,) = staged(shared, org, "look_at_dispute")
    assert job.kwargs == {"provider": "paypal", "external_id": external_id}
    # And the event alone moved no money
    assert figures(shared, org) == (100, 0)


@pytest.mark.parametrize("about", [(), ("P-unknown",)])
def test_opened_dispute_of_an_unknown_payment_is_only_refreshed(shared, paid, org, about):
    external_id = report(shared, paid, about=about)
    assert names(shared, org) == []
    jobs = shared.run(lambda s: s.query(Job).filter_by(name="look_at_dispute").all())
    assert external_id in [job.kwargs["external_id"] for job in jobs]


def test_an_update_of_a_dispute_freezes_nothing_by_itself(shared, paid):
    external_id = report(shared, paid, opening=False)
    found = shared.run(lambda s: s.get(PaymentDispute, ("paypal", external_id)))
    assert found is None


def test_a_recorded_dispute_stages_its_freeze_and_a_won_one_its_lifting(shared, org, paid):
    record(shared, dispute(paid))
    assert names(shared, org) == ["freeze_wallet"]
    record(shared, dispute(paid, WON, at=20))
    assert names(shared, org) == ["freeze_wallet", "unfreeze_wallet"]


def test_the_provider_names_another_payment_than_the_event_did(shared, org, paid):
    # Given an event that names our payment, and a provider that names another organization's
    other = make_organization(shared)
    theirs = pay(shared, other)
    external_id = report(shared, paid)
    facts = DisputeFacts(**{**vars(dispute(theirs)), "external_id": external_id})
    # When it is recorded, Then the other payment is disputed, and our freeze is lifted
    record(shared, facts)
    assert (figures(shared, org), figures(shared, other)) == ((100, 0), (0, 0))
    assert staged(shared, org, "unfreeze_wallet")
    assert names(shared, other) == ["freeze_wallet"]


def test_unknown_payment_is_settled_together_with_its_dispute(shared, org):
    one = f"P-{secrets.token_hex(6)}"
    record(shared, dispute(one, amount=30), payment(one, org, 100))
    assert [one for one in moves(shared, org) if one[1]] == [("topup", 100), ("dispute", 30)]


def test_disputed_fee_never_enters_a_wallet(shared, org):
    one = f"P-{secrets.token_hex(6)}"
    before = money_state(shared, org)
    with pytest.raises(NotATopUp):
        record(shared, dispute(one, WON), payment(one, org, 100, ordered=False))
    assert money_state(shared, org) == before


@pytest.mark.parametrize("whose", [None, "org_none"])
def test_dispute_of_a_payment_of_no_known_organization_is_refused(shared, whose):
    one = f"P-{secrets.token_hex(6)}"
    with pytest.raises(PaymentNotOurs):
        record(shared, dispute(one), payment(one, whose, 100))


def test_refusal_of_the_ledger_is_raised_with_its_code_and_keeps_nothing(shared, org, paid):
    before = money_state(shared, org)
    with pytest.raises(Refused) as caught:
        record(shared, dispute(paid, currency="EUR"))
    assert caught.value.code == "CURRENCY_MISMATCH"
    assert money_state(shared, org) == before
    assert names(shared, org) == []


def test_end_of_a_dispute_refreshes_the_payments_refunds_once(shared, org, paid):
    give_back(shared, org, paid, 30, name="R1")
    give_back(shared, org, paid, 30, name="R2", state=RefundState.FAILED)
    record(shared, dispute(paid))
    assert staged(shared, org, "look_at_payment") == []
    for _ in range(2):
        record(shared, dispute(paid, WON, at=20))
    (job,) = staged(shared, org, "look_at_payment")
    assert (job.kwargs["kind"], job.kwargs["external_id"]) == (
        "refund",
        f"{paid}-R1",
    )


def test_recorded_dispute_that_empties_the_wallet_is_enforced_at_once(shared, org, paid):
    subscribe(shared, org)
    debit(shared, org, 60)
    record(shared, dispute(paid))
    assert active_freezes(shared, org) == {"refund_shortfall"}
