"""The count at the end of a run: expected state against the state in the database.

The expected state is computed in plain Python from the providers' data and the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from chaos.entitlements import entitlements
from chaos.facts import Facts, Problem
from chaos.journal import Name
from chaos.outgoing_count import outgoing
from chaos.overlong_count import overlong
from chaos.phone_count import phones
from chaos.predial_count import predial
from domain.wallet.audit.verification import verify_ledger

#: Types of Vapi messages that the inbox must store. Their event ID starts with the call's ID, a
#: colon and this type.
_STORED_MESSAGE_TYPES = ("status-update", "end-of-call-report")


def count_problems(facts: Facts) -> list[Problem]:
    """Run every check of the count and return the problems."""
    # These checks compute the amount that each wallet should contain. `_compare_wallets` follows.
    money_checks = (_compare_debits, _compare_payments, _compare_holds, phones, outgoing)
    checks = (
        *money_checks,
        overlong,
        predial,
        _compare_webhooks,
        _check_jobs,
        _compare_wallets,
        _verify_ledger,
        entitlements,
    )
    return [problem for check in checks for problem in check(facts)]


# -- entries and holds --------------------------------------------------------------------------


def _compare_debits(facts: Facts) -> Iterator[Problem]:
    amounts_by_debit: dict[Name, list[int]] = {}
    for organization_id, key, micros in facts.rows(
        "SELECT organization_id, operation_key, amount_micros FROM wallet_entries"
        " WHERE kind = 'debit'"
    ):
        amounts_by_debit.setdefault((organization_id, key), []).append(micros)
    for name, request in facts.recorded.of("debit").items():
        amounts = amounts_by_debit.pop(name, [])
        if request.outcome == "OK":
            facts.add(name[0], -request.micros)
        elif request.outcome is None:
            yield Problem(
                "lost", f"debit {name}: never answered, {request.unsure} times asked", name
            )
        if request.outcome == "OK" and not amounts:
            yield Problem("lost", f"debit {name}: answered OK, no entry", name)
        elif len(amounts) > (request.outcome == "OK"):
            text = f"debit {name}: answered {request.outcome}, entries {amounts}"
            yield Problem("doubled", text, name)
        elif amounts and amounts != [request.micros]:
            text = f"debit {name}: asked for {request.micros}, entry of {amounts[0]}"
            yield Problem("drift", text, name)
    for name, amounts in amounts_by_debit.items():
        yield Problem("doubled", f"debit {name}: entries {amounts} without a request", name)


def _compare_payments(facts: Facts) -> Iterator[Problem]:
    moved_micros: Counter[str] = Counter()
    for capture_id, micros in facts.rows(
        "SELECT split_part(operation_key, ':', 4), sum(CASE direction WHEN 'credit'"
        " THEN amount_micros ELSE -amount_micros END)::bigint FROM wallet_entries"
        " WHERE operation_key LIKE 'payment:%'"
        " AND kind IN ('topup', 'give_back', 'refund', 'dispute', 'owed') GROUP BY 1"
    ):
        moved_micros[capture_id] = micros
    known = {
        capture_id: recorded
        for capture_id, *recorded in facts.rows(
            "SELECT p.external_id, captured_micros, (SELECT coalesce(sum(amount_micros), 0)::bigint"
            " FROM payment_refunds r WHERE (r.provider, r.kind, r.payment_id)"
            " = (p.provider, p.kind, p.external_id) AND state <> 'failed')"
            " FROM payment_references p"
        )
    }
    for capture in facts.captures:
        at_paypal = [_micros(capture["amount"]["value"]), _micros(capture["refunded"])]
        kept_micros = at_paypal[0] - at_paypal[1]
        facts.add(capture["custom_id"], kept_micros)
        found_micros, recorded = moved_micros.pop(capture["id"], 0), known.get(capture["id"])
        if recorded != at_paypal:
            text = f"payment {capture['id']}: paid and refunded {at_paypal}, known {recorded}"
            yield Problem("lost", text, (capture["id"],))
        elif found_micros != kept_micros:
            text = f"payment {capture['id']}: {kept_micros} kept, {found_micros} moved"
            yield Problem("doubled", text, (capture["id"],))
    for capture_id, found_micros in moved_micros.items():
        text = f"payment {capture_id}: unknown at the provider, {found_micros} moved"
        yield Problem("doubled", text, (capture_id,))


def _compare_holds(facts: Facts) -> Iterator[Problem]:
    rows = {
        (row[0], row[1]): row[2:]
        for row in facts.rows(
            "SELECT organization_id, call_id, status, billed_micros FROM call_holds h"
            # Holds of real calls are checked against the call's duration.
            " WHERE NOT EXISTS (SELECT FROM calls c WHERE (c.organization_id, c.id)"
            " = (h.organization_id, h.call_id))"
        )
    }
    commits, releases = facts.recorded.of("commit"), facts.recorded.of("release")
    for name, request in commits.items():
        status, billed_micros = rows.get(name, (None, None))
        facts.add(name[0], -request.micros if request.outcome == "OK" else 0)
        if request.outcome != "OK":
            yield Problem("lost", f"call {name}: commit answered {request.outcome}", name)
        elif billed_micros != request.micros:
            text = f"call {name}: {request.micros} committed, {billed_micros} billed ({status})"
            yield Problem("lost", text, name)
    for name, request in releases.items():
        status, _ = rows.get(name, (None, None))
        if name not in commits and status in ("open", "committed"):
            yield Problem("lost", f"call {name}: released ({request.outcome}), but {status}", name)
    for name, (status, billed_micros) in rows.items():
        if status == "open":
            yield Problem("lost", f"call {name}: its hold is still open", name)
        if billed_micros is not None and name not in commits:
            yield Problem("doubled", f"call {name}: {billed_micros} billed without a request", name)
    for organization_id, key, times in facts.rows(
        "SELECT organization_id, operation_key, count(*) FROM wallet_entries"
        " WHERE kind = 'call' GROUP BY 1, 2 HAVING count(*) > 1"
    ):
        text = f"call {organization_id} {key}: {times} entries"
        yield Problem("doubled", text, (organization_id, key))


# -- webhooks and jobs --------------------------------------------------------------------------


def _compare_webhooks(facts: Facts) -> Iterator[Problem]:
    outcomes: dict[str, str | None] = dict(
        facts.rows(
            "SELECT external_id, CASE WHEN handled_at IS NOT NULL THEN outcome END FROM inbox"
        )
    )
    for (organization_id, event_id), request in facts.recorded.of("webhook").items():
        label = f"webhook {event_id} of {organization_id}"
        if request.outcome != "OK":
            yield Problem("lost", f"{label}: never accepted", (event_id,))
        elif event_id not in outcomes:
            yield Problem("lost", f"{label}: accepted, not stored", (event_id,))
        elif outcomes[event_id] != "handled":
            yield Problem("lost", f"{label}: {outcomes[event_id]}", (event_id,))
    stored_messages = {tuple(event_id.split(":")[:2]) for event_id in outcomes}
    for call_id, kind in sorted(facts.accepted):
        if kind in _STORED_MESSAGE_TYPES and (call_id, kind) not in stored_messages:
            text = f"webhook {kind} of {call_id}: accepted, not stored"
            yield Problem("lost", text, (call_id,))
    for event_id in sorted(
        outcomes.keys() - {event_id for _, event_id in facts.recorded.of("webhook")}
    ):
        # The journal lacks webhooks that the sandbox sent itself. Many of those concern no
        # organization.
        if outcomes[event_id] is None:
            yield Problem("lost", f"webhook {event_id}: stored, not handled", (event_id,))
    for event_id, times in facts.rows(
        "SELECT kwargs ->> 'event_id', count(*) FROM jobs WHERE name = 'process_event'"
        " GROUP BY 1 HAVING count(*) > 1"
    ):
        yield Problem("doubled", f"webhook {event_id}: {times} jobs", (event_id,))


def _check_jobs(facts: Facts) -> Iterator[Problem]:
    for job_id, name, state, error in facts.rows(
        "SELECT id, name, CASE WHEN dead_at IS NOT NULL THEN 'dead' WHEN ring_at IS NOT NULL"
        " THEN 'waiting' ELSE outcome END, last_error FROM jobs"
        " WHERE outcome IS DISTINCT FROM 'done' ORDER BY id"
    ):
        text = f"job {job_id} {name}: {state} {error or ''}".rstrip()
        yield Problem("lost", text, (job_id,))


# -- wallets --------------------------------------------------------------------------------------


def _compare_wallets(facts: Facts) -> Iterator[Problem]:
    for organization_id, balance, held, owed, entries_sum, entries, newest in facts.rows(
        "SELECT w.organization_id, w.balance_micros, w.held_micros, w.owed_micros, e.sum, e.count,"
        " w.entry_no FROM wallets w CROSS JOIN LATERAL (SELECT count(*), sum("
        " CASE direction WHEN 'credit' THEN amount_micros WHEN 'debit' THEN -amount_micros ELSE 0"
        " END)::bigint FROM wallet_entries x WHERE x.organization_id = w.organization_id) e"
    ):
        expected = facts.expected.get(organization_id, 0)
        expected_figures = (max(expected, 0), 0, max(-expected, 0))
        if (balance, held, owed) != expected_figures:
            yield Problem(
                "drift",
                f"wallet {organization_id}: balance, held, owed are {(balance, held, owed)},"
                f" should be {expected_figures}",
                (organization_id,),
            )
        if entries_sum != balance or entries != newest + 1:
            yield Problem(
                "drift",
                f"wallet {organization_id}: {entries} entries come to {entries_sum}, the wallet"
                f" says entry {newest} and {balance}",
                (organization_id,),
            )


def _verify_ledger(facts: Facts) -> Iterator[Problem]:
    for finding in verify_ledger(facts.database.run):
        yield Problem("drift", f"chain: {finding}")


def _micros(value: str) -> int:
    return int(Decimal(value) * 1_000_000)
