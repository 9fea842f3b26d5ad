"""The certificates known to be PayPal's, for ingress processes that start later.

Why: a flood of made-up certificate names kept genuine events out of a process that had just
started. Only adds a table, so that the version before goes on beside it.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_as_owner("0005_certificates.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TABLE paypal_certificates")
