-- Lets at most one refresh wait for each object (a call, a subscription, a payment, a dispute).
--
-- A job under a lease is not in the index, because it may have read the object before the event
-- that requests the next refresh. Nearly all jobs have no key. They are not in the index either, so
-- it costs them nothing. The column is new, so the index is built on an empty column.
ALTER TABLE jobs ADD COLUMN object_key text COLLATE "C" CHECK (length(object_key) BETWEEN 1 AND 300);
CREATE UNIQUE INDEX jobs_object_waiting ON jobs (object_key)
    WHERE object_key IS NOT NULL AND ring_at IS NOT NULL AND lease_until IS NULL;
