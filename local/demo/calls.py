"""Scenes with calls that must end when their money does, even if orders are lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from base.operators import Operator
from domain import operator_actions
from domain.calls.queries import ending_ms
from domain.calls.settings import Terms
from local.demo.phone import Phone
from local.demo.report import Report
from local.demo.system import DemoSystem
from workers.provider_waits import ProviderWaits

#: The workers notice a missing report after two seconds instead of two minutes, because a person
#: watches.
WAITS = ProviderWaits(report_seconds=2)
#: The price of three minutes: 1.80 dollars.
_THREE_MINUTES_MICROS = 180 * 10_000
#: The steps are as short as the calls. The margin covers the time to speak a text, to obey an order
#: and to answer. It is generous, because the machine may be busy.
TERMS = Terms(step_seconds=6, margin_seconds=8, warn_before_seconds=12)
#: Number of calls that a scene places at the same time.
_CALLS_AT_ONCE = 10
#: How often a caller calls again after a refusal, at most.
_CALL_RETRIES_MAX = 5
#: Delay of Vapi's reports about the ten calls.
_REPORT_DELAY_SECONDS = 6
#: Terms for calls that ignore Vapi's orders. Twilio ends such a call in the third round, which is
#: at least four seconds after the first order.
_ORDERS_IGNORED_TERMS = replace(TERMS, margin_seconds=12, warn_before_seconds=14)


def ten_on_one_wallet(system: DemoSystem, report: Report) -> None:
    """Run ten calls on money for three minutes: each must end by itself, in time."""
    report.scene("Ten calls at once, and money for three minutes in all")
    phone = Phone.open(system, report, TERMS, _THREE_MINUTES_MICROS)
    ids = _call_ten(phone, report)
    _end_and_charge(phone, ids, report)
    report.check("each was warned once", phone.count_timeline_entries("warned"), _CALLS_AT_ONCE)
    spoken = [[speech["text"] for speech in phone.read_call(call_id)["spoken"]] for call_id in ids]
    report.check(
        "each caller heard the warning first, and the reason for the end last",
        [texts[:1] + texts[-1:] for texts in spoken],
        [[TERMS.warning_text, TERMS.ending_text]] * _CALLS_AT_ONCE,
    )


def ten_that_ignore_orders(system: DemoSystem, report: Report) -> None:
    """Run ten calls that ignore Vapi's orders: Twilio must end them in time."""
    report.scene("The same, but Vapi ignores every order to end a call")
    phone = Phone.open(system, report, _ORDERS_IGNORED_TERMS, _THREE_MINUTES_MICROS)
    ids = _call_ten(phone, report, deaf=True)
    _end_and_charge(phone, ids, report)
    completed = [(phone.read_call(call_id)["leg"] or {}).get("status") for call_id in ids]
    report.check("Twilio completed every leg", completed, ["completed"] * _CALLS_AT_ONCE)


def lost_reports(system: DemoSystem, report: Report) -> None:
    """Lose the reports of two calls: the calls must be refreshed and charged."""
    report.scene("Calls whose reports are lost")
    phone = Phone.open(system, report, TERMS, _THREE_MINUTES_MICROS)
    ids = phone.notify(2, talk_seconds=1.2, behaviour={"lose_reports": True})
    report.eventually("both are over", lambda: phone.count_ended(ids), 2)
    report.eventually("both are charged nevertheless", phone.count_settled, 2)
    report.check("by reading them from Vapi", {call.settled_by for call in phone.calls()}, {"look"})
    _check_books(phone, ids, _THREE_MINUTES_MICROS, report)


def frozen(system: DemoSystem, report: Report) -> None:
    """Freeze the wallet during two calls: both must end and be charged."""
    report.scene("An operator freezes the wallet during two calls")
    phone = Phone.open(system, report, TERMS, 10 * _THREE_MINUTES_MICROS)
    ids = phone.notify(2)
    report.eventually("both talk", lambda: phone.count_timeline_entries("in_progress"), 2)
    org = phone.system.organization_id
    system.do(
        lambda session, now: operator_actions.freeze_manually(
            session, org, operator=Operator("demo", "something is wrong"), now=now
        )
    )
    report.eventually("both are ended", lambda: phone.count_ended(ids), 2)
    report.eventually("and charged", phone.count_settled, 2)
    causes = {call.end_cause for call in phone.calls()}
    report.check("because of the freeze", causes, {"frozen_wallet"})
    _print_times(phone, report)
    _check_books(phone, ids, 10 * _THREE_MINUTES_MICROS, report)


