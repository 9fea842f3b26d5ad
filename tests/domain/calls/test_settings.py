"""Terms of calls: defaults where an organization has none, and bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from base.enums import FaultPolicy
from base.operators import Operator
from domain.calls.settings import InvalidCallTerms, Terms, change_terms, set_terms, terms_of
from domain.wallet.ledger import WalletNotFound
from tests.db.support import one_behind_the_other
from tests.domain.support import T0


def test_organization_without_terms_has_the_defaults(shared, org):
    assert shared.run(lambda session: terms_of(session, org)) == Terms()


def test_terms_are_set_and_set_anew(customer):
    wanted = Terms(
        step_seconds=30,
        margin_seconds=10,
        warn_before_seconds=0,
        max_duration_seconds=600,
        fail_open=True,
        fail_open_seconds=20,
        fault_policy=FaultPolicy.CHARGE,
        fault_waived_minutes=3,
        refusal_text="no",
        warning_text="soon",
        ending_text="now",
    )
    for terms in (wanted, replace(wanted, step_seconds=31)):
        customer.do(
            lambda s, terms=terms: set_terms(
                s, customer.id, terms, operator=Operator("ann", "w"), now=T0
            )
        )
        assert customer.do(lambda session: terms_of(session, customer.id)) == terms


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("step_seconds", 1, 3_600),
        ("margin_seconds", 1, 60),
        ("warn_before_seconds", 0, 3_600),
        ("max_duration_seconds", 10, 43_200),
        ("fail_open_seconds", 10, 3_600),
        ("fault_waived_minutes", 0, 720),
    ],
)
def test_each_number_has_its_bounds_and_the_bounds_themselves_are_taken(
    customer, name, lowest, highest
):
    for value in (lowest, highest):
        customer.terms(**{name: value})
    for value in (lowest - 1, highest + 1):
        with pytest.raises(InvalidCallTerms, match=name):
            customer.terms(**{name: value})
    assert getattr(customer.do(lambda s: terms_of(s, customer.id)), name) == highest


@pytest.mark.parametrize("name", ["refusal_text", "warning_text", "ending_text"])
def test_spoken_text_is_neither_empty_nor_too_long(customer, name):
    customer.terms(**{name: "x" * 500})
    for text in ("", " \n", "x" * 501, "a\0b"):
        with pytest.raises(InvalidCallTerms, match=name):
            customer.terms(**{name: text})


def test_terms_need_a_wallet(customer):
    with pytest.raises(WalletNotFound):
        customer.do(
            lambda s: set_terms(s, "org_unknown", Terms(), operator=Operator("ann", "w"), now=T0)
        )


def test_concurrent_changes_of_different_terms_both_last(customer, shared, shared_urls):
    # Given a change of one term that is not committed
    def change(session, **changes):
        return change_terms(session, customer.id, changes, operator=Operator("ann", "w"), now=T0)

    # When an operator changes a different term meanwhile
    terms = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda session: change(session, step_seconds=31),
        lambda: customer.do(lambda session: change(session, margin_seconds=9)),
    )
    # Then both changes last, and the other terms are unchanged
    assert terms == customer.do(lambda session: terms_of(session, customer.id))
    assert terms == Terms(step_seconds=31, margin_seconds=9, warn_before_seconds=0)


def test_change_of_terms_out_of_bounds_or_without_a_wallet_is_refused(customer):
    def change(org):
        return customer.do(
            lambda s: change_terms(
                s, org, {"margin_seconds": 0}, operator=Operator("ann", "w"), now=T0
            )
        )

    with pytest.raises(InvalidCallTerms):
        change(customer.id)
    with pytest.raises(WalletNotFound):
        change("org_unknown")
    assert customer.do(lambda s: terms_of(s, customer.id)) == Terms(warn_before_seconds=0)
