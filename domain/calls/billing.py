"""The billing state of a call: what its money does now, derived from its row.

`STATES` declares each state once: its condition, what it means for money, and the states that can
follow. Queries use the condition as SQL, and everything else evaluates it on a row that was read.
docs/calls.md shows the states as a diagram.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, not_, or_
from sqlalchemy.orm import InstrumentedAttribute

from base.enums import CallBillingState as State
from base.enums import CallStatus
from base.problems.calls import FOREIGN_NUMBER
from db.models.calls import Call
from domain.calls.rows import TALKING


@dataclass(frozen=True)
class _Fact:
    """A condition on a call, as SQL and as a Python function."""

    sql: ColumnElement[bool]
    is_true_of: Callable[[Any], bool]

    def __and__(self, other: _Fact) -> _Fact:
        return _Fact(
            and_(self.sql, other.sql), lambda call: self.is_true_of(call) and other.is_true_of(call)
        )

    def __or__(self, other: _Fact) -> _Fact:
        return _Fact(
            or_(self.sql, other.sql), lambda call: self.is_true_of(call) or other.is_true_of(call)
        )

    def __invert__(self) -> _Fact:
        return _Fact(not_(self.sql), lambda call: not self.is_true_of(call))


def _is_set(column: InstrumentedAttribute[Any]) -> _Fact:
    return _Fact(column.is_not(None), lambda call: getattr(call, column.key) is not None)


def _equals(column: InstrumentedAttribute[Any], *values: str | int) -> _Fact:
    """Match a column that has one of these values. NULL never matches."""
    sql = or_(*(column == value for value in values))
    if Call.__table__.c[column.key].nullable:
        # Without this, `~` would match None in Python, and would not match NULL in SQL.
        sql = and_(column.is_not(None), sql)
    return _Fact(sql, lambda call: getattr(call, column.key) in values)


_MERGED = _is_set(Call.merged_into)
_SETTLED = _is_set(Call.settled_at) & ~_MERGED
_UNSETTLED = ~_is_set(Call.settled_at)
_ENDED = _equals(Call.status, CallStatus.ENDED)
_IN_PROGRESS = _equals(Call.status, *TALKING)
_END_DECIDED = _is_set(Call.end_decided_at)
_WITHHELD = _is_set(Call.withheld_for)
#: No rate is known, or it is not known which organization pays. No report can decide either.
_NEEDS_OPERATOR = _equals(Call.micros_per_minute, 0) | _equals(Call.refusal, FOREIGN_NUMBER)
_PRICED = _SETTLED & ~_equals(Call.settled_by, "refused", "withdrawn", "expiry")
#: A settlement by the company does not end a call, so people may still talk.
_SETTLED_IN_PROGRESS = _equals(Call.settled_by, "api") & _IN_PROGRESS
_COSTS_NOTHING = _equals(Call.cost_micros, 0)


@dataclass(frozen=True)
class BillingState:
    """A state's condition, what it means for money, and the states that can follow."""

    condition: _Fact
    money: str
    next_states: frozenset[State]


def _next_states(*states: State) -> frozenset[State]:
    return frozenset(states)


