"""Billing states in real stories, which reach each transition of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from sqlalchemy import select

from base.enums import CallBillingState, HoldStatus
from db.models import CallHold
from db.models.calls import Call
from domain.calls.admission import withdraw
from domain.calls.billing import FIRST_STATES, STATES, UNSETTLED_STATES, billing_state
from domain.calls.rates import remove_rate
from domain.calls.reconcile import expire_unreported
from tests.domain.calls.support import OVER, RATE, CallCustomer, report_absent
from tests.domain.support import ANN, T0, later
from tests.support.world import make_organization

#: When Vapi first reports an unknown call, and when it names a number of another organization.
REPORTED, NAMED = later(5), later(20)


class Observed(CallCustomer):
    """A customer that records its calls' billing states after every transaction."""

    def __init__(self, database, org, others=()):
        self.paths: dict[str, list[CallBillingState]] = {}
        self.others = others
        super().__init__(database, org)

    def do(self, fn):
        made = super().do(fn)
        super().do(self._observe)
        return made

    def _observe(self, session):
        holds = select(CallHold.call_id).where(
            CallHold.organization_id == self.id, CallHold.status == HoldStatus.OPEN
        )
        held = set(session.scalars(holds))
        for call in session.scalars(select(Call).where(Call.organization_id == self.id)):
            state = billing_state(call)
            path = self.paths.setdefault(call.id, [])
            if path[-1:] != [state]:
                path.append(state)
            # A call that is settled holds no money.
            assert call.id not in held or state in UNSETTLED_STATES, (call.id, path)

    def vapi_id(self, mark="v"):
        return f"{mark}-{self.id}"[:64]

    def unrate(self):
        self.do(lambda s: remove_rate(s, self.id, "default", operator=ANN, now=T0))

    def unpaired(self, *, seconds=30):
        """Reserve a call without Vapi's ID."""
        self.reserve("c1", seconds=seconds, provider=None)

    def paired(self):
        """Reserve a call with Vapi's ID."""
        self.reserve("c1", provider=self.vapi_id())

    def adopted(self, status, now=REPORTED, **more):
        """Report an outgoing call that Holdfast does not know; return its ID."""
        self.report_status(self.vapi_id(), status, now, direction="outbound", **more)
        return next(one.id for one in self.calls() if one.provider_call_id == self.vapi_id())

    def expire(self):
        self.do(lambda s: expire_unreported(s, self.id, later(OVER)))

    def withdraw(self):
        assert self.do(lambda s: withdraw(s, self.id, "c1", later(2)))

    def foreign(self, status, now=NAMED, **more):
        """Report the call with the number of another organization."""
        theirs = {"phone_number_id": self.others[0].number_id}
        self.report_status(self.vapi_id(), status, now, direction="outbound", **theirs, **more)

    def foreign_twice(self, status, now=NAMED, **more):
        """Report the call with the number and the assistant of two other organizations."""
        number, assistant = self.others
        assistant.entry_point("assistant", assistant.assistant_id)
        theirs = {"phone_number_id": number.number_id, "assistant_id": assistant.assistant_id}
        self.report_status(self.vapi_id(), status, now, direction="outbound", **theirs, **more)


def conversation(customer):
    customer.paired()
    customer.report_status(customer.vapi_id(), "in_progress", later(1))
    customer.report_status(customer.vapi_id(), "ended", later(21))
    customer.report(customer.vapi_id(), 20, later(30))


def no_answer(customer):
    customer.paired()
    customer.report_status(customer.vapi_id(), "ended", later(21))
    customer.report(customer.vapi_id(), 0, later(30), never_connected=True)


def committed_too_early(customer):
    customer.paired()
    customer.commit("c1", 20, later(5))
    customer.report_status(customer.vapi_id(), "in_progress", later(10))
    customer.report_status(customer.vapi_id(), "ended", later(20))


def given_up_too_early(customer):
    customer.paired()
    customer.commit("c1", 0, later(5))
    customer.report_status(customer.vapi_id(), "in_progress", later(10))
    customer.report_status(customer.vapi_id(), "ended", later(20))


def ended_by_an_operator(customer):
    customer.paired()
    customer.report_status(customer.vapi_id(), "in_progress", later(1))
    customer.decide("c1", later(10))
    customer.report_status(customer.vapi_id(), "ended", later(12))
    customer.report(customer.vapi_id(), 11, later(20))


