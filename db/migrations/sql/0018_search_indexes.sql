-- Finds discarded jobs by id, as jobs_refused finds refused ones. Without it, a search for them
-- reads every job. Operators discard few jobs, and no other job is in the index.
CREATE INDEX jobs_discarded ON jobs (id) WHERE outcome = 'discarded';

-- Finds the newest alerts of a kind, cleared ones included.
CREATE INDEX alerts_kind ON alerts (kind, id);
