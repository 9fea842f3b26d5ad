-- Calls whose charge waits, because a charged but unpaired reservation may belong to the same call.
-- At most one call waits for each such reservation.

-- The reservation that an unsettled call is withheld for.
ALTER TABLE calls ADD COLUMN withheld_for text COLLATE "C"
    CHECK (length(withheld_for) BETWEEN 1 AND 64);

-- Settled calls may keep the name: workers of the version before do not clear it.
CREATE UNIQUE INDEX calls_withheld_for ON calls (organization_id, withheld_for)
    WHERE withheld_for IS NOT NULL AND settled_at IS NULL;

-- Charged reservations that no call of the provider is paired with, by when they were charged: what
-- is read under the wallet's lock is those that overlap one call, and not those of half a day.
CREATE INDEX calls_charged_unpaired ON calls (organization_id, settled_at)
    INCLUDE (created_at, their_party)
    WHERE origin = 'reserved' AND provider_call_id IS NULL AND merged_into IS NULL
        AND settled_by IN ('api', 'operator') AND cost_micros > 0;
-- It served the same question by when they were made. The planner would take either.
DROP INDEX calls_unpaired;
