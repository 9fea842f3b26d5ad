-- Withholds a call's charge if a charged but unpaired reservation may belong to the same call. At
-- most one call waits for each such reservation.

-- The reservation that an unsettled call is withheld for.
ALTER TABLE calls ADD COLUMN withheld_for text COLLATE "C"
    CHECK (length(withheld_for) BETWEEN 1 AND 64);

-- Excludes settled calls, because workers of the previous version do not clear the column.
CREATE UNIQUE INDEX calls_withheld_for ON calls (organization_id, withheld_for)
    WHERE withheld_for IS NOT NULL AND settled_at IS NULL;

-- Finds charged reservations that are paired with no call of the provider, by the time of the
-- charge. Only reservations that overlap one call are then read under the wallet's lock, and not
-- those of half a day.
CREATE INDEX calls_charged_unpaired ON calls (organization_id, settled_at)
    INCLUDE (created_at, their_party)
    WHERE origin = 'reserved' AND provider_call_id IS NULL AND merged_into IS NULL
        AND settled_by IN ('api', 'operator') AND cost_micros > 0;
-- Served the same query by the time of the reservation. The planner might choose either index.
DROP INDEX calls_unpaired;
