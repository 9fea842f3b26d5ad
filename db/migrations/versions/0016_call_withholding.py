"""Withhold at most one call for each charged reservation that is not paired.

Why: one such reservation withheld every call that overlapped it. All reservations of half a day
were read under the wallet's lock.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_as_owner("0016_call_withholding.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP INDEX calls_charged_unpaired, calls_withheld_for")
    op.execute("ALTER TABLE calls DROP COLUMN withheld_for")
    op.execute(
        "CREATE INDEX calls_unpaired ON calls (organization_id, created_at)"
        " WHERE origin = 'reserved' AND provider_call_id IS NULL"
    )