def no_money(system: DemoSystem, report: Report) -> None:
    """Call an organization without money: the call must be refused."""
    report.scene("A caller rings an organization without money")
    phone = Phone.open(system, report, TERMS, 0)
    (call_id,) = phone.notify()
    report.eventually("the call is refused", lambda: phone.verdicts([call_id]), ["refused"])
    spoken = [speech["text"] for speech in phone.read_call(call_id)["spoken"]]
    report.check("and the caller hears why", spoken, [TERMS.refusal_text])
    report.check("nothing is held", phone.system.wallet().held_micros, 0)


def _call_ten(phone: Phone, report: Report, **behaviour: Any) -> list[str]:
    report.print_line("a cent a second; each call may last 18 s if all ten share alike")
    # Reports are delayed, as Vapi's are. Otherwise, money released by the first calls to end would
    # keep the last of them alive for a minute.
    more = {"behaviour": {"report_delay_seconds": _REPORT_DELAY_SECONDS, **behaviour}}
    # The calls are placed one after another. A busy machine could not decide ten calls at once
    # within two seconds.
    ids = [_call_until_answered(phone, report, **more) for _ in range(_CALLS_AT_ONCE)]
    report.eventually(
        "all ten are admitted", lambda: phone.verdicts(ids), ["admitted"] * _CALLS_AT_ONCE
    )
    report.eventually(
        "all ten talk", lambda: phone.count_timeline_entries("in_progress"), _CALLS_AT_ONCE
    )
    return ids


def _call_until_answered(phone: Phone, report: Report, **more: Any) -> str:
    """Place an inbound call, again if it is refused; return the last call's id.

    The ingress refuses a call that it cannot decide within two seconds. This demonstration is about
    how calls end, so a refusal on a busy machine must not spoil it.
    """
    for retry in range(_CALL_RETRIES_MAX + 1):
        if retry:
            report.print_line("the call was not decided in time; the caller tries again")
        (call_id,) = phone.notify(**more)
        report.wait_for(f"a decision on call {call_id}", partial(phone.are_decided, [call_id]))
        if phone.verdicts([call_id]) != ["refused"]:
            break
    return call_id


def _end_and_charge(phone: Phone, ids: Sequence[str], report: Report) -> None:
    report.eventually(
        "every call has ended by itself", lambda: phone.count_ended(ids), _CALLS_AT_ONCE
    )
    report.eventually("every call is charged", phone.count_settled, _CALLS_AT_ONCE)
    causes = {call.end_cause for call in phone.calls()}
    report.check("because the credit was used up", causes, {"insufficient_funds"})
    _print_times(phone, report)
    _check_books(phone, ids, _THREE_MINUTES_MICROS, report)


def _print_times(phone: Phone, report: Report) -> None:
    report.print_line("from the decision to end a call:")
    not_over = []
    for call in sorted(phone.calls(), key=lambda call: call.id):
        reported_ms, over_ms = ending_ms(call)
        seconds = (call.duration_ms or 0) / 1000
        report.print_line(
            f"…{call.id[-6:]}: reported {reported_ms} ms, over {over_ms} ms, talked {seconds:.1f} s"
        )
        if over_ms is None:
            not_over.append(call.id)
    report.check("each was over after it", not_over, [])


def _check_books(phone: Phone, ids: Sequence[str], credited_micros: int, report: Report) -> None:
    costs = phone.cost_of_real_durations(ids)
    figures = phone.system.wallet()
    report.check(
        "the balance is exactly what the rates say for the real durations",
        figures.balance_micros,
        credited_micros - costs,
    )
    report.check("the balance never was below zero", phone.lowest_balance() >= 0)
    report.check(
        "no amount is outstanding, nothing is held",
        (figures.owed_micros, figures.held_micros),
        (0, 0),
    )
    call_alerts = [kind for kind in phone.alerts() if kind.startswith(("call_", "hold_"))]
    report.check("no alert about a call or a hold is active", call_alerts, [])
