"""The count at the end: what should be, reckoned in plain Python from the providers' facts and the
journal, against what is in the database and at the providers.

lost: asked for and taken in, without its effect. doubled: an effect too many. drift: a wallet or a
chain that is not what all effects come to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple

import psycopg

from chaos.house import Customer, House
from chaos.journal import Name, Story
from db.engine import Database, driver_url
from domain.verify import verify_ledger

Kind = Literal["lost", "doubled", "drift"]


class Problem(NamedTuple):
    """One thing that is not as it should be, with the ids to look for."""

    kind: Kind
    words: str


@dataclass
class Facts:
    """Everything the count reads, read once, in the calm."""

    customers: list[Customer]
    story: Story
    rows: Callable[[str], list[tuple[Any, ...]]]
    captures: list[dict[str, Any]]
    subscriptions: dict[str, str]
    subaccounts: dict[str, str]
    database: Database
    #: What each organization has come to: balance less what is owed, in micros.
    expected: dict[str, int] = field(default_factory=dict)


def count_problems(house: House, customers: list[Customer], story: Story) -> list[Problem]:
    """This function will compare everything and give what is wrong, the worst first."""
    if house.database is None:
        raise RuntimeError("the house is not started")
    with psycopg.connect(driver_url(house.owner_url), autocommit=True) as owner:
        facts = Facts(
            customers,
            story,
            lambda query: owner.execute(query).fetchall(),
            house.control("GET", "/paypal/captures"),
            {one["id"]: one["status"] for one in house.control("GET", "/paypal/subscriptions")},
            {one.subaccount_sid: _subaccount(house, one.subaccount_sid) for one in customers},
            house.database,
        )
        checks = (_debits, _payments, _holds, _webhooks, _jobs, _wallets, _ledgers, _postures)
        return [problem for check in checks for problem in check(facts)]


# -- what moved -----------------------------------------------------------------------------------


def _debits(facts: Facts) -> Iterator[Problem]:
    written: dict[Name, list[int]] = {}
    for organization_id, key, micros in facts.rows(
        "SELECT organization_id, operation_key, amount_micros FROM wallet_entries"
        " WHERE kind = 'debit'"
    ):
        written.setdefault((organization_id, key), []).append(micros)
    for name, wish in facts.story.of("debit").items():
        found = written.pop(name, [])
        if wish.outcome == "OK":
            _spend(facts, name[0], wish.micros)
        elif wish.outcome is None:
            yield Problem("lost", f"debit {name}: never answered, {wish.unsure} times asked")
        if wish.outcome == "OK" and not found:
            yield Problem("lost", f"debit {name}: answered OK, no entry")
        elif len(found) > (wish.outcome == "OK"):
            yield Problem("doubled", f"debit {name}: answered {wish.outcome}, entries {found}")
        elif found and found != [wish.micros]:
            yield Problem("drift", f"debit {name}: asked for {wish.micros}, entry of {found[0]}")
    for name, found in written.items():
        yield Problem("doubled", f"debit {name}: asked for by nobody, entries {found}")


def _payments(facts: Facts) -> Iterator[Problem]:
    moved: Counter[str] = Counter()
    for capture_id, micros in facts.rows(
        "SELECT split_part(operation_key, ':', 4), sum(CASE kind WHEN 'topup' THEN amount_micros"
        " ELSE -amount_micros END)::bigint FROM wallet_entries"
        " WHERE operation_key LIKE 'payment:%' AND kind IN ('topup', 'refund', 'owed') GROUP BY 1"
    ):
        moved[capture_id] = micros
    known = {
        capture_id: seen
        for capture_id, *seen in facts.rows(
            "SELECT external_id, captured_micros, refunded_micros FROM payment_references"
        )
    }
    for capture in facts.captures:
        told = [_micros(capture["amount"]["value"]), _micros(capture["refunded"])]
        kept = told[0] - told[1]
        _spend(facts, capture["custom_id"], -kept)
        found, seen = moved.pop(capture["id"], 0), known.get(capture["id"])
        if seen != told:
            yield Problem(
                "lost", f"payment {capture['id']}: paid and refunded {told}, known {seen}"
            )
        elif found != kept:
            yield Problem("doubled", f"payment {capture['id']}: {kept} kept, {found} moved")
    for capture_id, found in moved.items():
        yield Problem("doubled", f"payment {capture_id}: unknown at the provider, {found} moved")


def _holds(facts: Facts) -> Iterator[Problem]:
    rows = {
        (row[0], row[1]): row[2:]
        for row in facts.rows(
            "SELECT organization_id, call_id, status, billed_micros FROM call_holds"
        )
    }
    billed, released = facts.story.of("commit"), facts.story.of("release")
    for name, wish in billed.items():
        status, found = rows.get(name, (None, None))
        _spend(facts, name[0], wish.micros if wish.outcome == "OK" else 0)
        if wish.outcome != "OK":
            yield Problem("lost", f"call {name}: commit answered {wish.outcome}")
        elif found != wish.micros:
            yield Problem(
                "lost", f"call {name}: {wish.micros} committed, {found} billed ({status})"
            )
    for name, wish in released.items():
        status, _ = rows.get(name, (None, None))
        if name not in billed and status in ("open", "committed"):
            yield Problem("lost", f"call {name}: released ({wish.outcome}), but {status}")
    for name, (status, found) in rows.items():
        if status == "open":
            yield Problem("lost", f"call {name}: its hold is still open")
        if found is not None and name not in billed:
            yield Problem("doubled", f"call {name}: {found} billed, asked for by nobody")
    for organization_id, key, times in facts.rows(
        "SELECT organization_id, operation_key, count(*) FROM wallet_entries"
        " WHERE kind = 'call' GROUP BY 1, 2 HAVING count(*) > 1"
    ):
        yield Problem("doubled", f"call {organization_id} {key}: {times} entries")


# -- what was taken in, and what followed ---------------------------------------------------------


def _webhooks(facts: Facts) -> Iterator[Problem]:
    kept: dict[str, str | None] = dict(
        facts.rows(
            "SELECT external_id, CASE WHEN handled_at IS NOT NULL THEN outcome END FROM inbox"
        )
    )
    for (organization_id, event_id), wish in facts.story.of("webhook").items():
        if wish.outcome != "OK":
            yield Problem("lost", f"webhook {event_id} of {organization_id}: never taken in")
        elif event_id not in kept:
            yield Problem("lost", f"webhook {event_id} of {organization_id}: taken in, not kept")
        elif kept[event_id] != "handled":
            yield Problem("lost", f"webhook {event_id} of {organization_id}: {kept[event_id]}")
    for event_id, times in facts.rows(
        "SELECT kwargs ->> 'event_id', count(*) FROM jobs WHERE name = 'process_event'"
        " GROUP BY 1 HAVING count(*) > 1"
    ):
        yield Problem("doubled", f"webhook {event_id}: {times} jobs")


def _jobs(facts: Facts) -> Iterator[Problem]:
    for job_id, name, state, error in facts.rows(
        "SELECT id, name, CASE WHEN dead_at IS NOT NULL THEN 'dead' WHEN ring_at IS NOT NULL"
        " THEN 'waiting' ELSE outcome END, last_error FROM jobs"
        " WHERE outcome IS DISTINCT FROM 'done' ORDER BY id"
    ):
        yield Problem("lost", f"job {job_id} {name}: {state} {error or ''}".rstrip())


# -- wallets --------------------------------------------------------------------------------------


def _wallets(facts: Facts) -> Iterator[Problem]:
    for organization_id, balance, held, owed, sum_of, entries, newest in facts.rows(
        "SELECT w.organization_id, w.balance_micros, w.held_micros, w.owed_micros, e.sum, e.count,"
        " w.entry_no FROM wallets w CROSS JOIN LATERAL (SELECT count(*), sum("
        " CASE direction WHEN 'credit' THEN amount_micros WHEN 'debit' THEN -amount_micros ELSE 0"
        " END)::bigint FROM wallet_entries x WHERE x.organization_id = w.organization_id) e"
    ):
        expected = facts.expected.get(organization_id, 0)
        wanted = (max(expected, 0), 0, max(-expected, 0))
        if (balance, held, owed) != wanted:
            yield Problem(
                "drift",
                f"wallet {organization_id}: balance, held, owed are {(balance, held, owed)},"
                f" should be {wanted}",
            )
        if sum_of != balance or entries != newest + 1:
            yield Problem(
                "drift",
                f"wallet {organization_id}: {entries} entries come to {sum_of}, the wallet says"
                f" entry {newest} and {balance}",
            )


def _ledgers(facts: Facts) -> Iterator[Problem]:
    for finding in verify_ledger(facts.database.run):
        yield Problem("drift", f"chain: {finding}")


# -- posture --------------------------------------------------------------------------------------


def _postures(facts: Facts) -> Iterator[Problem]:
    frozen = {
        (organization_id, reason)
        for organization_id, reason in facts.rows(
            "SELECT organization_id, reason FROM wallet_freezes WHERE lifted_at IS NULL"
        )
    }
    campaigns = {
        row[0]: row[1:] for row in facts.rows("SELECT id, status, pause_reason FROM campaigns")
    }
    known: dict[str, str] = dict(
        facts.rows("SELECT external_id, status FROM subscriptions")
    )
    by_hand = _frozen_by_hand(facts.story)
    for one in facts.customers:
        check = partial(_differs, one.organization_id)
        theirs = facts.subscriptions[one.subscription_id]
        active, net = theirs == "ACTIVE", facts.expected.get(one.organization_id, 0)
        found = {reason for whose, reason in frozen if whose == one.organization_id}
        owed = found & {"refund_shortfall", "call_shortfall"}
        yield from check("subscription", theirs.lower(), known.get(one.subscription_id))
        twilio = "active" if active else "suspended"
        yield from check("Twilio", twilio, facts.subaccounts[one.subaccount_sid])
        manual = one.organization_id in by_hand
        yield from check("freeze by hand", manual, "manual" in found)
        yield from check("freeze for the end", not active, "subscription_inactive" in found)
        yield from check("freeze for what is owed", net < 0, bool(owed))
        reason = _pause_reason(active, manual or net < 0, net)
        running = ("running", None) if reason is None else ("paused", reason)
        yield from check("campaign", running, campaigns[one.campaign_ids[0]])
        paused = ("paused", "manual_pause")
        yield from check("campaign paused by hand", paused, campaigns[one.campaign_ids[1]])


def _pause_reason(active: bool, frozen: bool, net: int) -> str | None:
    if not active:
        return "subscription_inactive"
    if frozen:
        return "wallet_frozen"
    return "wallet_depleted" if net <= 0 else None


def _frozen_by_hand(story: Story) -> set[str]:
    """Who was frozen last and not lifted since: a freeze is lifted before the next, if at all."""
    lifted = story.of("lift")
    standing: dict[str, bool] = {}
    for organization_id, key in story.of("freeze"):
        standing[organization_id] = (organization_id, key) not in lifted
    return {organization_id for organization_id, stands in standing.items() if stands}


def _differs(organization_id: str, what: str, wanted: object, found: object) -> Iterator[Problem]:
    if wanted != found:
        yield Problem("lost", f"{what} of {organization_id}: is {found}, should be {wanted}")


def _subaccount(house: House, sid: str) -> str:
    status: str = house.control("GET", f"/twilio/subaccounts/{sid}")["status"]
    return status


def _spend(facts: Facts, organization_id: str, micros: int) -> None:
    facts.expected[organization_id] = facts.expected.get(organization_id, 0) - micros


def _micros(value: str) -> int:
    return int(Decimal(value) * 1_000_000)
