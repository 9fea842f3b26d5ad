"""The route of a call's rate, calls without a rate, and two more causes of an end.

Why: a call is priced by the number that it uses, which may become known only later. The version
before can go on beside this one: the columns have defaults.
"""

from __future__ import annotations

from db.migrations.sql_files import run_as_owner

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_as_owner("0009_call_rating.sql")


def downgrade() -> None:
    run_as_owner("0009_call_rating_down.sql")