def settled_during_the_conversation(seconds):
    def story(customer):
        customer.paired()
        customer.report_status(customer.vapi_id(), "in_progress", later(1))
        customer.settle_manually("c1", seconds, later(30))

    return story


def settled_while_being_ended(customer):
    customer.paired()
    customer.decide("c1", later(1))
    customer.settle_manually("c1", 0, later(5))


def expired_while_being_ended(customer):
    customer.unpaired()
    customer.decide("c1", later(1))
    customer.expire()
    ours = customer.metadata()
    customer.report_status(customer.vapi_id(), "in_progress", later(940), **ours)
    customer.settle_manually("c1", 4, later(950))


def withdrawn_while_being_ended(customer):
    customer.unpaired()
    customer.decide("c1", later(1))
    customer.withdraw()
    customer.report_status(customer.vapi_id(), "in_progress", later(940), **customer.metadata())


def expired_then(*, seconds):
    def story(customer):
        customer.unpaired()
        customer.expire()
        customer.commit("c1", seconds, later(1000))

    return story


def withdrawn_then(*, seconds):
    def story(customer):
        customer.unpaired()
        customer.withdraw()
        customer.commit("c1", seconds, later(1000))

    return story


def second_hold(customer):
    customer.paired()
    report_absent(customer, later(OVER))
    customer.report_status(customer.vapi_id(), "in_progress", later(940))


def second_hold_after_withdrawal(customer):
    customer.unpaired()
    customer.withdraw()
    customer.report_status(customer.vapi_id(), "in_progress", later(10), **customer.metadata())


def merged(customer):
    customer.unpaired()
    customer.adopted("in_progress")
    customer.reserve("c1", provider=customer.vapi_id(), now=later(6))


def merged_while_being_ended(customer):
    customer.unpaired()
    customer.decide("c1", later(1))
    customer.adopted("in_progress")
    customer.reserve("c1", provider=customer.vapi_id(), now=later(6))


def paired_after(seconds, status):
    """Commit a reservation before it is paired with the call that Vapi reports."""

    def story(customer):
        customer.unpaired()
        customer.commit("c1", seconds, later(21))
        customer.adopted(status, later(22))
        customer.reserve("c1", provider=customer.vapi_id(), now=later(30))

    return story


def adopted_is_paid_by_the_reservation(customer):
    customer.unpaired()
    customer.commit("c1", 20, later(21))
    call_id = customer.adopted("in_progress", later(22))
    customer.commit("c1", 20, later(30), customer.vapi_id())
    customer.report_status(customer.vapi_id(), "ended", later(40))
    return call_id


def ending_is_paid_by_the_reservation(customer):
    customer.unpaired()
    customer.commit("c1", 20, later(21))
    call_id = customer.adopted("in_progress", later(22))
    customer.decide(call_id, later(23))
    customer.commit("c1", 20, later(30), customer.vapi_id())
    return call_id


def free_is_paid_by_the_reservation(customer):
    customer.unpaired()
    customer.commit("c1", 20, later(21))
    call_id = customer.adopted("ended", later(22))
    customer.report(customer.vapi_id(), 0, later(25), never_connected=True, direction="outbound")
    customer.commit("c1", 20, later(30), customer.vapi_id())
    return call_id


def waiting(customer):
    """Have an adopted call wait for a charged reservation; return its ID."""
    customer.unpaired()
    customer.commit("c1", 20, later(21))
    call_id = customer.adopted("ended", later(22))
    customer.report(customer.vapi_id(), 20, later(25), direction="outbound")
    return call_id


def waits_and_is_paired(customer):
    call_id = waiting(customer)
    customer.commit("c1", 20, later(30), customer.vapi_id())
    return call_id


def waits_and_is_waived(customer):
    call_id = waiting(customer)
    customer.settle_manually(call_id, 0, later(30))
    return call_id


def waits_for_another_call(customer):
    call_id = waiting(customer)
    customer.commit("c1", 20, later(30), customer.vapi_id("w"))
    return call_id


def rated_too_late(customer):
    customer.unrate()
    call_id = customer.adopted("ended")
    customer.rate(RATE)
    customer.report_status(customer.vapi_id(), "ended", later(40), direction="outbound")
    return call_id


def never_rated(customer):
    customer.unrate()
    call_id = customer.adopted("in_progress")
    customer.report_status(customer.vapi_id(), "ended", later(10), direction="outbound")
    customer.rate(RATE)
    customer.settle_manually(call_id, 0, later(50))
    return call_id


