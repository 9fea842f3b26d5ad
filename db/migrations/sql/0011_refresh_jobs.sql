-- Refreshes of one object (a call, a subscription, a payment, a dispute): one at most waits at a time.
--
-- A job that a worker has under a lease is not in the index: it may have read the object before the
-- event that asks for the next refresh. Jobs without a key, which are nearly all, are not in it
-- either and pay nothing for it. The index is built on a column that is new and so empty.
ALTER TABLE jobs ADD COLUMN object_key text COLLATE "C" CHECK (length(object_key) BETWEEN 1 AND 300);
CREATE UNIQUE INDEX jobs_object_waiting ON jobs (object_key)
    WHERE object_key IS NOT NULL AND ring_at IS NOT NULL AND lease_until IS NULL;
