"""The state found at Twilio beside the desired state, so that drift is repaired.

Why: a change made at Twilio itself was never noticed. The revision only adds columns, so that
processes of the version before can go on.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_as_owner("0004_subaccount_checks.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "ALTER TABLE brands DROP COLUMN twilio_found, DROP COLUMN twilio_found_at,"
        " DROP COLUMN twilio_drift, DROP COLUMN twilio_checked_at"
    )