def payer_unknown(customer):
    customer.paired()
    customer.foreign_twice("in_progress")
    customer.report_status(customer.vapi_id(), "ended", later(30))
    customer.settle_manually("c1", 10, later(50))


def payer_unknown_after_the_end(customer):
    customer.paired()
    customer.report_status(customer.vapi_id(), "ended", later(10), phone_number_id=None)
    customer.foreign_twice("ended")


def foreign_after(status):
    def story(customer):
        customer.paired()
        customer.report_status(customer.vapi_id(), status, later(10), phone_number_id=None)
        customer.foreign("ended")

    return story


def foreign_after_expiry(customer):
    customer.paired()
    report_absent(customer, later(OVER))
    customer.foreign("ringing", later(OVER + 5))


def refused_and_asked_again(customer):
    customer.unrate()
    customer.admit(external_id=customer.vapi_id())
    customer.rate(RATE)
    return customer.admit_call(later(5), external_id=customer.vapi_id())


def refused_and_adopted(customer):
    customer.unrate()
    customer.admit(external_id=customer.vapi_id())
    customer.rate(RATE)
    return customer.adopted("in_progress")


@dataclass(frozen=True)
class Story:
    """What happens to a call, and the billing states that it is in."""

    path: str
    play: Callable[[Observed], str | None]

    @property
    def states(self) -> list[CallBillingState]:
        return [CallBillingState(one) for one in self.path.split()]


STORIES = [
    Story("held talking awaiting_report charged", conversation),
    Story("held awaiting_report free", no_answer),
    Story("held charged talking_unpaid charged", committed_too_early),
    Story("held free talking_unpaid free", given_up_too_early),
    Story("held talking ending awaiting_report charged", ended_by_an_operator),
    Story("held talking charged", settled_during_the_conversation(20)),
    Story("held talking free", settled_during_the_conversation(0)),
    Story("held ending free", settled_while_being_ended),
    Story("held ending expired ending charged", expired_while_being_ended),
    Story("held ending withdrawn ending", withdrawn_while_being_ended),
    Story("held expired charged", expired_then(seconds=20)),
    Story("held expired free", expired_then(seconds=0)),
    Story("held withdrawn charged", withdrawn_then(seconds=20)),
    Story("held withdrawn free", withdrawn_then(seconds=0)),
    Story("held expired merged", second_hold),
    Story("held withdrawn merged", second_hold_after_withdrawal),
    Story("held merged", merged),
    Story("held ending merged", merged_while_being_ended),
    Story("held charged merged", paired_after(20, "ended")),
    Story("held free merged", paired_after(0, "in_progress")),
    Story("talking talking_unpaid charged", adopted_is_paid_by_the_reservation),
    Story("talking ending talking_unpaid", ending_is_paid_by_the_reservation),
    Story("awaiting_report free charged", free_is_paid_by_the_reservation),
    Story("awaiting_report withheld charged", waits_and_is_paired),
    Story("awaiting_report withheld free", waits_and_is_waived),
    Story("awaiting_report withheld awaiting_report", waits_for_another_call),
    Story("awaiting_operator awaiting_report", rated_too_late),
    Story("ending awaiting_operator free", never_rated),
    Story("held ending awaiting_operator charged", payer_unknown),
    Story("held awaiting_report awaiting_operator", payer_unknown_after_the_end),
    Story("held awaiting_report withdrawn", foreign_after("ended")),
    Story("held talking withdrawn", foreign_after("in_progress")),
    Story("held expired withdrawn", foreign_after_expiry),
    Story("refused held", refused_and_asked_again),
    Story("refused talking", refused_and_adopted),
]


@pytest.fixture
def customer(shared, org):
    """An organization whose calls are observed, and two with other numbers."""
    others = [CallCustomer(shared, make_organization(shared)) for _ in range(2)]
    return Observed(shared, org, others)


@pytest.mark.parametrize("story", STORIES, ids=lambda one: one.path.replace(" ", "-"))
def test_call_goes_through_the_states_of_its_story(customer, story):
    call_id = story.play(customer) or "c1"
    assert customer.paths[call_id] == story.states


def test_stories_walk_each_transition_of_the_table_and_no_other():
    walked = {step for story in STORIES for step in pairwise(story.states)}
    declared = {(state, after) for state, row in STATES.items() for after in row.next_states}
    assert walked == declared
    assert {story.states[0] for story in STORIES} == FIRST_STATES
