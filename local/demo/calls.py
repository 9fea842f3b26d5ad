"""Scenes with calls that must end when their money does, even if orders are lost."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from base.enums import CallStatus
from base.operators import Operator
from base.problems.wallet import INSUFFICIENT_FUNDS
from db.models.calls import Call
from domain import operator_actions
from domain.alerts.queries import list_alerts
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.queries import ending_ms, list_calls, read_call_details
from domain.calls.rates import Rate, set_rate
from domain.calls.settings import Terms, set_terms
from domain.wallet import operations as wallet
from domain.wallet.queries import PAGE_MAX, history
from local.demo.report import Report
from local.demo.system import DemoSystem
from workers.provider_waits import ProviderWaits

#: The workers notice a missing report after two seconds instead of two minutes, because a person
#: watches.
WAITS = ProviderWaits(report_seconds=2)
#: One cent per second, billed by the second.
RATE = Rate(micros_per_minute=600_000, increment_seconds=1)
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
#: Verdict on a call that is not answered yet.
_NOT_ANSWERED = "undecided"
#: Terms for calls that ignore Vapi's orders. Twilio ends such a call in the third round, which is
#: at least four seconds after the first order.
_ORDERS_IGNORED_TERMS = replace(TERMS, margin_seconds=12, warn_before_seconds=14)


@dataclass
class Phone:
    """An organization with one number at Vapi, and the calls to that number."""

    system: DemoSystem
    number_id: str

    @classmethod
    def open(cls, system: DemoSystem, report: Report, terms: Terms, micros: int) -> Phone:
        """Create an organization with this much money and a number to call.

        Raises: WaitExpired.
        """
        own = replace(system, organization_id="", brand_ids=[], sids=[], campaign_ids=[])
        own.create()
        own.ask("POST", "/paypal/subscriptions", {"organization_id": own.organization_id})
        assistant_id = own.ask("POST", "/vapi/assistants", {"name": "Reception"})["id"]
        number = own.ask(
            "POST", "/vapi/numbers", {"number": "+15005550123", "twilio_sid": own.sids[0]}
        )

        def set_up(session: Any, now: datetime) -> None:
            org = own.organization_id
            set_rate(session, org, RATE, operator=Operator("demo", "the price list"), now=now)
            set_terms(session, org, terms, operator=Operator("demo", "short calls"), now=now)
            add_entry_point(
                session,
                org,
                EntryPointKind.PHONE_NUMBER,
                number["id"],
                assistant_id=assistant_id,
                brand_id=own.brand_ids[0],
                operator=Operator("demo", "its number"),
                now=now,
            )
            if micros:
                wallet.credit(
                    session, org, key="demo:money", amount_micros=micros, currency="USD", now=now
                )

        own.do(set_up)
        # Wait until the subscription is refreshed from PayPal. Without money, spending is refused.
        expected = (None if micros else INSUFFICIENT_FUNDS, ["active"] * len(own.sids))
        report.wait_for(
            "a new organization's subscription to be read from PayPal",
            lambda: (own.refusal(), own.twilio()) == expected,
        )
        return cls(own, number["id"])

    def notify(self, count: int = 1, **more: Any) -> list[str]:
        """Place this many calls at once and return their ids."""
        call_request = {
            "direction": "inbound",
            "number_id": self.number_id,
            "queued_seconds": 0,
            "ring_seconds": 0,
            **more,
        }
        with ThreadPoolExecutor(count) as pool:
            responses = pool.map(
                lambda _: self.system.ask("POST", "/vapi/calls", call_request), range(count)
            )
            return [response["id"] for response in responses]

    def read_call(self, call_id: str) -> dict[str, Any]:
        """Read everything that the sandbox knows about a call."""
        details: dict[str, Any] = self.system.ask("GET", f"/vapi/calls/{call_id}")
        return details

    def verdicts(self, ids: Sequence[str]) -> list[str]:
        """List the decision about each call."""
        return [
            (self.read_call(call_id)["decision"] or {}).get("verdict", _NOT_ANSWERED)
            for call_id in ids
        ]

    def are_decided(self, ids: Sequence[str]) -> bool:
        """Return whether every call was answered."""
        return _NOT_ANSWERED not in self.verdicts(ids)

    def count_ended(self, ids: Sequence[str]) -> int:
        """Count the calls that have ended at the provider."""
        return sum(self.read_call(call_id)["ended"] is not None for call_id in ids)

    def calls(self) -> list[Call]:
        """Return the organization's calls that were neither refused nor withdrawn."""
        return self.system.database.run(self._calls)

    def count_settled(self) -> int:
        """Count the calls that are settled."""
        return sum(call.settled_at is not None for call in self.calls())

    def cost_of_real_durations(self, ids: Sequence[str]) -> int:
        """Calculate the cost of the calls' real durations, in micros."""
        return sum(RATE.cost_micros(_talked_ms(self.read_call(call_id)["call"])) for call_id in ids)

    def lowest_balance(self) -> int:
        """Return the lowest balance that the wallet ever had, in micros."""
        entries = self.system.database.run(
            lambda session: history(session, self.system.organization_id, limit=PAGE_MAX)
        )
        return min((entry.balance_after_micros for entry in entries), default=0)

    def alerts(self) -> list[str]:
        """List the kinds of the organization's active alerts."""
        active = self.system.database.run(
            lambda session: list_alerts(session, organization_id=self.system.organization_id)
        )
        return sorted(alert.kind for alert in active)

    def count_timeline_entries(self, what: str) -> int:
        """Count the entries of one kind in the calls' timelines."""

        def count(session: Session) -> int:
            timelines = [read_call_details(session, call).timeline for call in self._calls(session)]
            return sum(line.what == what for timeline in timelines for line in timeline)

        return self.system.database.run(count)

    def _calls(self, session: Session) -> list[Call]:
        calls = list_calls(session, organization_id=self.system.organization_id, live=False)
        return [
            call
            for call in calls
            if call.settled_by != "withdrawn" and call.status != CallStatus.REFUSED
        ]


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


def _talked_ms(call: dict[str, Any]) -> int:
    if "startedAt" not in call:
        return 0
    talked = datetime.fromisoformat(call["endedAt"]) - datetime.fromisoformat(call["startedAt"])
    return round(talked / timedelta(milliseconds=1))
