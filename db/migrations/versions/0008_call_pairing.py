"""Pairing of reservations with calls: tokens, merged rows, and a call's origin.

Why: one outgoing call could be held and charged twice, and a browser could take over a reserved ID.
The revision only adds, so that processes of the version before can go on.
"""

from __future__ import annotations

from db.migrations.sql_files import run_as_owner

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_as_owner("0008_call_pairing.sql")


def downgrade() -> None:
    run_as_owner("0008_call_pairing_down.sql")
