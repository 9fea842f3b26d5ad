"""An organization with one phone number, and what a scene reads about its calls."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from base.enums import CallStatus
from base.operators import Operator
from base.problems.wallet import INSUFFICIENT_FUNDS
from db.models.calls import Call
from domain.alerts.queries import list_alerts
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.queries import list_calls, read_call_details
from domain.calls.rates import Rate, set_rate
from domain.calls.settings import Terms, set_terms
from domain.wallet import operations as wallet
from domain.wallet.queries import PAGE_MAX, history
from local.demo.report import Report
from local.demo.system import DemoSystem

#: One cent per second, billed by the second.
RATE = Rate(micros_per_minute=600_000, increment_seconds=1)
#: Verdict on a call that is not answered yet.
_NOT_ANSWERED = "undecided"


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


def _talked_ms(call: dict[str, Any]) -> int:
    if "startedAt" not in call:
        return 0
    talked = datetime.fromisoformat(call["endedAt"]) - datetime.fromisoformat(call["startedAt"])
    return round(talked / timedelta(milliseconds=1))
