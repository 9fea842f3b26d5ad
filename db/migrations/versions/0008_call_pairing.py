"""Pairing of reservations with the provider's calls: tokens, merged rows, and how a call began.

Why: one outgoing call could be held and charged twice, and a browser could take over a reserved id.
Only adds, so that the version before can go on beside this one.
"""

from __future__ import annotations

from db.migrations.sql_files import run_as_owner

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_as_owner("0008_call_pairing.sql")


def downgrade() -> None:
    run_as_owner("0008_call_pairing_down.sql")
