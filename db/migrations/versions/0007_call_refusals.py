"""Refused calls with their reason, and one code for each cause of an end.

Why: a refused call looked like one that had not asked, and one fact had two codes. The version
before can go on beside this one: the old codes stay allowed.
"""

from __future__ import annotations

from db.migrations.sql_files import run_as_owner

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_as_owner("0007_call_refusals.sql")


def downgrade() -> None:
    run_as_owner("0007_call_refusals_down.sql")
