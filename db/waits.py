"""The longest wait that each stored future instant can mean.

If the database's clock steps back, an instant that was seconds away may be an hour away. Therefore
an instant that is further ahead than its longest wait counts as due. The same list is in
docs/architecture.md, "Time and transactions".
"""

from __future__ import annotations

#: calls.tick_at: a live call is ticked at least this often, in seconds.
TICK_SECONDS_MAX = 60.0
#: jobs.due_at after the first attempt, in seconds: no retry and no postponement waits longer.
#: Before the first attempt, `due_at` is the time that the job was staged for. It may be days away.
AGAIN_SECONDS_MAX = 1_800.0
#: jobs.lease_until, in seconds: no job has a longer lease.
LEASE_SECONDS_MAX = 60.0

#: SQL condition: the job's wait is over.
DUE = (
    "(due_at <= clock_timestamp() OR (attempt > 0"
    f" AND due_at > clock_timestamp() + interval '{AGAIN_SECONDS_MAX:.0f} seconds'))"
)
#: SQL condition: no worker has leased the job. It has no lease, its lease ran out, or the lease is
#: longer than any real one.
UNLEASED = (
    "(lease_until IS NULL OR lease_until <= clock_timestamp()"
    f" OR lease_until > clock_timestamp() + interval '{LEASE_SECONDS_MAX:.0f} seconds')"
)
