-- How many minutes of a call are waived at most, from its start, when the platform's own fault
-- ended it. The default serves the version before, which does not know the column.
ALTER TABLE call_terms ADD COLUMN fault_waived_minutes integer NOT NULL DEFAULT 10
    CHECK (fault_waived_minutes BETWEEN 0 AND 720);
