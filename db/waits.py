"""The longest wait that each stored future instant can mean.

If the database's clock steps back, an instant that was seconds away may be an hour away. One that
is further ahead than the longest wait that was ever meant is due. docs/architecture.md, "Time and
transactions", holds the same list.
"""

from __future__ import annotations

#: calls.tick_at: a live call is ticked at least this often, in seconds.
TICK_SECONDS_MAX = 60.0
#: jobs.due_at after the first attempt: no retry and no postponement waits longer, in seconds.
#: Before it, due_at is what the job was staged for, which may be days away.
AGAIN_SECONDS_MAX = 1_800.0
#: jobs.lease_until, in seconds: longer than the lease of any job.
LEASE_SECONDS_MAX = 60.0

#: A job's wait is over.
DUE = (
    "(due_at <= clock_timestamp() OR (attempt > 0"
    f" AND due_at > clock_timestamp() + interval '{AGAIN_SECONDS_MAX:.0f} seconds'))"
)
#: No worker has the job: it has no lease, the lease ran out, or no lease can be that long.
UNLEASED = (
    "(lease_until IS NULL OR lease_until <= clock_timestamp()"
    f" OR lease_until > clock_timestamp() + interval '{LEASE_SECONDS_MAX:.0f} seconds')"
)
