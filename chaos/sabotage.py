"""Sabotages: each breaks one guarantee for a whole run.

The run's report must then show lost work, drift, or refusals by the database.

A sabotage changes the run's own processes or database. Production code contains none of it.
"""

from __future__ import annotations

import re

import psycopg

from chaos.system import Plan, System
from db.address import driver_url

SABOTAGES = {
    "relay-off": "no relay runs: lost notifications are never repeated, so work is lost",
    "done-first": "a job is committed as done before its effect: a kill in between loses it",
    "no-lock": "no function locks a wallet: the database refuses, and no balance drifts",
    "no-guards": "lock, entry number and the wallet's foreign key are gone: balances drift",
}

#: The sabotages that remove the wallet's lock.
_SABOTAGES_WITHOUT_LOCK = ("no-lock", "no-guards")
#: A statement that reads wallets under a lock.
_LOCK_CLAUSE = re.compile(r"(FROM wallets\b[^;]*?)\s+FOR NO KEY UPDATE")
_SELECT_LOCKING_FUNCTIONS = """
    SELECT pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prosrc LIKE '%FROM wallets%FOR NO KEY UPDATE%'
"""
_REMOVE_GUARDS = (
    "ALTER TABLE wallets DROP CONSTRAINT wallet_equals_its_newest_entry",
    "DROP TRIGGER wallets_never_go_back ON wallets",
    "ALTER TABLE wallet_entries DROP CONSTRAINT wallet_entries_pkey",
    "ALTER TABLE wallet_entries DROP CONSTRAINT"
    " wallet_entries_organization_id_entry_no_balance_after_micro_key",
    # Without an index to replace the dropped ones, queries would become slow, which is not
    # intended.
    "CREATE INDEX ON wallet_entries (organization_id, entry_no)",
)


def plan_of(sabotage: str) -> Plan:
    """Return how the sabotage changes the processes."""
    return Plan(
        relays=sabotage != "relay-off",
        worker_module="chaos.done_first" if sabotage == "done-first" else "local.worker",
    )


def traffic_has_holds(sabotage: str) -> bool:
    """Return whether the traffic has holds and calls.

    A hold writes no entry, so only the lock keeps the held amount correct. Without the lock, no
    constraint of the database would notice a wrong amount.
    """
    return sabotage not in _SABOTAGES_WITHOUT_LOCK


def sabotage_database(system: System, sabotage: str) -> list[str]:
    """Break the run's own database, as its owner, and list what was done."""
    if sabotage not in _SABOTAGES_WITHOUT_LOCK:
        return []
    changes = []
    with psycopg.connect(driver_url(system.owner_url), autocommit=True) as owner:
        for (definition,) in owner.execute(_SELECT_LOCKING_FUNCTIONS).fetchall():
            unlocked = _LOCK_CLAUSE.sub(r"\1", definition)
            if unlocked != definition:
                owner.execute(unlocked)
                changes.append(definition.splitlines()[0])
        if sabotage == "no-guards":
            for statement in _REMOVE_GUARDS:
                owner.execute(statement)
                changes.append(statement)
    return changes
