"""Store an event that concerns nothing as ignored, without a job.

Why: workers fell behind under status callbacks, and each of them cost a job, a notification and an
attempt. The function's signature stays, so that an ingress of the version before goes on beside it.
"""

from __future__ import annotations

from db.migrations.sql_files import run_as_owner

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_as_owner("0017_ignored_events.sql")


def downgrade() -> None:
    run_as_owner("0017_ignored_events_down.sql")