_PRICED_STATES = (State.CHARGED, State.FREE)
#: The states in which a new call can be.
FIRST_STATES = frozenset(
    {
        State.HELD,
        State.TALKING,
        State.ENDING,
        State.AWAITING_REPORT,
        State.AWAITING_OPERATOR,
        State.REFUSED,
    }
)
#: All states. One transaction may take several steps. For example, if a call's final report is the
#: first that Holdfast learns of it, the call is awaiting_report and then charged.
STATES: Mapping[State, BillingState] = {
    State.HELD: BillingState(
        _UNSETTLED & ~_ENDED & ~_END_DECIDED & ~_IN_PROGRESS,
        "A hold sets money aside. No conversation is reported yet.",
        _next_states(
            *(State.TALKING, State.ENDING, State.AWAITING_REPORT, *_PRICED_STATES),
            *(State.EXPIRED, State.WITHDRAWN, State.MERGED),
        ),
    ),
    State.TALKING: BillingState(
        _UNSETTLED & ~_ENDED & ~_END_DECIDED & _IN_PROGRESS,
        "Ticks extend its hold during the conversation, up to the balance and the debt limit.",
        _next_states(
            *(State.ENDING, State.AWAITING_REPORT, *_PRICED_STATES),
            *(State.TALKING_UNPAID, State.WITHDRAWN),
        ),
    ),
    State.ENDING: BillingState(
        _UNSETTLED & ~_ENDED & _END_DECIDED,
        "Holdfast is ending it. Its hold no longer grows, and stays until the end is reported.",
        _next_states(
            *(
                State.AWAITING_REPORT,
                State.AWAITING_OPERATOR,
                *_PRICED_STATES,
                State.TALKING_UNPAID,
            ),
            *(State.EXPIRED, State.WITHDRAWN, State.MERGED),
        ),
    ),
    State.AWAITING_REPORT: BillingState(
        _UNSETTLED & _ENDED & ~_WITHHELD & ~_NEEDS_OPERATOR,
        "It has ended. Its hold stays until its report or a refresh gives the duration to charge.",
        _next_states(*_PRICED_STATES, State.WITHHELD, State.AWAITING_OPERATOR, State.WITHDRAWN),
    ),
    State.WITHHELD: BillingState(
        _UNSETTLED & _ENDED & _WITHHELD,
        "It has ended. Its charge waits, because a charged reservation may be the same call.",
        _next_states(*_PRICED_STATES, State.AWAITING_REPORT),
    ),
    State.AWAITING_OPERATOR: BillingState(
        _UNSETTLED & _ENDED & ~_WITHHELD & _NEEDS_OPERATOR,
        "It has ended. Its rate or its payer is not known: an operator sets a rate or settles it.",
        _next_states(*_PRICED_STATES, State.AWAITING_REPORT),
    ),
    State.TALKING_UNPAID: BillingState(
        _PRICED & _SETTLED_IN_PROGRESS,
        "The company settled it, but the conversation continues. Nothing pays for the rest.",
        _next_states(*_PRICED_STATES),
    ),
    State.CHARGED: BillingState(
        _PRICED & ~_SETTLED_IN_PROGRESS & ~_COSTS_NOTHING,
        "Its cost was charged once, and the rest of its hold was released.",
        _next_states(State.TALKING_UNPAID, State.MERGED),
    ),
    State.FREE: BillingState(
        _PRICED & ~_SETTLED_IN_PROGRESS & _COSTS_NOTHING,
        "It cost nothing, and its hold was released.",
        _next_states(State.TALKING_UNPAID, State.CHARGED, State.MERGED),
    ),
    State.EXPIRED: BillingState(
        _SETTLED & _equals(Call.settled_by, "expiry"),
        "Its hold expired, and nothing was charged. A late report still charges it.",
        _next_states(*_PRICED_STATES, State.ENDING, State.WITHDRAWN, State.MERGED),
    ),
    State.WITHDRAWN: BillingState(
        _SETTLED & _equals(Call.settled_by, "withdrawn"),
        "Its admission, permission or reservation ended without a charge. A late report still"
        " charges it, unless another organization pays.",
        _next_states(*_PRICED_STATES, State.ENDING, State.MERGED),
    ),
    State.REFUSED: BillingState(
        _SETTLED & _equals(Call.settled_by, "refused"),
        "It was refused, and nothing is held. A conversation reported later is charged.",
        _next_states(State.HELD, State.TALKING),
    ),
    State.MERGED: BillingState(
        _MERGED,
        "It is part of another call, which has the hold and the cost.",
        _next_states(),
    ),
}


#: The states of a live call: it has neither ended nor been settled.
LIVE_STATES = frozenset({State.HELD, State.TALKING, State.ENDING})
#: The states of a live call that nothing ends yet.
CONTINUING_STATES = LIVE_STATES - {State.ENDING}
#: The states of a call that was closed without a price. A later report can still charge it.
CLOSED_UNPRICED = frozenset({State.EXPIRED, State.WITHDRAWN})
#: The states of a call that was refused, or whose admission, permission or reservation ended.
NOT_ADMITTED = frozenset({State.REFUSED, State.WITHDRAWN})
UNSETTLED_STATES = LIVE_STATES | {
    State.AWAITING_REPORT,
    State.WITHHELD,
    State.AWAITING_OPERATOR,
}
#: The statuses before the provider reports that the call was connected.
_NOT_CONNECTED = (CallStatus.ADMITTED, CallStatus.QUEUED, CallStatus.RINGING)
#: Shown in place of these statuses once the call is settled.
_STATUS_ONCE_SETTLED = "settled"


def billing_state(call: Call | Row[Any]) -> State:
    """Derive the billing state of a call, or of a result row with its columns."""
    return next(state for state, row in STATES.items() if row.condition.is_true_of(call))


def in_state(*states: State) -> ColumnElement[bool]:
    """Build the SQL condition for calls that are in one of these states."""
    return or_(*(STATES[state].condition.sql for state in states))


def is_cost_settled(call: Call) -> bool:
    """Return whether a call is settled with a known cost."""
    return billing_state(call) not in UNSETTLED_STATES | CLOSED_UNPRICED


def is_over(call: Call) -> bool:
    """Return whether a call is over for us, so that it need not be ended.

    It is over once its provider reports the end, or once it is settled. A settlement by the company
    does not count while the call is in progress.
    """
    return billing_state(call) not in LIVE_STATES | {State.TALKING_UNPAID}


def withheld_for(call: Call) -> str | None:
    """Return the id of the reservation that a call's charge waits for, if it waits."""
    return call.withheld_for if billing_state(call) is State.WITHHELD else None


def shown_status(call: Call) -> str:
    """Return a call's status for display.

    A refused call is `refused` if it never began. A call that is settled before its provider
    reported it connected is `settled`, because no more reports are expected.
    """
    state = billing_state(call)
    if call.refusal and state in NOT_ADMITTED:
        return CallStatus.REFUSED
    if state not in UNSETTLED_STATES and call.status in _NOT_CONNECTED:
        return _STATUS_ONCE_SETTLED
    return call.status
